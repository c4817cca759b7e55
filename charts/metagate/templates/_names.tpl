{{- define "metagate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* 40 characters leave room for the longest suffix within the 63 of a label. */ -}}
{{- define "metagate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "metagate.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Names of cluster-scoped objects carry the namespace: two releases of one name must not share them. */ -}}
{{- define "metagate.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "metagate.fullname" .) -}}
{{- end -}}

{{- /* (dict "root" $ "component" "api") */ -}}
{{- define "metagate.selector" -}}
app.kubernetes.io/name: {{ include "metagate.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "metagate.labels" -}}
{{- with .root.Values.commonLabels }}{{ toYaml . }}
{{ end -}}
{{ include "metagate.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: metagate
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "metagate.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* A digest names one image, so the trial database then needs the tag. */ -}}
{{- define "metagate.embeddedImage" -}}
{{- printf "%s:%s%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) .Values.image.embeddedSuffix -}}
{{- end -}}

{{- define "metagate.address" -}}
{{- printf "%s://%s.%s.svc:%v" (ternary "https" "http" (ne .Values.api.tls.secretName "")) (include "metagate.fullname" .) .Release.Namespace .Values.api.service.port -}}
{{- end -}}

{{/* Egress to a URL's port: `url`, and the peers `to` (none: any address). */}}
{{- define "metagate.peer" -}}
{{- $url := urlParse .url }}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "443" "80" (eq $url.scheme "https")) }}
ports: [{port: {{ int $port }}, protocol: TCP}]
{{- with .to }}
to: {{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{/* Labels as a selector: `a=b,c=d`. */}}
{{- define "metagate.equalities" -}}
{{- $parts := list }}
{{- range $name, $value := . }}{{ $parts = append $parts (printf "%s=%s" $name $value) }}{{ end }}
{{- join "," $parts }}
{{- end }}
