{{- /* Names of cluster-scoped objects carry the namespace: two releases of one name must not share them. */ -}}
{{- define "metagate.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "gate-lib.fullname" .) -}}
{{- end -}}

{{- /* A digest names one image, so the trial database then needs the tag. */ -}}
{{- define "metagate.embeddedImage" -}}
{{- printf "%s:%s%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) .Values.image.embeddedSuffix -}}
{{- end -}}

{{- define "metagate.address" -}}
{{- printf "%s://%s.%s.svc:%v" (ternary "https" "http" (ne .Values.api.tls.secretName "")) (include "gate-lib.fullname" .) .Release.Namespace .Values.api.service.port -}}
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
