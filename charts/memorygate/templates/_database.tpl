{{- /* A MetaGate release's trial database, as its chart names it; its Secret has the same name. */ -}}
{{- define "memorygate.trial" -}}
{{- with .Values.database.trialOf -}}
{{- $name := ternary . (printf "%s-metagate" .) (contains "metagate" .) -}}
{{ $name | trunc 40 | trimSuffix "-" }}-database
{{- end -}}
{{- end -}}

{{- /* What the chart makes when nobody brings the writer's password. */ -}}
{{- define "memorygate.ownSecret" -}}
{{ include "gate-lib.fullname" . }}-writer
{{- end -}}

{{- define "memorygate.makesWriter" -}}
{{- with .Values.database }}{{ if not (or .writer.existingSecret .existingSecret) }}yes{{ end }}{{ end -}}
{{- end -}}

{{- /* Which Secret and key hold a role's password: (dict "root" $ "role" "owner") */ -}}
{{- define "memorygate.passwordFrom" -}}
{{- $values := .root.Values -}}
{{- $role := ternary $values.identity (index $values.database .role) (eq .role "identity") -}}
{{- $trial := include "memorygate.trial" .root -}}
{{- if and (eq .role "writer") (include "memorygate.makesWriter" .root) -}}
{secretKeyRef: {name: {{ include "memorygate.ownSecret" .root }}, key: writer}}
{{- else if and $trial (has .role (list "owner" "identity")) (not $role.existingSecret) -}}
{secretKeyRef: {name: {{ $trial }}, key: metagate_{{ .role }}}}
{{- else -}}
{secretKeyRef: {name: {{ default $values.database.existingSecret $role.existingSecret }}, key: {{ $role.passwordKey | quote }}}}
{{- end -}}
{{- end -}}

{{- /* No password is in a URL, so that no character of one has to be quoted: (dict "root" $ "of" .Values.database "user" "…" "ca" "ledger") */ -}}
{{- define "memorygate.url" -}}
{{- $trial := include "memorygate.trial" .root -}}
{{- if $trial -}}
postgresql://{{ .user }}@{{ $trial }}:5432/metagate?sslmode=disable
{{- else -}}
postgresql://{{ .user }}@{{ .of.host }}:{{ .of.port }}/{{ .of.name }}?sslmode={{ .of.sslMode }}{{ if .of.caSecret }}&sslrootcert=/etc/memorygate/{{ .ca }}-ca/ca.crt{{ end }}
{{- end -}}
{{- end -}}

{{- /* Where identity is: MetaGate's own database when one is named, else the ledger's. */ -}}
{{- define "memorygate.identityUrl" -}}
{{- if .Values.identity.host -}}
{{ include "memorygate.url" (dict "root" . "of" .Values.identity "user" "metagate_identity" "ca" "identity") }}
{{- else -}}
{{ include "memorygate.url" (dict "root" . "of" .Values.database "user" "metagate_identity" "ca" "database") }}
{{- end -}}
{{- end -}}

{{- define "memorygate.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- range $name, $of := dict "database" .Values.database "identity" .Values.identity }}
{{- if $of.caSecret }}
- {name: {{ $name }}-ca, mountPath: /etc/memorygate/{{ $name }}-ca, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{- define "memorygate.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- range $name, $of := dict "database" .Values.database "identity" .Values.identity }}
{{- if $of.caSecret }}
- name: {{ $name }}-ca
  secret:
    secretName: {{ $of.caSecret }}
    items: [{key: {{ $of.caKey | quote }}, path: ca.crt}]
{{- end }}
{{- end }}
{{- end -}}
