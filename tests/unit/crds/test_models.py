"""The schema of each kind: what the contract writes is valid, and bounds are bounds."""

import copy
import re
import textwrap

import pytest
import yaml
from tests.unit.crds.worlds import (
    BINDING,
    CLUSTER_ISSUER,
    MANIFEST,
    PLAN_TEMPLATE,
    POLICY,
    PRINCIPAL,
    PROBLEMATA,
    PROFILE,
)

from metagate_crds import reasons
from metagate_crds.kinds import KINDS
from metagate_crds.models import SPECS
from metagate_crds.validation import parse_spec, validate

CONTRACT = textwrap.dedent("""
    TokenIssuer:
      issuer: https://kubernetes.default.svc.cluster.local
      audiences: [metagate]
      algorithms: [RS256, ES256]
      jwks: {source: Cluster}
      maxTokenLifetime: 1h
      namespaces: [team-a]
      subjectPattern: "*@{namespace}.example.com"
    Principal:
      scope: Namespace
      type: component
      suspended: false
      subjects:
      - serviceAccount: {name: indexer}
      - {issuer: "https://idp.example.com", subject: indexer@example.com}
      apiKeys:
      - {id: 4f9k2m1q0z, sha256: "0f1e2d3c4b5a69780f1e2d3c4b5a69780f1e2d3c4b5a69780f1e2d3c4b5a6978", expiresAt: "2027-02-01T00:00:00Z"}
    Profile:
      capabilities: {search: true}
      policy: {retries: 3}
      startup: {slaSeconds: 120}
      secretRefs:
      - {name: db, kind: Env, ref: DB_PASSWORD, required: true}
    Manifest:
      deploymentKey: default
      version: 3
      environment: {region: eu}
      services: {memorygate: {type: memorygate, endpoint: "http://memorygate:8001", auth: {scheme: bearer, secretRef: db}, metadata: {shard: 1}}}
      memoryMap: {short: ram}
      polling: {inbox: {endpoint: "http://memorygate:8001/inbox", interval: 5s}}
      schemas: {receipt: {ref: "urn:legivellum:receipt:1.1"}}
    PrincipalBinding:
      principalRef: {name: indexer}
      profileRef: {name: worker}
      manifestRef: {name: prod}
      components: ["indexer_*"]
      overrides: {capabilities: {a: 1}, policy: {}, services: {}, memoryMap: {}, polling: {}, schemas: {}, environment: {}}
      active: true
    PolicyProfile:
      limits: {maxSpawnDepth: 5, maxTotalDescendants: 1000, maxRepeatsPerCapability: 50, ancestorWindow: {size: 8, maxRepeats: 2}}
      budget: {required: false, initial: 32}
      shadow: {policyProfileRef: {name: next}}
      invariants: {canSpawn: true, allowedTargets: [delegate], maxArtifactBytes: 1048576, leaseAuthority: Required, rules: [{name: small, cel: "payload.size() < 100", message: too large}]}
      surfaces:
      - surfaceId: public
        kind: McpGateway
        principals: ["*"]
        capabilities: {allow: ["doc.*"], deny: []}
        rateLimit: {requests: 100, per: 1m, burst: 20}
        rateLimits: [{name: mail, capabilities: ["mail.*"], requests: 5, per: 1h, burst: 1}]
        mayBegin: ["team-*"]
        parentage: Tenant
        escalateTo: operator-on-call
        targets: [{name: delegate, url: "http://delegate:8000/plans", kind: Mcp, forward: false, audience: delegate, secretRef: token, timeoutMs: 1000, maxResultBytes: 1000}]
        syncTimeoutMs: 2000
        forceAsync: []
        estimatedDurationThresholdMs: 5000
    Problemata:
      version: "3"
      gateway: {policyProfileRef: {name: front-desk}, surfaceId: mail, principals: [mail-gateway]}
      payloadKind: plan_request
      exposeTools: true
      capabilities:
      - {id: doc.review, inputSchema: {type: object, properties: {a: {default: null}}}, estimatedDurationMs: 400}
      - id: mail.send
        tool:
          target: mailserver
          idempotent: false
          as: send
          definition: {name: send_email, title: Send, description: Sends., inputSchema: {type: object}, outputSchema: {}, annotations: {readOnlyHint: false}}
      topology: [{from: gateway, to: delegate, purpose: plan}]
    PlanTemplate:
      capability: review
      parameters: {type: object, properties: {documents: {type: array}, note: {type: string}}}
      dispatch: Held
      approver: operator-on-call
      escalateTo: operator-on-call
      escalation: [{"on": [failure, limit], class: capability, to: operator-on-call}]
      result: merge
      deadlineSeconds: 3600
      steps:
      - id: read
        forEach: documents
        capability: document.summarise
        job:
          instruction: Summarise.
          inputs: [{name: document, pointer: "${item}", maxBytes: 1000}, {name: note, value: "${parameters.note}", maxBytes: 1048576}]
          output: {mime: text/markdown, maxBytes: 1000, schema: {type: object}}
          settings: {language: en}
        escalation: []
        authority:
          spawn: {max: 1}
          invokeCognigate: true
          exposeTools: ["mail/*"]
          writeBeyondReceipts: true
          maxDepth: 2
          asyncgates: [asyncgate]
          sinks: [depotgate/output]
          cognition: {models: [default], calls: 2, tokens: 8000, seconds: 120}
      - {id: more, dependsOn: [read], plan: {templateRef: {name: other}, parameters: {a: 1}}}
      - {id: merge, capability: document.merge, job: {inputs: [{name: parts, step: read, maxBytes: 1048576}]}}
""")
SPECS_OF = {
    "TokenIssuer": CLUSTER_ISSUER,
    "Principal": PRINCIPAL,
    "Profile": PROFILE,
    "Manifest": MANIFEST,
    "PrincipalBinding": BINDING,
    "PolicyProfile": POLICY,
    "Problemata": PROBLEMATA,
    "PlanTemplate": PLAN_TEMPLATE,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_contract_writes_is_valid_and_comes_back_unchanged(kind):
    """Every field by its name, and nothing lost on the way."""
    spec = yaml.safe_load(CONTRACT)[kind]
    model, findings = parse_spec(kind, spec)
    assert findings == ()
    assert model is not None
    assert model.declared() == {**model.declared(), **spec}


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_field_is_refused_by_path(kind):
    """A typo must not silently mean nothing."""
    findings = validate(kind, {**SPECS_OF[kind], "wrong": 1})
    assert [(item.path, item.reason) for item in findings] == [("spec.wrong", reasons.UNKNOWN_FIELD)]


@pytest.mark.parametrize("kind", KINDS)
def test_null_is_absent(kind):
    """As it is to kubectl."""
    nothing = {
        "suspended",
        "capabilities",
        "version",
        "active",
        "budget",
        "maxTokenLifetime",
        "exposeTools",
        "topology",
    }
    fields = {field.alias for field in SPECS[kind].model_fields.values() if not field.is_required()}
    assert validate(kind, {**SPECS_OF[kind], **dict.fromkeys(fields & nothing)}) == ()


INVALID = [
    ("Principal", "type", "root"),
    ("Principal", "type", 1),
    ("Principal", "suspended", "true"),
    ("Principal", "scope", "World"),
    ("Principal", "rights", ["everything"]),
    ("Principal", "subjects", [{}]),
    ("Principal", "subjects", [{"issuer": "x"}]),
    ("Principal", "subjects", [{"issuer": " ", "subject": "x"}]),
    ("Principal", "subjects", [{"issuer": "x", "subject": "a\nb"}]),
    ("Principal", "subjects", [{"serviceAccount": {"name": "Upper"}}]),
    ("Principal", "subjects", [{"serviceAccount": {"name": "a", "namespace": "other"}}]),
    ("Principal", "subjects", [{"serviceAccount": {"name": "a"}}] * 2),
    ("Principal", "apiKeys", [{"id": "short", "sha256": "0" * 64}]),
    ("Principal", "apiKeys", [{"id": "0123456789", "sha256": "0" * 63}]),
    ("Principal", "apiKeys", [{"id": "0123456789", "sha256": "A" * 64}]),
    ("Principal", "apiKeys", [{"id": "0123456789"}]),
    ("Principal", "apiKeys", [{"id": "0123456789", "sha256": "0" * 64, "expiresAt": "2027-02-01"}]),
    ("Principal", "apiKeys", [{"id": "0123456789", "sha256": "0" * 64, "expiresAt": "2027-02-01T00:00:00"}]),
    ("Principal", "apiKeys", [{"id": "0123456789", "sha256": "0" * 64, "key": "mgk"}]),
    ("Principal", "apiKeys", [{"id": "0123456789", "sha256": "0" * 64}, {"id": "9876543210", "sha256": "0" * 64}]),
    ("Profile", "startup", {"slaSeconds": 0}),
    ("Profile", "startup", {"slaSeconds": -5}),
    ("Profile", "startup", {"slaSeconds": 86401}),
    ("Profile", "startup", {"slaSeconds": "60"}),
    ("Profile", "startup", {"slaSeconds": True}),
    ("Profile", "startup", {"slaSeconds": 1.5}),
    ("Profile", "capabilities", ["x"]),
    ("Profile", "secretRefs", [{"name": "a", "ref": "A"}, {"name": "a", "ref": "B"}]),
    ("Manifest", "services", {"a": {"type": "x"}}),
    ("Manifest", "services", {"a": "http://a"}),
    ("Manifest", "services", {"a": {"endpoint": ""}}),
    ("Manifest", "services", {"a": {"endpoint": "http://a b"}}),
    ("Manifest", "services", {"a": {"endpoint": "x", "auth": {"scheme": "bearer", "value": "x"}}}),
    ("Manifest", "services", {f"s{number}": {"endpoint": "x"} for number in range(257)}),
    ("Manifest", "version", "3"),
    ("Manifest", "version", -1),
    ("Manifest", "schemas", {"a": {"ref": "x", "inline": {}}}),
    ("PrincipalBinding", "principalRef", {"name": "a", "namespace": "other"}),
    ("PrincipalBinding", "principalRef", {"name": ""}),
    ("PrincipalBinding", "principalRef", "indexer"),
    ("PrincipalBinding", "components", None),
    ("PrincipalBinding", "components", "*"),
    ("PrincipalBinding", "components", [""]),
    ("PrincipalBinding", "components", ["a*b"]),
    ("PrincipalBinding", "components", ["**"]),
    ("PrincipalBinding", "components", ["a b"]),
    ("PrincipalBinding", "components", ["a", "a"]),
    ("PrincipalBinding", "components", ["indexer\n"]),
    ("PrincipalBinding", "components", ["k" * 254]),
    ("PrincipalBinding", "overrides", {"services": []}),
    ("PrincipalBinding", "active", "yes"),
    ("TokenIssuer", "audiences", []),
    ("TokenIssuer", "audiences", [" "]),
    ("TokenIssuer", "algorithms", []),
    ("TokenIssuer", "maxTokenLifetime", "1"),
    ("TokenIssuer", "maxTokenLifetime", "500ms"),
    ("TokenIssuer", "maxTokenLifetime", "0s"),
    ("TokenIssuer", "maxTokenLifetime", "1 h"),
    ("TokenIssuer", "maxTokenLifetime", "999999999h"),
    ("TokenIssuer", "namespaces", ["UPPER"]),
    ("TokenIssuer", "namespaces", ["a", "a"]),
    ("PolicyProfile", "limits", {"maxSpawnDepth": -1}),
    ("PolicyProfile", "limits", {"maxSpawnDepth": 1, "ancestorWindow": {"size": 0, "maxRepeats": 1}}),
    ("PolicyProfile", "budget", {"initial": -1}),
    ("PolicyProfile", "invariants", {"rules": [{"name": "a", "cel": ""}]}),
    ("PolicyProfile", "invariants", {"rules": [{"name": "a", "cel": "true"}, {"name": "a", "cel": "false"}]}),
    ("PolicyProfile", "surfaces", [{"surfaceId": "a"}, {"surfaceId": "a"}]),
    ("PolicyProfile", "surfaces", [{"surfaceId": "a", "kind": "Open"}]),
    ("PolicyProfile", "surfaces", [{"surfaceId": "a", "rateLimit": {"requests": 0, "per": "1m"}}]),
    ("PolicyProfile", "surfaces", [{"surfaceId": "a", "rateLimit": {"requests": 1, "per": "often"}}]),
    ("PolicyProfile", "surfaces", [{"surfaceId": "a", "targets": [{"name": "t", "url": "http://x"}] * 2}]),
]


@pytest.mark.invariant("INV-015")
@pytest.mark.parametrize(("kind", "field", "value"), INVALID)
def test_what_is_out_of_bounds_is_refused_under_its_path(kind, field, value):
    """Each with a reason that is documented, and without the value in the message."""
    findings = validate(kind, {**copy.deepcopy(SPECS_OF[kind]), field: value})
    assert findings
    assert all(item.path.split("[")[0].split(".")[1:2] in ([field], []) for item in findings), findings
    assert all(item.reason in reasons.REASONS for item in findings)


@pytest.mark.invariant("INV-100")
def test_a_policy_profile_needs_a_depth():
    """The one hard limit that is mandatory."""
    for spec in ({}, {"limits": {}}, {"limits": {"maxTotalDescendants": 5}}):
        assert reasons.MISSING_FIELD in {item.reason for item in validate("PolicyProfile", spec)}
    assert validate("PolicyProfile", {"limits": {"maxSpawnDepth": 0}}) == ()


@pytest.mark.invariant("INV-012")
@pytest.mark.parametrize(
    "entry",
    [
        {"endpoint": "http://x", "content": {}},
        {"endpoint": "http://x", "items": [1]},
        {"interval": "5s"},
        "http://x",
        [],
        {"endpoint": {"a": 1}},
    ],
)
def test_a_polling_entry_is_a_pointer(entry):
    """Endpoint, interval, description: anything else is content, in the Manifest and after merging."""
    findings = validate("Manifest", {"polling": {"inbox": entry}})
    assert findings
    assert all(item.path.startswith("spec.polling.inbox") for item in findings)


@pytest.mark.parametrize("text", ["1ms", "5s", "1m", "1h", "1h30m", "90m", "2h45m30s500ms"])
def test_durations_read_like_kubernetes_own(text):
    """In a polling interval."""
    assert validate("Manifest", {"polling": {"a": {"endpoint": "x", "interval": text}}}) == ()


def test_messages_speak_of_the_field_and_never_quote_it():
    """Of every refusal in this file."""
    for kind, field, value in INVALID:
        for item in validate(kind, {**SPECS_OF[kind], field: value}):
            assert not re.search(r"pydantic|Input|instance of|dictionary", item.message), item
            if isinstance(value, str) and len(value) > 4 and value != "indexer":
                assert value not in item.message


@pytest.mark.parametrize("component", ["a", "Indexer-1", "a.b:c_d-9", "k" * 253, "a*", "indexer_*", "team:*", "*"])
def test_components_are_keys_or_beginnings_of_keys(component):
    """D-65: what POST /v1/bootstrap takes as a component_key can be permitted."""
    assert validate("PrincipalBinding", {**BINDING, "components": [component]}) == ()
