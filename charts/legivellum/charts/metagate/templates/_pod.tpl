{{- /*
What every pod of the chart has in common: the restricted pod security, no injected service addresses, and no
service account token but where one is asked for.
(dict "root" $ "component" "api" "values" .Values.api "token" false "uid" true)
*/ -}}
{{- define "metagate.podSpec" -}}
serviceAccountName: {{ include "gate-lib.fullname" .root }}-{{ .component }}
automountServiceAccountToken: {{ .token }}
enableServiceLinks: false
securityContext:
  {{- include "gate-lib.podSecurity" . | nindent 2 }}
  fsGroupChangePolicy: OnRootMismatch
{{- include "gate-lib.placement" . }}
{{- if hasKey .values "topologySpreadConstraints" }}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
{{- toYaml .values.topologySpreadConstraints | nindent 0 }}
{{- else }}
{{- include "gate-lib.spread" . | nindent 0 }}
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
