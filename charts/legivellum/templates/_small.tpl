{{- /*
The Deployments of all gates as one: a container for each, with its own volumes, database role and credentials. Names of volumes get the
container's before them; ports are numbers, because names are for one container each. (dict "root" $ "rendered" "…")
*/ -}}
{{- define "legivellum.small" -}}
{{- $root := .root }}
{{- $part := dict "root" $root "component" "gates" }}
{{- $pod := dict "containers" list "initContainers" list "volumes" list "ports" dict }}
{{- $services := list }}
{{- range regexSplit "(?m)^---\\s*$" .rendered -1 }}
{{- $object := fromYaml . }}
{{- if eq (toString $object.kind) "Deployment" }}
{{- include "legivellum.join" (dict "pod" $pod "template" $object.spec.template) }}
{{- else if eq (toString $object.kind) "Service" }}
{{- $services = append $services $object }}
{{- else if $object.kind }}
---
{{ toYaml $object }}
{{- end }}
{{- end }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{- include "gate-lib.metadata" $part | nindent 2 }}
spec:
  replicas: 1
  # One operator writes, and one pod at a time has the artifacts' volume.
  {{- include "gate-lib.rolling" (merge (dict "recreate" true) $part) | nindent 2 }}
  template:
    metadata: {{- include "gate-lib.podMetadata" (merge (dict "values" dict) $part) | nindent 6 }}
    spec:
      serviceAccountName: {{ ternary "metagate-operator" (include "gate-lib.fullname" $root) (hasKey $root.Subcharts "metagate") }}
      # The operator alone has a token for the API server, in a volume that no other container mounts.
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        {{- include "gate-lib.podSecurity" . | nindent 8 }}
        fsGroupChangePolicy: OnRootMismatch
      {{- include "gate-lib.placement" (dict "root" $root "values" dict) | nindent 6 }}
      terminationGracePeriodSeconds: 30
      # A gate finds the others behind their usual names without leaving the pod.
      hostAliases:
      - ip: 127.0.0.1
        hostnames:
        {{- range $gate, $chart := omit $root.Subcharts "gate-lib" "cognigate" }}
        {{- $name := include "gate-lib.fullname" $chart }}
        - {{ $name }}
        - {{ $name }}.{{ $root.Release.Namespace }}
        - {{ $name }}.{{ $root.Release.Namespace }}.svc
        {{- end }}
      initContainers: {{- toYaml $pod.initContainers | nindent 6 }}
      containers: {{- toYaml $pod.containers | nindent 6 }}
      volumes: {{- toYaml $pod.volumes | nindent 6 }}
{{- range $services }}
{{- $service := . }}
{{- range $port := .spec.ports }}
{{- with index $pod.ports (printf "%s/%s" (include "legivellum.pod" $service.spec.selector) $port.targetPort) }}
{{- $_ := set $port "targetPort" . }}
{{- $_ := set $service "moved" true }}
{{- end }}
{{- end }}
{{- if .moved }}{{ $_ := set .spec "selector" (include "gate-lib.selector" $part | fromYaml) }}{{ end }}
---
{{ toYaml (omit . "moved") }}
{{- end }}
{{- end -}}

{{- /* Whose pod it is, of its labels. */ -}}
{{- define "legivellum.pod" -}}
{{ index . "app.kubernetes.io/name" }}/{{ index . "app.kubernetes.io/component" }}
{{- end -}}

{{- /* Adds the containers, volumes and ports of a pod to `pod`: (dict "pod" dict "template" $deployment.spec.template) */ -}}
{{- define "legivellum.join" -}}
{{- $pod := .pod }}
{{- $spec := .template.spec }}
{{- $name := (first $spec.containers).name }}
{{- range $list := list "initContainers" "containers" }}
{{- range $container := index $spec $list | default list }}
{{- range .volumeMounts }}{{ $_ := set . "name" (printf "%s-%s" $name .name) }}{{ end }}
{{- range .ports }}
{{- $_ := set $pod.ports (printf "%s/%s" (include "legivellum.pod" $.template.metadata.labels) .name) .containerPort }}
{{- $port := . }}
{{- range $probe := list "startupProbe" "readinessProbe" "livenessProbe" }}
{{- with index $container $probe }}
{{- if eq (toString .httpGet.port) $port.name }}{{ $_ := set .httpGet "port" $port.containerPort }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- range .ports }}{{ $_ := unset . "name" }}{{ end }}
{{- if and $spec.automountServiceAccountToken (eq $list "containers") }}
{{- $mount := dict "name" "api-server-token" "mountPath" "/var/run/secrets/kubernetes.io/serviceaccount" "readOnly" true }}
{{- $_ := set . "volumeMounts" (append .volumeMounts $mount) }}
{{- $_ := set $pod "volumes" (append $pod.volumes (include "legivellum.apiServerToken" . | fromYaml)) }}
{{- end }}
{{- $_ := set $pod $list (append (index $pod $list) .) }}
{{- end }}
{{- end }}
{{- range $spec.volumes }}
{{- $_ := set $pod "volumes" (append $pod.volumes (merge (dict "name" (printf "%s-%s" $name .name)) .)) }}
{{- end }}
{{- end -}}

{{- /* What Kubernetes itself would mount into every container of the pod. */ -}}
{{- define "legivellum.apiServerToken" -}}
name: api-server-token
projected:
  sources:
  - serviceAccountToken: {expirationSeconds: 3607, path: token}
  - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
  - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end -}}
