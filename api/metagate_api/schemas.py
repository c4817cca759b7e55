"""JSON Schemas of what goes in and comes out, by name."""

from typing import Any, Final

Schema = dict[str, Any]

LONGEST_KEY: Final = 512
"""Characters of a `{key}` in a path: a secret ref's is made of two names."""
UUID: Final[Schema] = {"type": "string", "format": "uuid"}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
TEXT: Final[Schema] = {"type": "string"}
OBJECT: Final[Schema] = {"type": "object", "additionalProperties": True}
INTEGER: Final[Schema] = {"type": "integer"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
DIGEST: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
VIEWS: Final = ("principals", "profiles", "manifests", "bindings", "secret-refs", "policy-profiles")

# The key a component boots under (INV-005, D-65). It becomes a file name and a label, so it holds nothing else.
COMPONENT_PATTERN: Final = r"^[A-Za-z0-9]([A-Za-z0-9._:-]{0,251}[A-Za-z0-9])?$"
COMPONENT: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 253, "pattern": COMPONENT_PATTERN}


def maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def listed(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def exactly(properties: dict[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    """An object with these members and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def open_(properties: dict[str, Schema], *required: str) -> Schema:
    """An object with these members among others."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": True}


def named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


WELCOME_PACKET: Final = exactly(
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
        "required_env": listed(
            exactly(
                {"name": TEXT, "ref_kind": {"type": "string"}, "ref_name": TEXT, "required": BOOLEAN},
            )
        ),
        "startup": exactly(
            {
                "startup_id": UUID,
                "status": {"const": "OPEN"},
                "deadline_at": TIME,
                "followup": {"const": ["POST /v1/startup/ready", "POST /v1/startup/failed"]},
            }
        ),
        "environment": OBJECT,
        "snapshot": exactly({"revision": INTEGER, "digest": DIGEST, "compiled_at": TIME}),
    }
)
"""The fifteen keys of INV-013, with `environment` and `snapshot`."""

_STARTUP = exactly(
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
        "acknowledged_at": maybe(TIME),
        "packet_id": UUID,
        "digest": DIGEST,
        "revision": INTEGER,
        "report": maybe(OBJECT),
        "pod": maybe(exactly({"uid": TEXT, "name": maybe(TEXT), "node": maybe(TEXT)})),
    }
)

_ITEM = open_(
    {"key": TEXT, "tenant": UUID, "namespace": TEXT, "revision": INTEGER}, "key", "tenant", "namespace", "revision"
)

_PRINCIPAL = exactly(
    {
        "principal_key": TEXT,
        "type": TEXT,
        "suspended": BOOLEAN,
        "components": exactly({"permitted": listed(TEXT), "seen": listed(TEXT)}),
        "profile": maybe(TEXT),
        "manifest": maybe(TEXT),
        "services": listed(TEXT),
    }
)


def _page(item: str) -> Schema:
    return exactly({"items": listed(named(item)), "next_cursor": maybe(TEXT)})


_OBJECT: Final[dict[str, Schema]] = {"kind": TEXT, "namespace": TEXT, "name": TEXT}
_TROUBLE: Final = exactly({**_OBJECT, "state": TEXT, "message": TEXT})

