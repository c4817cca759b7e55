{{- /*
What every pod of the chart has in common: the restricted pod security, no token, no injected service addresses (a Service
named like the gate would otherwise inject <GATE>_PORT and its like).
(dict "root" $ "component" "gate" "values" .Values)
*/ -}}
{{- define "gate-lib.gatePodSpec" -}}
serviceAccountName: {{ include "gate-lib.fullname" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- include "gate-lib.podSecurity" . | nindent 2 }}
{{- include "gate-lib.placement" . }}
{{- end -}}

{{- define "gate-lib.gateContainer" -}}
{{ include "gate-lib.container" . }}
command: [{{ .Chart.Name }}]
{{- end -}}

{{- /* The pod that migrates: the owner's password is here and nowhere else. */ -}}
{{- define "gate-lib.migrationPod" -}}
metadata: {{- include "gate-lib.podMetadata" . | nindent 2 }}
spec:
  {{- include "gate-lib.gatePodSpec" . | nindent 2 }}
  restartPolicy: OnFailure
  containers:
  - name: migrate
    {{- include "gate-lib.gateContainer" .root | nindent 4 }}
    args: [migrate]
    env:
    - {name: {{ upper .root.Chart.Name }}_DATABASE_URL, value: {{ include "gate-lib.url" (dict "root" .root "of" .root.Values.database "user" (ternary "metagate_owner" .root.Values.database.owner.username (ne .root.Values.database.trialOf "")) "ca" "database") | quote }}}
    - name: PGPASSWORD
      valueFrom: {{ include "gate-lib.passwordFrom" (dict "root" .root "role" "owner") }}
    - name: {{ upper (printf "%s_%s" .root.Chart.Name (include "gate-lib.processRole" .root)) }}_PASSWORD
      valueFrom: {{ include "gate-lib.passwordFrom" (dict "root" .root "role" "writer") }}
    {{- if ((.root.Values.database.auditor).existingSecret) }}
    - name: {{ upper .root.Chart.Name }}_AUDITOR_PASSWORD
      valueFrom: {{ include "gate-lib.passwordFrom" (dict "root" .root "role" "auditor") }}
    {{- end }}
    resources: {{- toYaml .root.Values.migration.resources | nindent 6 }}
    volumeMounts: {{- include "gate-lib.mounts" .root | nindent 4 }}
  volumes: {{- include "gate-lib.volumes" .root | nindent 2 }}
{{- end -}}

{{- /*
A gate, with a database of its own where the chart has `database`: its account, Deployment, Service and disruption budget. `env`, `mounts`, `volumes`: what only this
gate has, as text; `recreate`: one pod at a time. (dict "root" $ "port" 8001 "env" "" "mounts" "" "volumes" "")
*/ -}}
{{- define "gate-lib.gate" -}}
{{- $part := dict "root" .root "component" "gate" "values" .root.Values }}
{{- $prefix := upper .root.Chart.Name }}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "gate-lib.metadata" $part | nindent 2 }}
  {{- with .root.Values.serviceAccountAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
---
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "gate-lib.metadata" $part | nindent 2 }}
spec:
  replicas: {{ .root.Values.replicas }}
  {{- include "gate-lib.rolling" (merge (dict "recreate" .recreate) $part) | nindent 2 }}
  template:
    metadata: {{- include "gate-lib.podMetadata" $part | nindent 6 }}
    spec:
      {{- include "gate-lib.gatePodSpec" $part | nindent 6 }}
      # Out of the Service first, then the requests in flight, then some room.
      terminationGracePeriodSeconds: 30
      topologySpreadConstraints: {{- include "gate-lib.spread" $part | nindent 6 }}
      containers:
      - name: {{ .root.Chart.Name }}
        {{- include "gate-lib.gateContainer" .root | nindent 8 }}
        args: [serve]
        env:
        {{- if .root.Values.database }}
        - {name: {{ $prefix }}_DATABASE_URL, value: {{ include "gate-lib.url" (dict "root" .root "of" .root.Values.database "user" (printf "%s_%s" .root.Chart.Name (include "gate-lib.processRole" .root)) "ca" "database") | quote }}}
        - name: PGPASSWORD
          valueFrom: {{ include "gate-lib.passwordFrom" (dict "root" .root "role" "writer") }}
        {{- end }}
        - {name: {{ $prefix }}_IDENTITY_DATABASE_URL, value: {{ include "gate-lib.identityUrl" .root | quote }}}
        - name: {{ $prefix }}_IDENTITY_DATABASE_PASSWORD
          valueFrom: {{ include "gate-lib.passwordFrom" (dict "root" .root "role" "identity") }}
        - {name: {{ $prefix }}_HOST, value: 0.0.0.0}
        - {name: {{ $prefix }}_PORT, value: {{ .port | quote }}}
        - {name: {{ $prefix }}_WORKERS, value: {{ .root.Values.workers | quote }}}
        - {name: {{ $prefix }}_AUDIENCE, value: {{ .root.Values.audience | quote }}}
        - {name: {{ $prefix }}_DEBUG, value: {{ .root.Values.debug | quote }}}
        {{- with .env }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with .root.Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        ports:
        - {name: http, containerPort: {{ .port }}}
        {{- include "gate-lib.probes" (dict "port" "http") | nindent 8 }}
        {{- include "gate-lib.drain" 8 | nindent 8 }}
        resources: {{- toYaml .root.Values.resources | nindent 10 }}
        volumeMounts: {{- include "gate-lib.mounts" .root | nindent 8 }}
        {{- with .mounts }}
        {{- . | nindent 8 }}
        {{- end }}
      volumes: {{- include "gate-lib.volumes" .root | nindent 6 }}
      {{- with .volumes }}
      {{- . | nindent 6 }}
      {{- end }}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "gate-lib.metadata" $part | nindent 2 }}
  {{- with .root.Values.service.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  selector: {{- include "gate-lib.selector" $part | nindent 4 }}
  ports:
  - {name: http, port: {{ .root.Values.service.port }}, targetPort: http}
{{- include "gate-lib.disruptionBudget" (merge (dict "maxUnavailable" .root.Values.maxUnavailable) $part) }}
{{- end -}}

{{- /*
The Job that migrates, a CronJob that does it again, and the writer's password where nobody brings one. A plain Job and no
hook, so that it finds the Secret of this release and --wait does not wait for itself; one per revision, because a Job cannot be changed.
*/ -}}
{{- define "gate-lib.migration" -}}
{{- $part := dict "root" $ "component" "migrate" "values" .Values }}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "gate-lib.metadata" (merge (dict "name" (printf "%s-migrate-%d" (include "gate-lib.fullname" .) .Release.Revision)) $part) | nindent 2 }}
  annotations:
    argocd.argoproj.io/hook: Sync
    argocd.argoproj.io/hook-delete-policy: BeforeHookCreation
