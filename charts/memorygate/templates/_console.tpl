{{- /* What the gate's process is told of its console; nothing while it is off. */ -}}
{{- define "memorygate.console" -}}
{{- with .Values.console }}
{{- if .enabled -}}
- {name: MEMORYGATE_CONSOLE, value: "true"}
- name: MEMORYGATE_CONSOLE_SECRET
  valueFrom: {secretKeyRef: {name: {{ .secretName }}, key: console-secret}}
- {name: MEMORYGATE_CONSOLE_MINUTES, value: {{ .sessionMinutes | quote }}}
- {name: MEMORYGATE_CONSOLE_SECURE, value: {{ .secure | quote }}}
{{- end }}
{{- end }}
{{- end -}}
