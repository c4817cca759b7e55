{{- define "metagate.database" -}}
{{ include "gate-lib.fullname" . }}-database
{{- end -}}

{{- define "metagate.trialSecret" -}}
{{- default (include "metagate.database" .) .Values.database.trial.existingSecret -}}
{{- end -}}

{{- /*
The environment of one database role. User and password come from the role's own Secret through libpq's variables, which
asyncpg reads, so that no character of a password has to be quoted for a URL.
(dict "root" $ "role" "publisher" "pooled" false)
*/ -}}
{{- define "metagate.databaseEnv" -}}
{{- $root := .root -}}
{{- if $root.Values.database.trial.enabled }}
- name: METAGATE_DATABASE_URL
  value: postgresql://{{ include "metagate.database" $root }}:5432/metagate?sslmode=disable
- name: PGUSER
  value: metagate_{{ .role }}
- name: PGPASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "metagate.trialSecret" $root }}, key: metagate_{{ .role }}}}
{{- else }}
{{- $external := $root.Values.database.external }}
{{- $role := index $external .role }}
{{- $host := $external.host }}
{{- $port := $external.port }}
{{- if and .pooled $external.poolerHost }}
{{- $host = $external.poolerHost }}
{{- $port = $external.poolerPort }}
{{- end }}
- name: METAGATE_DATABASE_URL
  value: postgresql://{{ $host }}:{{ $port }}/{{ $external.name }}?sslmode={{ $external.sslMode }}{{ if $external.caSecret }}&sslrootcert=/etc/metagate/database-ca/ca.crt{{ end }}
- name: PGUSER
  valueFrom: {secretKeyRef: {name: {{ $role.existingSecret }}, key: {{ $role.usernameKey }}}}
- name: PGPASSWORD
  valueFrom: {secretKeyRef: {name: {{ $role.existingSecret }}, key: {{ $role.passwordKey }}}}
{{- end }}
{{- end -}}

{{- define "metagate.databaseMounts" -}}
{{- if and .Values.database.external.enabled .Values.database.external.caSecret }}
- {name: database-ca, mountPath: /etc/metagate/database-ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "metagate.databaseVolumes" -}}
{{- with .Values.database.external }}
{{- if and .enabled .caSecret }}
- name: database-ca
  secret:
    secretName: {{ .caSecret }}
    items: [{key: {{ .caKey | quote }}, path: ca.crt}]
{{- end }}
{{- end }}
{{- end -}}

{{- /* What the owner's migration gives the other roles as their passwords. */ -}}
{{- define "metagate.rolePasswordEnv" -}}
{{- $root := . -}}
{{- $roles := list "publisher" "api" }}
{{- if or $root.Values.database.trial.enabled $root.Values.database.external.identity.existingSecret }}
{{- $roles = append $roles "identity" }}
{{- end }}
{{- range $role := $roles }}
- name: METAGATE_{{ upper $role }}_PASSWORD
{{- if $root.Values.database.trial.enabled }}
  valueFrom: {secretKeyRef: {name: {{ include "metagate.trialSecret" $root }}, key: metagate_{{ $role }}}}
{{- else }}
{{- $values := index $root.Values.database.external $role }}
  valueFrom: {secretKeyRef: {name: {{ $values.existingSecret }}, key: {{ $values.passwordKey }}}}
{{- end }}
{{- end }}
{{- end -}}
