{{- /*
What every pod of the chart has in common: the restricted pod security, no token, no injected service addresses (a Service
named memorygate would otherwise inject MEMORYGATE_PORT and its like).
(dict "root" $ "component" "gate")
*/ -}}
{{- define "memorygate.podSpec" -}}
serviceAccountName: {{ include "memorygate.fullname" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .root.Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "memorygate.podMetadata" -}}
labels:
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- include "memorygate.labels" . | nindent 2 }}
{{- with .root.Values.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "memorygate.container" -}}
image: {{ include "memorygate.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [memorygate]
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- /* The pod that migrates: the owner's password is here and nowhere else. */ -}}
{{- define "memorygate.migration" -}}
metadata: {{- include "memorygate.podMetadata" . | nindent 2 }}
spec:
  {{- include "memorygate.podSpec" . | nindent 2 }}
  restartPolicy: OnFailure
  containers:
  - name: migrate
    {{- include "memorygate.container" .root | nindent 4 }}
    args: [migrate]
    env:
    - {name: MEMORYGATE_DATABASE_URL, value: {{ include "memorygate.url" (dict "root" .root "of" .root.Values.database "user" (ternary "metagate_owner" .root.Values.database.owner.username (ne .root.Values.database.trialOf "")) "ca" "database") | quote }}}
    - name: PGPASSWORD
      valueFrom: {{ include "memorygate.passwordFrom" (dict "root" .root "role" "owner") }}
    - name: MEMORYGATE_WRITER_PASSWORD
      valueFrom: {{ include "memorygate.passwordFrom" (dict "root" .root "role" "writer") }}
    {{- if .root.Values.database.auditor.existingSecret }}
    - name: MEMORYGATE_AUDITOR_PASSWORD
      valueFrom: {{ include "memorygate.passwordFrom" (dict "root" .root "role" "auditor") }}
    {{- end }}
    resources: {{- toYaml .root.Values.migration.resources | nindent 6 }}
    volumeMounts: {{- include "memorygate.mounts" .root | nindent 4 }}
  volumes: {{- include "memorygate.volumes" .root | nindent 2 }}
{{- end -}}
