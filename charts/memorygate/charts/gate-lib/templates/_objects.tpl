{{- /* (dict "root" $ "component" "api" "name" "mg-metagate-api" "maxUnavailable" 1) */ -}}
{{- define "gate-lib.disruptionBudget" -}}
{{- if .maxUnavailable }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{- include "gate-lib.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .maxUnavailable }}
  selector:
    matchLabels: {{- include "gate-lib.selector" . | nindent 6 }}
{{- end }}
{{- end -}}

{{- /* (dict "root" $ "component" "api" "ingress" (list …) "egress" (list …)) */ -}}
{{- define "gate-lib.networkPolicy" -}}
{{- $name := printf "%s-%s" (include "gate-lib.fullname" .root) .component }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{- include "gate-lib.metadata" (merge (dict "name" $name) .) | nindent 2 }}
spec:
  podSelector:
    matchLabels: {{- include "gate-lib.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress: {{- toYaml .ingress | nindent 4 }}
  egress: {{- toYaml .egress | nindent 4 }}
{{- end -}}

{{- /* Name lookups: the peers that answer them. */ -}}
{{- define "gate-lib.dns" -}}
ports:
- {port: 53, protocol: UDP}
- {port: 53, protocol: TCP}
to: {{- toYaml . | nindent 0 }}
{{- end -}}

{{- /*
Passwords, made once: an upgrade finds them. Where Helm cannot look (helm template, Argo CD) a Secret has to be brought along.
(dict "root" $ "name" "mg-database" "keys" (list "owner"))
*/ -}}
{{- define "gate-lib.madeOnce" -}}
{{- $found := (lookup "v1" "Secret" .root.Release.Namespace .name).data | default dict }}
type: Opaque
data:
  {{- range .keys }}
  {{ . }}: {{ index $found . | default (randAlphaNum 32 | b64enc) }}
  {{- end }}
{{- end -}}

{{- /* All pods of the release, whatever their component. */ -}}
{{- define "gate-lib.everyPod" -}}
app.kubernetes.io/name: {{ include "gate-lib.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- define "gate-lib.monitorMetadata" -}}
{{ include "gate-lib.metadata" . }}
  {{- with .labels }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end -}}

{{- /* Scrapes each pod of the release: (dict "root" $ "component" "monitoring" "labels" dict "interval" "30s" "endpoints" (list …)) */ -}}
{{- define "gate-lib.podMonitor" -}}
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata: {{- include "gate-lib.monitorMetadata" . | nindent 2 }}
spec:
  selector:
    matchLabels: {{- include "gate-lib.everyPod" . | nindent 6 }}
  podMetricsEndpoints:
  {{- range .endpoints }}
  - {{- merge (dict "interval" $.interval) . | toYaml | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "gate-lib.serviceMonitor" -}}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {{- include "gate-lib.monitorMetadata" . | nindent 2 }}
spec:
  selector:
    matchLabels: {{- include "gate-lib.selector" . | nindent 6 }}
  endpoints:
  {{- range .endpoints }}
  - {{- merge (dict "interval" $.interval) . | toYaml | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /* Objects of a chart, each part a template `<chart>.objects.<part>`: (dict "root" $ "parts" (list "gate" "migration")) */ -}}
{{- define "gate-lib.release" -}}
{{- range .parts }}
---
{{ include (printf "%s.objects.%s" $.root.Chart.Name .) $.root }}
{{- end }}
{{- end -}}
