"""Every endpoint of InterroGate, once: requests are routed and OpenAPI is written from this table."""

from __future__ import annotations

from typing import Final, get_args

from interrogate.decision import AdmissionOutcome, ReasonCode
from interrogate.problem_codes import Code
from interrogate.tool_call import CALL_OUTCOMES, EscalateReason
from legivellum.gate.query import CURSOR_QUERY, LIMIT_QUERY, TENANT_QUERY, page_schema
from legivellum.http.endpoints import (
    ANY_PRINCIPAL,
    ANYBODY,
    JSON_CODES,
    Endpoint,
    Reply,
    Schema,
    in_header,
    in_path,
    in_query,
)
from legivellum.http.openapi import object_schema

_IDEMPOTENCY_KEY: Final = in_header(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 200},
    "Repeat it with the same envelope within 24 hours and hear the same decision.",
)
_LEASE: Final = in_header(
    "Legivellum-Lease",
    {"type": "string", "minLength": 1, "maxLength": 200},
    "The lease under which the caller acts; then the authority of the lease applies.",
)
_UNDECIDED: Final = (*JSON_CODES, Code.NO_DOMAIN, Code.NOT_FOUND)

ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/v1/evaluate",
        "Decide a request, store the decision, forward what was admitted.",
        ANY_PRINCIPAL,
        (
            Reply(200, "Admitted; every target that was called answered 2xx.", "Decision", ("Idempotency-Replayed",)),
            Reply(403, "Denied.", "Decision", ("Idempotency-Replayed",)),
            Reply(429, "Denied: too often.", "Decision", ("Idempotency-Replayed", "Retry-After")),
            Reply(502, "Admitted; a target was not reached or did not answer 2xx.", "Decision"),
        ),
        (*_UNDECIDED, Code.IDEMPOTENCY_CONFLICT),
        (_IDEMPOTENCY_KEY, _LEASE),
        body="Envelope",
        keeps_deadline=True,
        name="evaluate",
    ),
    Endpoint(
        "POST",
        "/v1/check",
        "What would be decided now; nothing is stored, spent or forwarded.",
        ANY_PRINCIPAL,
        (Reply(200, "What would be decided.", "Check"),),
        _UNDECIDED,
        (_LEASE,),
        body="Envelope",
        name="check",
    ),
    Endpoint(
        "POST",
        "/v1/explain",
        "Every rule for an envelope, or for a decision in the ledger decided again.",
        ANY_PRINCIPAL,
        (Reply(200, "The rules in their order.", "Explanation"),),
        _UNDECIDED,
        (_LEASE,),
        body="Question",
        name="explain",
    ),
    Endpoint(
        "GET",
        "/v1/calls",
        "The calls of tools, newest first: one's own, or all for admins and observers.",
        ANY_PRINCIPAL,
        (Reply(200, "A page of them.", "CallPage"),),
        (Code.INVALID_REQUEST, Code.INVALID_CURSOR, Code.TENANT_MISMATCH, Code.ROLE_REQUIRED),
        (
            in_query("principal", {"type": "string", "minLength": 1}, "Of this principal."),
            in_query("problemata", {"type": "string", "minLength": 1}, "Through this Problemata."),
            in_query("tool", {"type": "string", "minLength": 1}, "Of the tool that its MCP server names so."),
            in_query("outcome", {"type": "string", "enum": [*CALL_OUTCOMES]}, "That ended so."),
            in_query("since", {"type": "string", "format": "date-time"}, "Decided then or later."),
            TENANT_QUERY,
            LIMIT_QUERY,
            CURSOR_QUERY,
        ),
        name="listCalls",
    ),
    Endpoint(
        "GET",
        "/v1/problematas/{problemata_id}/tools",
        "What the MCP servers behind a Problemata list now, compared with what it declares.",
        "admin",
        (Reply(200, "Its MCP servers, each with its tools or with why it could not be listed.", "ToolListing"),),
        (Code.NOT_FOUND,),
        (in_path("problemata_id", {"type": "string", "minLength": 1, "maxLength": 253}),),
        deadline_seconds=15.0,
        name="listTools",
    ),
    Endpoint(
        "GET",
        "/.well-known/jwks.json",
        "The key that verifies this gate's tokens; an empty set where it has none.",
        ANYBODY,
        (Reply(200, "A JSON Web Key Set.", "Object"),),
        name="readKeys",
    ),
    Endpoint(
        "GET",
        "/.well-known/oauth-protected-resource/mcp",
        "What OAuth clients need to know of `/mcp` (RFC 9728).",
        ANYBODY,
        (Reply(200, "The metadata of a protected resource.", "Object"),),
        name="readResourceMetadata",
    ),
)

_ID: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 200}
_DOMAIN: Final[Schema] = {"type": "string", "pattern": r"\S"}
_OPTIONAL_ID: Final[Schema] = {"type": ["string", "null"], "minLength": 1, "maxLength": 200}
_COUNT: Final[Schema] = {"type": ["integer", "null"]}
_TEXT: Final[Schema] = {"type": ["string", "null"]}
_OUTCOME: Final[Schema] = {"type": "string", "enum": [outcome.value for outcome in AdmissionOutcome]}
_REASON: Final[Schema] = {"type": ["string", "null"], "enum": [*(reason.value for reason in ReasonCode), None]}
_RECEIPT_ID: Final[Schema] = {"type": "string", "pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{25}$"}


