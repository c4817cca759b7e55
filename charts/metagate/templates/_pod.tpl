{{- /*
What every pod of the chart has in common: the restricted pod security, no injected service addresses, and no
service account token but where one is asked for.
(dict "root" $ "component" "api" "values" .Values.api "token" false "uid" true)
*/ -}}
{{- define "metagate.podSpec" -}}
serviceAccountName: {{ include "metagate.fullname" .root }}-{{ .component }}
automountServiceAccountToken: {{ .token }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
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
{{- if hasKey .values "topologySpreadConstraints" }}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
{{- toYaml .values.topologySpreadConstraints | nindent 0 }}
{{- else }}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector: {matchLabels: {{ include "metagate.selector" . | fromYaml | toJson }}}
{{- end }}
{{- end }}
{{- end -}}

{{- /*
What whoever compiles is told of HS256 (D-37): that it is on, and whose subjects it may be. Not the secret.
*/ -}}
{{- define "metagate.sharedIssuerEnv" -}}
{{- with .Values.hs256 }}
{{- if .secretName }}
- {name: METAGATE_JWT_ISSUER, value: {{ .issuer | quote }}}
- {name: METAGATE_JWT_NAMESPACES, value: {{ join "," .namespaces | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "metagate.podMetadata" -}}
labels:
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- include "metagate.labels" . | nindent 2 }}
{{- with .values.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "metagate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "metagate.container" -}}
image: {{ include "metagate.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{- include "metagate.containerSecurity" . | nindent 2 }}
{{- end -}}
