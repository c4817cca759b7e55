{{- /* (dict "root" $ "component" "api" "values" .Values.api) */ -}}
{{- define "gate-lib.podMetadata" -}}
labels:
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- include "gate-lib.labels" . | nindent 2 }}
{{- with .values.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /*
The part of a Deployment's spec that never has fewer pods than it should: (dict "root" $ "component" "api"). With `recreate` the
old pod ends before the new one starts, because both want a volume that only one can have.
*/ -}}
{{- define "gate-lib.rolling" -}}
strategy:
  {{- if .recreate }}
  type: Recreate
  {{- else }}
  # Named, though it is the default: an upgrade from Recreate has to take the other away.
  type: RollingUpdate
  rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  {{- end }}
selector:
  matchLabels: {{- include "gate-lib.selector" . | nindent 4 }}
{{- end -}}

{{- define "gate-lib.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "gate-lib.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "gate-lib.container" -}}
image: {{ include "gate-lib.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{- include "gate-lib.containerSecurity" . | nindent 2 }}
{{- end -}}

{{- /* Where a pod may run, and with which credentials its image is pulled: (dict "root" $ "values" .Values.api) */ -}}
{{- define "gate-lib.placement" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "gate-lib.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector: {matchLabels: {{ include "gate-lib.selector" . | fromYaml | toJson }}}
{{- end -}}

{{- /*
Ready once the database was reached and its schema fits, which a migration may delay for two minutes: (dict "port" "http" "scheme" "HTTPS")
*/ -}}
{{- define "gate-lib.probes" -}}
{{- $ready := dict "path" "/readyz" "port" .port }}
{{- $live := dict "path" "/livez" "port" .port }}
{{- with .scheme }}{{ $_ := set $ready "scheme" . }}{{ $_ := set $live "scheme" . }}{{ end }}
startupProbe:
  httpGet: {{- toYaml $ready | nindent 4 }}
  periodSeconds: 1
  failureThreshold: 120
readinessProbe:
  httpGet: {{- toYaml $ready | nindent 4 }}
  periodSeconds: 5
  timeoutSeconds: 2
livenessProbe:
  httpGet: {{- toYaml $live | nindent 4 }}
  periodSeconds: 10
  timeoutSeconds: 3
{{- end -}}

{{- /* Already out of the Service, still serving: every proxy learns it before the listener closes. */ -}}
{{- define "gate-lib.drain" -}}
lifecycle:
  preStop:
    sleep: {seconds: {{ . }}}
{{- end -}}
