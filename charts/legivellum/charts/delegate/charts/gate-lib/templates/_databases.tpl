{{- /* What the role is called that the processes act as: `<chart>_<this>`. A chart that calls it otherwise says so in its Chart.yaml. */ -}}
{{- define "gate-lib.processRole" -}}
{{ default "writer" (index .Chart.Annotations "legivellum.io/process-role") }}
{{- end -}}

{{- /* A MetaGate release's trial database, as its chart names it; its Secret has the same name. */ -}}
{{- define "gate-lib.trial" -}}
{{- with (default .Values.identity .Values.database).trialOf -}}
{{- $name := ternary . (printf "%s-metagate" .) (contains "metagate" .) -}}
{{ $name | trunc 40 | trimSuffix "-" }}-database
{{- end -}}
{{- end -}}

{{- /* What the chart makes when nobody brings the writer's password. */ -}}
{{- define "gate-lib.ownSecret" -}}
{{ include "gate-lib.fullname" . }}-writer
{{- end -}}

{{- define "gate-lib.makesWriter" -}}
{{- with .Values.database }}{{ if not (or .writer.existingSecret .existingSecret) }}yes{{ end }}{{ end -}}
{{- end -}}

{{- /* Which Secret and key hold a role's password: (dict "root" $ "role" "owner") */ -}}
{{- define "gate-lib.passwordFrom" -}}
{{- $values := .root.Values -}}
{{- $database := default dict $values.database -}}
{{- $role := ternary $values.identity (index $database .role) (eq .role "identity") -}}
{{- $trial := include "gate-lib.trial" .root -}}
{{- if and (eq .role "writer") (include "gate-lib.makesWriter" .root) -}}
{secretKeyRef: {name: {{ include "gate-lib.ownSecret" .root }}, key: writer}}
{{- else if and $trial (has .role (list "owner" "identity")) (not $role.existingSecret) -}}
{secretKeyRef: {name: {{ $trial }}, key: metagate_{{ .role }}}}
{{- else -}}
{secretKeyRef: {name: {{ default $database.existingSecret $role.existingSecret }}, key: {{ $role.passwordKey | quote }}}}
{{- end -}}
{{- end -}}

{{- /* No password is in a URL, so that no character of one has to be quoted: (dict "root" $ "of" .Values.database "user" "…" "ca" "ledger") */ -}}
{{- define "gate-lib.url" -}}
{{- $trial := include "gate-lib.trial" .root -}}
{{- if $trial -}}
postgresql://{{ .user }}@{{ $trial }}:5432/metagate?sslmode=disable
{{- else -}}
postgresql://{{ .user }}@{{ .of.host }}:{{ .of.port }}/{{ .of.name }}?sslmode={{ .of.sslMode }}{{ if .of.caSecret }}&sslrootcert=/etc/{{ .root.Chart.Name }}/{{ .ca }}-ca/ca.crt{{ end }}
{{- end -}}
{{- end -}}

{{- /* Where identity is: MetaGate's own database when one is named, else the ledger's. */ -}}
{{- define "gate-lib.identityUrl" -}}
{{- if or .Values.identity.host (not .Values.database) -}}
{{ include "gate-lib.url" (dict "root" . "of" .Values.identity "user" "metagate_identity" "ca" "identity") }}
{{- else -}}
{{ include "gate-lib.url" (dict "root" . "of" .Values.database "user" "metagate_identity" "ca" "database") }}
{{- end -}}
{{- end -}}

{{- define "gate-lib.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- range $name, $of := dict "database" (default dict .Values.database) "identity" .Values.identity }}
{{- if $of.caSecret }}
- {name: {{ $name }}-ca, mountPath: /etc/{{ $.Chart.Name }}/{{ $name }}-ca, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{- define "gate-lib.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- range $name, $of := dict "database" (default dict .Values.database) "identity" .Values.identity }}
{{- if $of.caSecret }}
- name: {{ $name }}-ca
  secret:
    secretName: {{ $of.caSecret }}
    items: [{key: {{ $of.caKey | quote }}, path: ca.crt}]
{{- end }}
{{- end }}
{{- end -}}

{{- /* What a schema cannot say: what is missing, and values that contradict each other. One sentence each, and what to set. */ -}}
{{- define "gate-lib.databaseChecks" -}}
{{- with .Values.database }}
{{- if and .trialOf .host }}
{{- fail "two databases: database.trialOf names a MetaGate release's, database.host another" }}
{{- end }}
{{- if and .trialOf $.Values.identity.host }}
{{- fail "two databases: with database.trialOf the identities are in that release's database; leave identity.host empty" }}
{{- end }}
{{- if not (or .trialOf .host) }}
{{- fail "no database: set database.host to your PostgreSQL's host name, or database.trialOf to the name of a MetaGate release of this namespace" }}
{{- end }}
{{- if .host }}
{{- if not (or .owner.existingSecret .existingSecret) }}
{{- fail "database.existingSecret is empty: set it to the Secret with the passwords of the owner and of metagate_identity, or name a Secret for each" }}
{{- end }}
{{- if not (or $.Values.identity.existingSecret .existingSecret) }}
{{- fail "identity.existingSecret is empty: set it to the Secret with the password of metagate_identity" }}
{{- end }}
{{- if and (has .sslMode (list "verify-ca" "verify-full")) (not .caSecret) }}
{{- fail (printf "database.caSecret is empty: set it to the Secret with the CA that sslMode %s checks against, or set sslMode=require" .sslMode) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.identity }}
{{- if not $.Values.database }}
{{- if and .trialOf .host }}
{{- fail "two databases: identity.trialOf names a MetaGate release's, identity.host another" }}
{{- end }}
{{- if not (or .trialOf .host) }}
{{- fail "no database: set identity.host to the host name of MetaGate's PostgreSQL, or identity.trialOf to the name of a MetaGate release of this namespace" }}
{{- end }}
{{- if and .host (not .existingSecret) }}
{{- fail "identity.existingSecret is empty: set it to the Secret with the password of metagate_identity" }}
{{- end }}
{{- end }}
{{- if and .host (has .sslMode (list "verify-ca" "verify-full")) (not .caSecret) }}
{{- fail (printf "identity.caSecret is empty: set it to the Secret with the CA that sslMode %s checks against, or set sslMode=require" .sslMode) }}
{{- end }}
{{- end }}
{{- end -}}
