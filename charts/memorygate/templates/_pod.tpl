{{- /*
What every pod of the chart has in common: the restricted pod security, no token, no injected service addresses (a Service
named memorygate would otherwise inject MEMORYGATE_PORT and its like).
(dict "root" $ "component" "gate" "values" .Values)
*/ -}}
{{- define "memorygate.podSpec" -}}
serviceAccountName: {{ include "gate-lib.fullname" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- include "gate-lib.podSecurity" . | nindent 2 }}
{{- include "gate-lib.placement" . }}
{{- end -}}

{{- define "memorygate.container" -}}
{{ include "gate-lib.container" . }}
command: [memorygate]
{{- end -}}

{{- /* The pod that migrates: the owner's password is here and nowhere else. */ -}}
{{- define "memorygate.migration" -}}
metadata: {{- include "gate-lib.podMetadata" . | nindent 2 }}
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