_CAUSALITY: Final = object_schema(
    {
        "root_task_id": _ID,
        "parent_task_id": _OPTIONAL_ID,
        "caused_by_receipt_id": {"type": ["string", "null"]},
        "spawn_depth": _COUNT,
        "capability_id": _ID,
        "recursion_budget_remaining": {"type": "integer"},
        "task_id": _ID,
    },
    required=(),
    closed=True,
)
_ENVELOPE: Final = object_schema(
    {
        "tenant_id": _DOMAIN,
        "surface_id": _DOMAIN,
        "policy_profile_id": _DOMAIN,
        "payload_kind": {"type": "string"},
        "payload": {},
        "causality": _CAUSALITY,
        "target": {"type": "string"},
        "artifact_bytes": {"type": "integer", "minimum": 0},
    },
    required=("tenant_id", "surface_id", "policy_profile_id"),
    closed=True,
)
_POLICY: Final = {
    "type": ["object", "null"],
    "required": ["profile", "hash", "revision"],
    "properties": {"profile": {"type": "string"}, "hash": {"type": "string"}, "revision": {"type": "integer"}},
}
_FORWARD: Final = object_schema(
    {
        "target": {"type": "string"},
        "state": {"type": "string", "enum": ["pending", "delivered", "failed"]},
        "status": _COUNT,
        "reason": {"type": ["string", "null"], "enum": ["UNREACHABLE", "TIMEOUT", "REFUSED", None]},
        "answer": {},
    }
)
_RULE: Final = object_schema(
    {
        "rule": {"type": "integer"},
        "reason_code": _REASON,
        "passed": {"type": ["boolean", "null"]},
        "limit": {},
        "observed": {},
    }
)


def _many(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_DEFINITION: Final[Schema] = {"type": ["object", "null"]}
_LISTED_TOOL: Final = object_schema(
    {
        "name": {"type": "string"},
        "state": {"type": "string", "enum": ["unchanged", "changed", "removed", "undeclared"]},
        "capability_id": _TEXT,
        "exposed_name": _TEXT,
        "idempotent": {"type": ["boolean", "null"]},
        "estimated_duration_ms": _COUNT,
        "digest": _TEXT,
        "declared_digest": _TEXT,
        "changed_members": _many({"type": "string"}),
        "unseen": _many({"type": "string"}),
        "definition": _DEFINITION,
        "declared_definition": _DEFINITION,
    }
)
_LISTED_TARGET: Final = object_schema(
    {
        "target": {"type": "string"},
        "reason": {"type": ["string", "null"], "enum": [*get_args(EscalateReason), None]},
        "detail": _TEXT,
        "tools": _many(_LISTED_TOOL),
    }
)

SCHEMAS: Final = {
    "Envelope": _ENVELOPE,
    "Decision": object_schema(
        {
            "outcome": _OUTCOME,
            "receipt_id": _RECEIPT_ID,
            "stored_at": {"type": "string", "format": "date-time"},
            "task_id": _TEXT,
            "root_task_id": _TEXT,
            "parent_task_id": _TEXT,
            "capability_id": _TEXT,
            "depth": _COUNT,
            "budget_remaining": _COUNT,
            "policy": _POLICY,
            "reason_code": _REASON,
            "detail": _TEXT,
            "retry_after_ms": _COUNT,
            "forwards": {"type": "array", "items": _FORWARD},
            "escalation_receipt_id": _TEXT,
        }
    ),
    "Check": object_schema(
        {
            "outcome": _OUTCOME,
            "reason_code": _REASON,
            "detail": _TEXT,
            "policy": _POLICY,
            "depth": _COUNT,
            "budget_remaining": _COUNT,
            "retry_after_ms": _COUNT,
        }
    ),
    "Question": {"anyOf": [_ENVELOPE, object_schema({"receipt_id": _RECEIPT_ID}, closed=True)]},
    "Call": object_schema(
        {
            "admission_receipt_id": _RECEIPT_ID,
            "outcome_receipt_id": _TEXT,
            "at": {"type": "string", "format": "date-time"},
            "principal_key": {"type": "string"},
            "problemata": {"type": "string"},
            "tool": {"type": "string"},
            "task_id": _ID,
            "outcome": {"type": "string", "enum": [*CALL_OUTCOMES]},
            "reason_code": _REASON,
            "duration_us": _COUNT,
            "arguments_sha256": {"type": "string"},
            "arguments_bytes": {"type": "integer"},
            "result_sha256": _TEXT,
            "result_bytes": _COUNT,
        }
    ),
    "CallPage": page_schema("Call"),
    "ToolListing": object_schema(
        {"problemata_id": {"type": "string"}, "version": {"type": "string"}, "targets": _many(_LISTED_TARGET)}
    ),
    "Explanation": object_schema({"rules": {"type": "array", "items": _RULE}}),
}
