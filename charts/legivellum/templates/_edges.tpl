{{- /* The pods of the release by name: labels that select one, the parties of files/edges.yaml in it, the ports of its metrics. */ -}}
{{- define "legivellum.pods" -}}
{{- $small := eq .Values.profile "small" }}
{{- $metrics := dict "api" (default 9090 (((.Subcharts.metagate).Values).api).metricsPort) "operator" 9090 "memorygate" 8001 "asyncgate" 8002 "depotgate" 8003 "delegate" 8004 "interrogate" 8005 "cognigate" 8006 }}
{{- $joined := dict "labels" (include "gate-lib.selector" (dict "root" . "component" "gates") | fromYaml) "parties" list "metrics" list }}
{{- $pods := dict }}
{{- range $gate, $chart := omit .Subcharts "gate-lib" }}
{{- $components := dict $gate "gate" }}
{{- if eq $gate "metagate" }}{{ $components = dict "operator" "operator" "api" "api" }}
{{- if .Values.admission.enabled }}{{ $_ := set $components "admission" "admission" }}{{ end }}
{{- if .Values.crds.hook }}{{ $_ := set $components "crds" "crds" }}{{ end }}
{{- if .Values.database.trial.enabled }}{{ $_ := set $components "database" "database" }}{{ end }}
{{- else if has $gate (list "memorygate" "interrogate" "asyncgate" "depotgate") }}
{{- $_ := set $components (printf "%s-migrate" $gate) "migrate" }}
{{- end }}
{{- range $party, $component := $components }}
{{- $ports := list }}
{{- with index $metrics $party }}{{ $ports = list . }}{{ end }}
{{- if and $small (has $component (list "gate" "api" "operator")) (ne $gate "cognigate") }}
{{- $_ := set $joined "parties" (append $joined.parties $party) }}
{{- $_ := set $joined "metrics" (concat $joined.metrics $ports) }}
{{- else }}
{{- $labels := include "gate-lib.selector" (dict "root" $chart "component" $component) | fromYaml }}
{{- $_ := set $pods $party (dict "labels" $labels "parties" (list $party) "metrics" $ports) }}
{{- end }}
{{- end }}
{{- end }}
{{- if $small }}{{ $_ := set $pods "gates" $joined }}{{ end }}
{{- toYaml $pods }}
{{- end -}}

{{- /* In which pod a party of files/edges.yaml is: (list $pods "operator") */ -}}
{{- define "legivellum.podOf" -}}
{{- $party := last . }}
{{- range $name, $pod := first . }}{{ if has $party $pod.parties }}{{ $name }}{{ end }}{{ end }}
{{- end -}}

{{- /* Peers of a party, as in a NetworkPolicy: (dict "root" $ "pods" $pods "pod" "gates" "party" "operator") */ -}}
{{- define "legivellum.peers" -}}
{{- $peers := list }}
{{- $root := .root }}
{{- $pod := index .pods .pod }}
{{- if has .party (list "tenant" "cognigate") }}
{{- range $root.Values.tenants }}
{{- $peer := dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" .)) }}
{{- if $pod }}{{ $_ := set $peer "podSelector" (dict "matchLabels" $pod.labels) }}{{ end }}
{{- $peers = append $peers $peer }}
{{- end }}
{{- else if $pod }}
{{- $home := dict "matchLabels" (dict "kubernetes.io/metadata.name" $root.Release.Namespace) }}
{{- $peers = list (dict "namespaceSelector" $home "podSelector" (dict "matchLabels" $pod.labels)) }}
{{- end }}
{{- toYaml $peers }}
{{- end -}}

{{- define "legivellum.policy" -}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: legivellum-{{ .name }}
  namespace: {{ .namespace }}
  labels: {{- include "gate-lib.labels" (dict "root" .root "component" .name) | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- toYaml .labels | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress: {{- .rule.ingress | default list | toYaml | nindent 4 }}
  egress: {{- .rule.egress | default list | toYaml | nindent 4 }}
{{ end -}}
