"""JSON Schemas of what goes in and comes out, by name."""

from typing import Any, Final

from legivellum.gate.interview import INTERVIEW_SCHEMAS
from metagate_crds.kinds import KINDS
from metagate_crds.rules.patterns import COMPONENT_KEY

Schema = dict[str, Any]

MAX_KEY_LENGTH: Final = 512
"""Characters of a `{key}` in a path: a secret ref's is made of two names."""
UUID: Final[Schema] = {"type": "string", "format": "uuid"}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
TEXT: Final[Schema] = {"type": "string"}
OBJECT: Final[Schema] = {"type": "object", "additionalProperties": True}
INTEGER: Final[Schema] = {"type": "integer"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
DIGEST: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
VIEWS: Final = (
    "principals",
    "profiles",
    "manifests",
    "bindings",
    "secret-refs",
    "policy-profiles",
    "problematas",
    "plan-templates",
)
HEALTH: Final = ("ok", "degraded")
MOST_ANNOUNCED: Final = 128
"""Capabilities of one announcement: as many as a Problemata may have."""
GATEWAY_URL: Final = r"^https?://[^\s\x00-\x1f\x7f/?#@\\]+(/[^\s\x00-\x1f\x7f?#\\]*)?$"

HISTORY_OBJECT: Final = (
    f"^({'|'.join(kind.noun for kind in KINDS.values() if kind.namespaced)})/[a-z0-9][-.a-z0-9]{{0,252}}$"
)
"""An object of a tenant, by the noun of its kind and its name."""

# The key a component boots under (INV-005, D-65). It becomes a file name and a label, so it holds nothing else.
COMPONENT_PATTERN: Final = f"^{COMPONENT_KEY}$"
COMPONENT: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 253, "pattern": COMPONENT_PATTERN}


def nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def array_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def closed_object(properties: dict[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    """An object with these members and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def open_object(properties: dict[str, Schema], *required: str) -> Schema:
    """An object with these members among others."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": True}


def reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


WELCOME_PACKET: Final = closed_object(
    {
        "packet_id": UUID,
        "packet_etag": DIGEST,
        "issued_at": TIME,
        "principal_key": TEXT,
        "component_key": TEXT,
        "profile": TEXT,
        "manifest": TEXT,
        "capabilities": OBJECT,
        "policy": OBJECT,
        "services": OBJECT,
        "memory_map": OBJECT,
        "polling": OBJECT,
        "schemas": OBJECT,
        "required_env": array_of(
            closed_object(
                {"name": TEXT, "ref_kind": {"type": "string"}, "ref_name": TEXT, "required": BOOLEAN},
            )
        ),
        "startup": closed_object(
            {
                "startup_id": UUID,
                "status": {"const": "OPEN"},
                "deadline_at": TIME,
                "followup": {"const": ["POST /v1/startup/ready", "POST /v1/startup/failed"]},
            }
        ),
        "environment": OBJECT,
        "snapshot": closed_object({"revision": INTEGER, "digest": DIGEST, "compiled_at": TIME}),
    }
)
"""The fifteen keys of INV-013, with `environment` and `snapshot`."""

_STARTUP = closed_object(
    {
        "startup_id": UUID,
        "tenant": UUID,
        "principal_key": TEXT,
        "component_key": TEXT,
        "status": {"type": "string", "enum": ["OPEN", "READY", "FAILED", "overdue"]},
        "overdue": BOOLEAN,
        "late": BOOLEAN,
        "opened_at": TIME,
        "deadline_at": TIME,
        "acknowledged_at": nullable(TIME),
        "packet_id": UUID,
        "digest": DIGEST,
        "revision": INTEGER,
        "report": nullable(OBJECT),
        "pod": nullable(closed_object({"uid": TEXT, "name": nullable(TEXT), "node": nullable(TEXT)})),
    }
)

_ITEM = open_object(
    {"key": TEXT, "tenant": UUID, "namespace": TEXT, "revision": INTEGER}, "key", "tenant", "namespace", "revision"
)

_PRINCIPAL = closed_object(
    {
        "principal_key": TEXT,
        "type": TEXT,
        "suspended": BOOLEAN,
        "components": closed_object({"permitted": array_of(TEXT), "seen": array_of(TEXT)}),
        "profile": nullable(TEXT),
        "manifest": nullable(TEXT),
        "services": array_of(TEXT),
    }
)


def _page(item: str) -> Schema:
    return closed_object({"items": array_of(reference(item)), "next_cursor": nullable(TEXT)})


_OBJECT: Final[dict[str, Schema]] = {"kind": TEXT, "namespace": TEXT, "name": TEXT}
_TROUBLE: Final = closed_object({**_OBJECT, "state": TEXT, "message": TEXT})

SCHEMAS: Final[dict[str, Schema]] = {
    **INTERVIEW_SCHEMAS,
    "Anything": OBJECT,
    "Text": TEXT,
    "Root": open_object({"service": TEXT, "version": TEXT, "doctrine": TEXT}, "service", "version", "doctrine"),
    "Health": open_object({"status": TEXT, "service": TEXT, "version": TEXT}, "status"),
    "Live": open_object({"status": TEXT}, "status"),
    "Ready": open_object(
        {"status": TEXT, "database": {"enum": ["up", "down"]}, "revision": INTEGER}, "status", "database"
    ),
    "Discovery": open_object(
        {
            "metagate_version": TEXT,
            "bootstrap_endpoint": TEXT,
            "supported_auth": array_of(TEXT),
            "startup_endpoints": closed_object({"ready": TEXT, "failed": TEXT}),
            "issuers": array_of(TEXT),
            "api_key_header": TEXT,
            "audience": TEXT,
            "openapi": TEXT,
        },
        "metagate_version",
        "bootstrap_endpoint",
        "supported_auth",
        "startup_endpoints",
        "issuers",
    ),
    "WelcomePacket": WELCOME_PACKET,
    "BootstrapRequest": open_object(
        {
            "component_key": COMPONENT,
            "principal_key": nullable({"type": "string", "minLength": 1, "maxLength": 512}),
            "last_packet_etag": nullable({"type": "string", "minLength": 1, "maxLength": 512}),
        },
        "component_key",
    ),
    "ReadyRequest": open_object(
        {
            "startup_id": UUID,
            "build_version": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": r"\S"},
            "health": {"anyOf": [{"type": "string"}, OBJECT, {"type": "null"}]},
        },
        "startup_id",
        "build_version",
    ),
    "FailedRequest": open_object(
        {
            "startup_id": UUID,
            "error": {"type": "string", "minLength": 1, "maxLength": 8_192, "pattern": r"\S"},
            "details": nullable(OBJECT),
        },
        "startup_id",
        "error",
    ),
    "Acknowledgement": closed_object(
        {
            "startup_id": UUID,
            "status": {"type": "string", "enum": ["READY", "FAILED"]},
            "acknowledged_at": TIME,
            "late": BOOLEAN,
        }
    ),
    "Startup": _STARTUP,
    "StartupPage": _page("Startup"),
    "Summary": closed_object(
        {
            "tenant": UUID,
            "principal_key": nullable(TEXT),
            "startups": closed_object({"open": INTEGER, "ready": INTEGER, "failed": INTEGER}),
            "oldest_open_at": nullable(TIME),
            "overdue": INTEGER,
            "latest_opened_at": nullable(TIME),
            "counted_since": nullable(TIME),
        }
    ),
    "Item": _ITEM,
    "ItemPage": _page("Item"),
    "PolicyProfile": closed_object(
        {"key": TEXT, "policy_hash": TEXT, "revision": INTEGER, "generation": INTEGER, "ruleset": OBJECT}
    ),
    "Announcement": closed_object(
        {
            "endpoint": {"type": "string", "minLength": 1, "maxLength": 512, "pattern": GATEWAY_URL},
            "version": {"type": "string", "minLength": 1, "maxLength": 63},
            "capabilities": {
                "type": "array",
                "maxItems": MOST_ANNOUNCED,
                "items": {"type": "string", "minLength": 1, "maxLength": 128},
            },
            "health": {"type": "string", "enum": list(HEALTH)},
        }
    ),
    "Problemata": closed_object(
        {
            "id": TEXT,
            "version": TEXT,
            "payload_kind": TEXT,
            "capabilities": array_of(TEXT),
            "policy_profile": TEXT,
            "surface": TEXT,
            "available": BOOLEAN,
            "instances": array_of(
                closed_object(
                    {
                        "instance": TEXT,
                        "endpoint": TEXT,
                        "version": TEXT,
                        "health": {"type": "string", "enum": list(HEALTH)},
                        "announced_at": TIME,
                    }
                )
            ),
        }
    ),
    "ProblemataPage": _page("Problemata"),
    "Topology": closed_object(
        {
            "tenant": UUID,
            "namespace": nullable(TEXT),
            "revision": INTEGER,
            "principals": array_of(_PRINCIPAL),
            "services": array_of(
                closed_object(
                    {"name": TEXT, "type": nullable(TEXT), "endpoint": nullable(TEXT), "used_by": array_of(TEXT)}
                )
            ),
            "next_cursor": nullable(TEXT),
        }
    ),
    "IntrospectionRequest": open_object({"token": {"type": "string", "minLength": 1, "maxLength": 16_384}}, "token"),
    "Introspection": open_object(
        {
            "active": BOOLEAN,
            "tenant": UUID,
            "principal_key": TEXT,
            "aud": nullable(TEXT),
            "exp": nullable(INTEGER),
        },
        "active",
    ),
    "Resource": open_object(
        {
            "apiVersion": TEXT,
            "kind": TEXT,
            "metadata": open_object({"name": TEXT, "namespace": TEXT}, "name"),
            "spec": OBJECT,
        },
        "apiVersion",
        "kind",
        "metadata",
        "spec",
    ),
    "Explanation": closed_object(
        {
            "tenant": UUID,
            "principal_key": TEXT,
            "component_key": nullable(TEXT),
            "startup_id": nullable(UUID),
            "opened_at": nullable(TIME),
            "revision": INTEGER,
            "compiled_at": TIME,
            "digest": DIGEST,
            "objects": array_of(
                closed_object(
                    {
                        "layer": {"type": "string", "enum": ["profile", "manifest", "binding"]},
                        **_OBJECT,
                        "uid": UUID,
                        "generation": INTEGER,
                        "manager": nullable(TEXT),
                        "revision": INTEGER,
                        "changed_at": TIME,
                    }
                )
            ),
            "leaves": array_of(
                closed_object(
                    {
                        "path": TEXT,
                        "value": {},
                        "layer": {"type": "string", "enum": ["profile", "manifest", "override", "binding"]},
                        "origin": TEXT,
                        "default": BOOLEAN,
                    }
                )
            ),
        }
    ),
    "Happening": closed_object(
        {
            "revision": INTEGER,
            "changed_at": TIME,
            **_OBJECT,
            "tenant": nullable(UUID),
            "uid": UUID,
            "generation": INTEGER,
            "served_generation": nullable(INTEGER),
            "manager": nullable(TEXT),
            "before_digest": nullable(TEXT),
            "after_digest": nullable(TEXT),
            "principal_key": nullable(TEXT),
            "packet_digest": nullable(TEXT),
            "how": {"type": "string", "enum": ["added", "changed", "removed"]},
        }
    ),
    "HappeningPage": _page("Happening"),
    "DeclaredPage": closed_object(
        {
            "revision": INTEGER,
            "newest": INTEGER,
            "items": array_of(
                closed_object(
                    {
                        **_OBJECT,
                        "uid": UUID,
                        "generation": INTEGER,
                        "created_at": TIME,
                        "manager": nullable(TEXT),
                        "spec": {},
                        "revision": INTEGER,
                        "changed_at": TIME,
                    }
                )
            ),
            "next_cursor": nullable(TEXT),
        }
    ),
    "PlanRequest": open_object({"resources": array_of(reference("Resource")), "prune": BOOLEAN}, "resources"),
    "Plan": closed_object(
        {
            "changes": BOOLEAN,
            "objects": closed_object(
                {how: array_of(closed_object(_OBJECT)) for how in ("added", "changed", "removed")}
            ),
            "effects": array_of(
                closed_object(
                    {
                        "count": INTEGER,
                        "packet": {"type": "string", "enum": ["unchanged", "added", "removed", "changed"]},
                        "principals": array_of(
                            closed_object({"namespace": TEXT, "name": TEXT, "digest": nullable(DIGEST)})
                        ),
                        "differences": array_of(
                            closed_object({"path": TEXT, "before": {}, "after": {}}, optional=("before", "after"))
                        ),
                        "access": array_of(
                            closed_object({"what": TEXT, "before": {}, "after": {}}, optional=("before", "after"))
                        ),
                    }
                )
            ),
            "troubles": array_of(_TROUBLE),
            "cured": array_of(_TROUBLE),
            "others": array_of(closed_object(_OBJECT)),
        }
    ),
    "Declared": closed_object({"kind": TEXT, "namespace": TEXT, "name": TEXT, "created": BOOLEAN}),
}
