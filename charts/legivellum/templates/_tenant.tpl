{{- /* The objects of a tenant, as a list of kind, name and spec: (dict "root" $ "tenant" "team-a" "escalateTo" "operator-on-call") */ -}}
{{- define "legivellum.tenant" -}}
{{- $home := .root.Release.Namespace }}
{{- if not .root.Values.escalateTo }}
# Without a credential nobody would know this Principal: whoever is on call asks for a token of that service account.
- {kind: Principal, name: operator-on-call, spec: {type: principal, subjects: [{serviceAccount: {name: operator-on-call}}]}}
{{- end }}
{{- if and (hasKey .root.Subcharts "interrogate") (hasKey .root.Subcharts "delegate") }}
- {kind: Principal, name: front-desk, spec: {type: service, subjects: [{serviceAccount: {name: front-desk}}]}}
- kind: PolicyProfile
  name: legivellum
  spec:
    limits: {maxSpawnDepth: 8, maxTotalDescendants: 1000}
    surfaces:
    # Requests arrive here; only Principals of type `principal` may begin a story.
    - surfaceId: public
      kind: McpGateway
      principals: ["*"]
      capabilities: {allow: [review, plan.submit]}
      rateLimit: {requests: 600, per: 1m, burst: 100}
      targets:
      - {name: delegate, url: "http://delegate.{{ $home }}:8004/intents/{{ .tenant }}"}
    # DeleGate has its steps admitted here and hands them to AsyncGate itself: that target is named, never called.
    - surfaceId: plans
      principals: [delegate]
      parentage: Tenant
      capabilities: {allow: ["*"]}
      targets:
      - {name: asyncgate, url: "http://asyncgate.{{ $home }}:8002/tasks", forward: false}
- kind: Problemata
  name: review
  spec:
    version: "1"
    gateway: {policyProfileRef: {name: legivellum}, surfaceId: public, principals: [front-desk]}
    payloadKind: plan_request
    capabilities:
    - id: review
      inputSchema:
        type: object
        required: [documents]
        additionalProperties: false
        properties:
          documents: {type: array, minItems: 1, maxItems: 20, items: {type: string}}
- kind: PlanTemplate
  name: review
  spec: {{- .root.Files.Get "files/review.yaml" | replace "operator-on-call" .escalateTo | nindent 4 }}
{{- end }}
- kind: Manifest
  name: legivellum
  spec:
    deploymentKey: legivellum
    services:
      ledger: {type: memorygate, endpoint: "http://memorygate.{{ $home }}:8001"}
      {{- range $gate, $port := dict "asyncgate" 8002 "depotgate" 8003 "delegate" 8004 "interrogate" 8005 }}
      {{ $gate }}: {type: {{ $gate }}, endpoint: "http://{{ $gate }}.{{ $home }}:{{ $port }}"}
      {{- end }}
      {{- with .root.Values.model }}
      {{- if .endpoint }}
      llm:
        type: chat-completions
        endpoint: {{ .endpoint | quote }}
        {{- if .existingSecret }}
        auth: {scheme: bearer, secretRef: model}
        {{- end }}
        metadata: {models: {default: {{ .name | quote }}}, structured: {{ .structured }}}
      {{- end }}
      {{- end }}
- kind: Profile
  name: cognigate
  spec:
    policy:
      cognition: {{- merge (dict "models" (list "default")) .root.Values.model.limits | toYaml | nindent 8 }}
    {{- if .root.Values.model.existingSecret }}
    secretRefs:
    - {name: model, kind: Env, ref: MODEL_KEY}
    {{- end }}
- kind: Principal
  name: cognigate
  spec: {type: worker, subjects: [{serviceAccount: {name: cognigate}}]}
- kind: PrincipalBinding
  name: cognigate
  spec:
    principalRef: {name: cognigate}
    profileRef: {name: cognigate}
    manifestRef: {name: legivellum}
    components: [cognigate]
{{- end -}}
