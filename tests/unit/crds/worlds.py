"""Small declared worlds for the tests of the language."""

from datetime import UTC, datetime, timedelta
from typing import Any

from metagate_crds.compile.compiler import compile_world
from metagate_crds.compile.snapshot import CompiledWorld, SnapshotRow
from metagate_crds.compile.world import World
from metagate_crds.objects import CompileSettings, DeclaredObject, Namespace, ObjectKey
from metagate_crds.verdict import Verdict

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = CompileSettings(cluster_issuer="https://cluster.example.com", jwt_issuer="metagate")

PRINCIPAL: dict[str, Any] = {"type": "component", "subjects": [{"serviceAccount": {"name": "indexer"}}]}
PROFILE: dict[str, Any] = {
    "capabilities": {"read": True},
    "policy": {"retries": 3},
    "startup": {"slaSeconds": 60},
    "secretRefs": [{"name": "db", "ref": "DB_PASSWORD"}],
}
MANIFEST: dict[str, Any] = {
    "environment": {"region": "eu-1"},
    "services": {
        "memory": {"type": "memorygate", "endpoint": "http://memory:8001", "auth": {"scheme": "bearer"}},
        "mail": {"type": "mail", "endpoint": "http://mail:8025"},
    },
    "memoryMap": {"short": "ram"},
    "polling": {"inbox": {"endpoint": "http://memory:8001/inbox", "interval": "5s"}},
    "schemas": {"receipt": {"ref": "urn:legivellum:receipt:1.1"}},
}
BINDING: dict[str, Any] = {
    "principalRef": {"name": "indexer"},
    "profileRef": {"name": "worker"},
    "manifestRef": {"name": "prod"},
    "components": ["indexer_*"],
}
CLUSTER_ISSUER: dict[str, Any] = {"audiences": ["metagate"], "jwks": {"source": "Cluster"}}
POLICY: dict[str, Any] = {"limits": {"maxSpawnDepth": 5}}
GATEWAY_POLICY: dict[str, Any] = {
    "limits": {"maxSpawnDepth": 5, "maxTotalDescendants": 100},
    "surfaces": [
        {
            "surfaceId": "mail",
            "kind": "McpGateway",
            "principals": ["*"],
            "capabilities": {"allow": ["doc.review", "mail.*"], "deny": ["mail.delete"]},
            "targets": [
                {"name": "delegate", "url": "http://delegate:8004/plans"},
                {"name": "mailserver", "kind": "Mcp", "url": "http://mail-mcp:8000/mcp"},
            ],
        },
        {"surfaceId": "inside", "targets": [{"name": "delegate", "url": "http://delegate:8004/plans"}]},
        {"surfaceId": "nowhere", "kind": "McpGateway"},
    ],
}
PROBLEMATA: dict[str, Any] = {
    "version": "3",
    "gateway": {"policyProfileRef": {"name": "front-desk"}, "surfaceId": "mail", "principals": ["mail-gateway"]},
    "payloadKind": "plan_request",
    "exposeTools": True,
    "capabilities": [
        {"id": "doc.review", "inputSchema": {"type": "object"}, "estimatedDurationMs": 400},
        {
            "id": "mail.send",
            "tool": {
                "target": "mailserver",
                "idempotent": False,
                "definition": {"name": "send_email", "description": "Sends.", "inputSchema": {"type": "object"}},
            },
        },
    ],
    "topology": [{"from": "gateway", "to": "delegate", "purpose": "plan"}],
}

PLAN_TEMPLATE: dict[str, Any] = {
    "capability": "review",
    "parameters": {
        "type": "object",
        "properties": {"documents": {"type": "array", "items": {"type": "string"}}},
        "required": ["documents"],
        "additionalProperties": False,
    },
    "escalation": [{"on": ["failure"], "to": "indexer"}],
    "result": "merge",
    "steps": [
        {
            "id": "read",
            "forEach": "documents",
            "capability": "document.summarise",
            "job": {
                "instruction": "Summarise in five sentences.",
                "inputs": [{"name": "document", "pointer": "${item}"}],
                "output": {"mime": "text/markdown"},
            },
            "authority": {
                "cognition": {"calls": 2, "tokens": 8000, "seconds": 120},
                "writeBeyondReceipts": True,
                "sinks": ["depotgate/output"],
            },
        },
        {"id": "merge", "capability": "document.merge", "job": {"inputs": [{"name": "parts", "step": "read"}]}},
    ],
}