spec:
  # Of a database that is not there yet, or a Secret that is not right yet: it goes on trying for hours.
  backoffLimit: 60
  template: {{- include "gate-lib.migrationPod" $part | nindent 4 }}
{{- with .Values.migration.schedule }}
---
# The same again, so that the coming months always have their partitions.
apiVersion: batch/v1
kind: CronJob
metadata:
  {{- include "gate-lib.metadata" (merge (dict "name" (printf "%s-migrate" (include "gate-lib.fullname" $))) $part) | nindent 2 }}
spec:
  schedule: {{ . | quote }}
  concurrencyPolicy: Forbid
  successfulJobsHistoryLimit: 1
  failedJobsHistoryLimit: 1
  jobTemplate:
    spec:
      backoffLimit: 10
      template: {{- include "gate-lib.migrationPod" $part | nindent 8 }}
{{- end }}
{{- if include "gate-lib.makesWriter" . }}
{{- $name := include "gate-lib.ownSecret" . }}
---
apiVersion: v1
kind: Secret
metadata:
  {{- include "gate-lib.metadata" (merge (dict "name" $name) $part) | nindent 2 }}
{{- include "gate-lib.madeOnce" (dict "root" $ "name" $name "keys" (list "writer")) }}
{{- end }}
{{- end -}}

{{- /*
In to the gate, out to its databases and DNS, and what `egress` adds for the gate: (dict "root" $ "port" 8001 "egress" list)
*/ -}}
{{- define "gate-lib.gateNetworkPolicies" -}}
{{- if .root.Values.networkPolicy.enabled }}
{{- $policy := .root.Values.networkPolicy }}
{{- $dns := include "gate-lib.dns" $policy.dns | fromYaml }}
{{- $first := default .root.Values.identity .root.Values.database }}
{{- $ports := list (int (ternary 5432 $first.port (ne $first.trialOf ""))) }}
{{- $everything := $ports }}
{{- if .root.Values.identity.host }}{{ $everything = append $ports (int .root.Values.identity.port) | uniq }}{{ end }}
{{- $in := dict "ports" (list (dict "port" (int .port) "protocol" "TCP")) }}
{{- with $policy.from }}{{ $_ := set $in "from" . }}{{ end }}
{{- $policies := dict "gate" (dict "ports" $everything "ingress" (list $in) "egress" (default list .egress)) }}
{{- if .root.Values.database }}{{ $_ := set $policies "migrate" (dict "ports" $ports "ingress" list "egress" list) }}{{ end }}
{{- range $component, $rules := $policies }}
{{- $database := dict "ports" list }}
{{- range $rules.ports }}{{ $_ := set $database "ports" (append $database.ports (dict "port" . "protocol" "TCP")) }}{{ end }}
{{- with $policy.database }}{{ $_ := set $database "to" . }}{{ end }}
{{- include "gate-lib.networkPolicy" (dict "root" $.root "component" $component "ingress" $rules.ingress "egress" (concat (list $dns $database) $rules.egress)) }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* The PodMonitor and the alerts of files/alerts.yaml, for the Prometheus operator. */ -}}
{{- define "gate-lib.monitoring" -}}
{{- $monitoring := .Values.monitoring }}
{{- $part := dict "root" $ "component" "monitoring" }}
{{- if $monitoring.podMonitor.enabled }}
{{- $scraped := dict "labels" $monitoring.podMonitor.labels "interval" $monitoring.podMonitor.interval }}
{{ include "gate-lib.podMonitor" (merge $scraped $part (dict "endpoints" (list (dict "port" "http")))) }}
{{- end }}
{{- if $monitoring.prometheusRule.enabled }}
{{- $rules := $.Files.Get "files/alerts.yaml" | replace "docs/runbooks/" $monitoring.prometheusRule.runbooks }}
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {{- include "gate-lib.monitorMetadata" (merge (dict "labels" $monitoring.prometheusRule.labels) $part) | nindent 2 }}
spec: {{- $rules | fromYaml | toYaml | nindent 2 }}
{{- end }}
{{- end -}}