SCHEMAS: Final[dict[str, Schema]] = {
    "Anything": OBJECT,
    "Text": TEXT,
    "Root": open_({"service": TEXT, "version": TEXT, "doctrine": TEXT}, "service", "version", "doctrine"),
    "Health": open_({"status": TEXT, "service": TEXT, "version": TEXT}, "status"),
    "Live": open_({"status": TEXT}, "status"),
    "Ready": open_({"status": TEXT, "database": {"enum": ["up", "down"]}, "revision": INTEGER}, "status", "database"),
    "Discovery": open_(
        {
            "metagate_version": TEXT,
            "bootstrap_endpoint": TEXT,
            "supported_auth": listed(TEXT),
            "startup_endpoints": exactly({"ready": TEXT, "failed": TEXT}),
            "issuers": listed(TEXT),
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
    "BootstrapRequest": open_(
        {
            "component_key": COMPONENT,
            "principal_key": maybe({"type": "string", "minLength": 1, "maxLength": 512}),
            "last_packet_etag": maybe({"type": "string", "minLength": 1, "maxLength": 512}),
        },
        "component_key",
    ),
    "ReadyRequest": open_(
        {
            "startup_id": UUID,
            "build_version": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": r"\S"},
            "health": {"anyOf": [{"type": "string"}, OBJECT, {"type": "null"}]},
        },
        "startup_id",
        "build_version",
    ),
    "FailedRequest": open_(
        {
            "startup_id": UUID,
            "error": {"type": "string", "minLength": 1, "maxLength": 8_192, "pattern": r"\S"},
            "details": maybe(OBJECT),
        },
        "startup_id",
        "error",
    ),
    "Acknowledgement": exactly(
        {
            "startup_id": UUID,
            "status": {"type": "string", "enum": ["READY", "FAILED"]},
            "acknowledged_at": TIME,
            "late": BOOLEAN,
        }
    ),
    "Startup": _STARTUP,
    "StartupPage": _page("Startup"),
    "Summary": exactly(
        {
            "tenant": UUID,
            "principal_key": maybe(TEXT),
            "startups": exactly({"open": INTEGER, "ready": INTEGER, "failed": INTEGER}),
            "oldest_open_at": maybe(TIME),
            "overdue": INTEGER,
            "latest_opened_at": maybe(TIME),
            "counted_since": maybe(TIME),
        }
    ),
    "Item": _ITEM,
    "ItemPage": _page("Item"),
    "PolicyProfile": exactly(
        {"key": TEXT, "policy_hash": TEXT, "revision": INTEGER, "generation": INTEGER, "ruleset": OBJECT}
    ),
    "Topology": exactly(
        {
            "tenant": UUID,
            "namespace": maybe(TEXT),
            "revision": INTEGER,
            "principals": listed(_PRINCIPAL),
            "services": listed(
                exactly({"name": TEXT, "type": maybe(TEXT), "endpoint": maybe(TEXT), "used_by": listed(TEXT)})
            ),
            "next_cursor": maybe(TEXT),
        }
    ),
    "IntrospectionRequest": open_({"token": {"type": "string", "minLength": 1, "maxLength": 16_384}}, "token"),
    "Introspection": open_(
        {
            "active": BOOLEAN,
            "tenant": UUID,
            "principal_key": TEXT,
            "aud": maybe(TEXT),
            "exp": maybe(INTEGER),
        },
        "active",
    ),
    "Resource": open_(
        {
            "apiVersion": TEXT,
            "kind": TEXT,
            "metadata": open_({"name": TEXT, "namespace": TEXT}, "name"),
            "spec": OBJECT,
        },
        "apiVersion",
        "kind",
        "metadata",
        "spec",
    ),
    "Explanation": exactly(
        {
            "tenant": UUID,
            "principal_key": TEXT,
            "component_key": maybe(TEXT),
            "startup_id": maybe(UUID),
            "opened_at": maybe(TIME),
            "revision": INTEGER,
            "compiled_at": TIME,
            "digest": DIGEST,
            "objects": listed(
                exactly(
                    {
                        "layer": {"type": "string", "enum": ["profile", "manifest", "binding"]},
                        **_OBJECT,
                        "uid": UUID,
                        "generation": INTEGER,
                        "manager": maybe(TEXT),
                        "revision": INTEGER,
                        "changed_at": TIME,
                    }
                )
            ),
            "leaves": listed(
                exactly(
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
    "Happening": exactly(
        {
            "revision": INTEGER,
            "changed_at": TIME,
            **_OBJECT,
            "tenant": maybe(UUID),
            "uid": UUID,
            "generation": INTEGER,
            "served_generation": maybe(INTEGER),
            "manager": maybe(TEXT),
            "before_digest": maybe(TEXT),
            "after_digest": maybe(TEXT),
            "principal_key": maybe(TEXT),
            "packet_digest": maybe(TEXT),
            "how": {"type": "string", "enum": ["added", "changed", "removed"]},
        }
    ),
    "HappeningPage": _page("Happening"),
    "DeclaredPage": exactly(
        {
            "revision": INTEGER,
            "newest": INTEGER,
            "items": listed(
                exactly(
                    {
                        **_OBJECT,
                        "uid": UUID,
                        "generation": INTEGER,
                        "created_at": TIME,
                        "manager": maybe(TEXT),
                        "spec": {},
                        "revision": INTEGER,
                        "changed_at": TIME,
                    }
                )
            ),
            "next_cursor": maybe(TEXT),
        }
    ),
    "PlanRequest": open_({"resources": listed(named("Resource")), "prune": BOOLEAN}, "resources"),
    "Plan": exactly(
        {
            "changes": BOOLEAN,
            "objects": exactly({how: listed(exactly(_OBJECT)) for how in ("added", "changed", "removed")}),
            "effects": listed(
                exactly(
                    {
                        "count": INTEGER,
                        "packet": {"type": "string", "enum": ["unchanged", "added", "removed", "changed"]},
                        "principals": listed(exactly({"namespace": TEXT, "name": TEXT, "digest": maybe(DIGEST)})),
                        "differences": listed(
                            exactly({"path": TEXT, "before": {}, "after": {}}, optional=("before", "after"))
                        ),
                        "access": listed(
                            exactly({"what": TEXT, "before": {}, "after": {}}, optional=("before", "after"))
                        ),
                    }
                )
            ),
            "troubles": listed(_TROUBLE),
            "cured": listed(_TROUBLE),
            "others": listed(exactly(_OBJECT)),
        }
    ),
    "Declared": exactly({"kind": TEXT, "namespace": TEXT, "name": TEXT, "created": BOOLEAN}),
}
