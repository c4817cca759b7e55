{{- /*
What this chart decides for the charts of the gates, written into their values: the image, the database, what `small` means. Called first by
every template that renders one of them; a second call changes nothing. Not `mergeOverwrite`, which leaves out false, 0 and "".
*/ -}}
{{- define "legivellum.settle" -}}
{{- $values := .Values }}
{{- $shared := dict "image" $values.image "imagePullSecrets" $values.imagePullSecrets "commonLabels" $values.commonLabels "networkPolicy" (dict "enabled" false) }}
{{- $database := dict "trialOf" "metagate" }}
{{- if $values.database.host }}
{{- $database = merge (dict "trialOf" "") (pick $values.database "host" "port" "name" "sslMode" "caSecret" "caKey" "existingSecret") }}
{{- end }}
{{- $identity := dict "host" "" }}
{{- if $values.identity.host }}{{ $identity = $values.identity }}{{ end }}
{{- range $gate, $chart := omit .Subcharts "gate-lib" }}
{{- include "legivellum.override" (dict "into" $chart.Values "with" (set (deepCopy $shared) "fullnameOverride" $gate)) }}
{{- if has $gate (list "memorygate" "interrogate" "asyncgate" "depotgate") }}
{{- $owned := merge (dict "owner" $values.database.owner) $database }}
{{- include "legivellum.override" (dict "into" $chart.Values "with" (dict "database" $owned "identity" $identity)) }}
{{- end }}
{{- end }}
{{- with .Subcharts.metagate }}
{{- $audiences := concat .Values.tokenIssuer.audiences (keys (omit $.Subcharts "gate-lib" "cognigate") | sortAlpha) | uniq }}
{{- $ledger := default (ternary "http://memorygate:8001" "" (hasKey $.Subcharts "memorygate")) .Values.ledger.url }}
{{- $decided := dict "tokenIssuer" (dict "audiences" $audiences) "ledger" (dict "url" $ledger) }}
{{- include "legivellum.override" (dict "into" .Values "with" $decided) }}
{{- if $values.database.host }}
{{- $external := merge (dict "enabled" true "identity" (dict "existingSecret" $values.database.existingSecret "passwordKey" "identity")) (pick $values.database "host" "port" "name" "sslMode" "caSecret" "caKey") }}
{{- include "legivellum.override" (dict "into" .Values.database "with" (dict "trial" (dict "enabled" false) "external" $external)) }}
{{- end }}
{{- end }}
{{- with .Subcharts.asyncgate }}
{{- if and $values.tenants (not .Values.ceilings) }}
{{- $_ := set .Values "ceilings" (list (dict "namespaces" $values.tenants "authority" $values.ceiling)) }}
{{- end }}
{{- if hasKey $.Subcharts "interrogate" }}{{ $_ := set .Values "requireAdmission" (concat .Values.requireAdmission $values.tenants | uniq) }}{{ end }}
{{- end }}
{{- with .Subcharts.interrogate }}
{{- if hasKey $.Subcharts "delegate" }}
{{- $_ := set .Values "targetHosts" (append .Values.targetHosts (printf "delegate.%s:8004" $.Release.Namespace) | uniq) }}
{{- end }}
{{- end }}
{{- with .Subcharts.delegate }}
{{- $from := ternary $identity $database (ne $values.identity.host "") }}
{{- include "legivellum.override" (dict "into" .Values.identity "with" $from) }}
{{- $keys := default "delegate-keys" $values.delegateKeys.existingSecret }}
{{- include "legivellum.override" (dict "into" .Values "with" (dict "credentialsSecret" (ternary $keys "" (gt (len $values.tenants) 0)) "admission" (ternary "required" "off" (hasKey $.Subcharts "interrogate")))) }}
{{- end }}
{{- with .Subcharts.cognigate }}
{{- if hasKey $.Subcharts "metagate" }}{{ $_ := set .Values.metagate "url" (include "metagate.address" $.Subcharts.metagate) }}{{ end }}
{{- if $values.model.existingSecret }}
{{- $_ := set .Values "modelKeys" (dict "MODEL_KEY" (dict "secret" $values.model.existingSecret "key" $values.model.key)) }}
{{- end }}
{{- if eq $values.model.name "builtin/extract-1" }}
{{- $builtin := dict "name" "COGNIGATE_BUILTIN_MODEL" "value" "true" }}
{{- $_ := set .Values "extraEnv" (append .Values.extraEnv $builtin | uniq) }}
{{- end }}
{{- end }}
{{- if eq $values.profile "small" }}{{ include "legivellum.settleSmall" . }}{{ end }}
{{- end -}}

{{- define "legivellum.settleSmall" -}}
{{- range $gate, $chart := omit .Subcharts "gate-lib" "cognigate" }}
{{- if eq $gate "metagate" }}
{{- /* The API's metrics have another port than the operator's, whose network they share. Nothing is checked while it is applied. */ -}}
{{- $api := dict "replicas" 1 "metricsPort" 9091 "maxUnavailable" 0 "autoscaling" (dict "enabled" false) "resources" (include "legivellum.memory" (list $ "api") | fromYaml) }}
{{- $operator := dict "replicas" 1 "resources" (include "legivellum.memory" (list $ "operator") | fromYaml) }}
{{- include "legivellum.override" (dict "into" $chart.Values "with" (dict "api" $api "operator" $operator "admission" (dict "enabled" false))) }}
{{- else }}
{{- include "legivellum.override" (dict "into" $chart.Values "with" (dict "replicas" 1 "maxUnavailable" 0 "resources" (include "legivellum.memory" (list $ $gate) | fromYaml))) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "legivellum.memory" -}}
requests: {cpu: 20m, memory: 64Mi}
limits: {memory: {{ index (first .).Values.small.memory (last .) }}}
{{- end -}}

{{- /* Writes values over those of a map, also empty ones: (dict "into" map "with" map) */ -}}
{{- define "legivellum.override" -}}
{{- range $key, $value := .with }}
{{- if and (kindIs "map" $value) (kindIs "map" (index $.into $key)) }}
{{- include "legivellum.override" (dict "into" (index $.into $key) "with" $value) }}
{{- else }}
{{- $_ := set $.into $key $value }}
{{- end }}
{{- end }}
{{- end -}}