def external_issuer(issuer: str = "https://idp.example.com", **more: Any) -> dict[str, Any]:
    """A TokenIssuer of somebody else."""
    jwks = {"source": "URL", "url": "https://idp.example.com/jwks"}
    return {"issuer": issuer, "audiences": ["metagate"], "algorithms": ["RS256"], "jwks": jwks, **more}


def api_key(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"{number:010d}", "sha256": f"{number:064x}", **more}


def declared(
    kind: str, name: str, spec: Any, *, namespace: str = "team", generation: int = 1, age: float = 0, uid: str = ""
) -> DeclaredObject:
    """`age` is in seconds after the start of this world: larger is younger."""
    namespace = "" if kind == "TokenIssuer" else namespace
    key = ObjectKey(kind, namespace, name)
    created = START + timedelta(seconds=age)
    return DeclaredObject(key, uid or f"uid-{kind}-{namespace}-{name}", generation, created, spec)


def bootable_objects(*, namespace: str = "team") -> list[DeclaredObject]:
    """One of everything that a component needs to boot."""
    return [
        declared("TokenIssuer", "cluster", CLUSTER_ISSUER),
        declared("Principal", "indexer", PRINCIPAL, namespace=namespace),
        declared("Profile", "worker", PROFILE, namespace=namespace),
        declared("Manifest", "prod", MANIFEST, namespace=namespace),
        declared("PrincipalBinding", "indexer", BINDING, namespace=namespace),
    ]


def gateway_objects(*, namespace: str = "team", **changes: Any) -> list[DeclaredObject]:
    """A Problemata and what it refers to; `changes` are members of its spec."""
    return [
        declared("PolicyProfile", "front-desk", GATEWAY_POLICY, namespace=namespace),
        declared("Principal", "mail-gateway", {"type": "service"}, namespace=namespace),
        declared("Problemata", "mail", {**PROBLEMATA, **changes}, namespace=namespace),
    ]


def world(*objects: DeclaredObject, settings: CompileSettings = SETTINGS, namespaces: tuple[str, ...] = ()) -> World:
    """A world in which every namespace that is mentioned exists."""
    names = {"team", "other", "metagate-system", *namespaces} | {
        item.key.namespace for item in objects if item.key.namespace
    }
    return World(settings, [Namespace(name, f"tenant-{name}", START) for name in sorted(names)], objects)


def compiled(
    *objects: DeclaredObject, last_good: dict[str, DeclaredObject] | None = None, **more: Any
) -> CompiledWorld:
    return compile_world(world(*objects, **more), last_good or {})


def last_good_of(*objects: DeclaredObject) -> dict[str, DeclaredObject]:
    return {item.uid: item for item in objects}


def rows(result: CompiledWorld, table: str) -> list[dict[str, Any]]:
    matching: list[SnapshotRow] = [
        row for object_rows in result.rows.values() for row in object_rows if row.table == table
    ]
    return [dict(row.values) for row in sorted(matching, key=lambda row: row.key)]


def verdict_of(result: CompiledWorld, kind: str, name: str, namespace: str = "team") -> Verdict:
    return result.verdicts[ObjectKey(kind, "" if kind == "TokenIssuer" else namespace, name)]


def conditions_of(verdict: Verdict) -> dict[str, tuple[str, str]]:
    """Condition -> (status, reason)."""
    return {item.type: (item.status, item.reason) for item in verdict.conditions}


def all_messages(result: CompiledWorld) -> str:
    return "\n".join(item.message for verdict in result.verdicts.values() for item in verdict.conditions)
