"""Every endpoint of AsyncGate, once: requests are routed and OpenAPI is written from this table."""

from __future__ import annotations

from typing import Final

from asyncgate.problem_codes import Code
from legivellum.gate.query import CURSOR_QUERY, LIMIT_QUERY, TENANT_QUERY, page_schema
from legivellum.http.endpoints import ANY_PRINCIPAL, JSON_CODES, Endpoint, Reply, Schema, in_header, in_path, in_query
from legivellum.http.openapi import object_schema, schema_reference

BATCH_BYTES: Final = 1_048_576
_CAPABILITY_PATTERN: Final = "^[a-z0-9][a-z0-9._-]{0,62}$"

_ADMISSION: Final = in_header(
    "Legivellum-Admission",
    {"type": "string", "minLength": 26, "maxLength": 26},
    "The receipt by which InterroGate admitted the task.",
)
_IDEMPOTENCY_KEY: Final = in_header(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 200},
    "The same key again answers the leases of the first answer that still live, and issues none.",
)
_TASK_ID: Final = in_path("task_id", {"type": "string", "minLength": 1, "maxLength": 200})
_CAPABILITY: Final = in_query("capability", {"type": "string", "pattern": _CAPABILITY_PATTERN}, "Only of this mailbox.")
_STATE: Final = in_query(
    "state",
    {"type": "string", "enum": ["waiting", "held_back", "leased", "ended"]},
    "Only in this state; without it everything that is not over.",
)
_REPLAYED: Final = ("Idempotency-Replayed",)
_NEEDS_WORKER: Final = (*JSON_CODES, Code.ROLE_REQUIRED)
_UNDER_LEASE: Final = (*_NEEDS_WORKER, Code.LEASE_LOST)
_PARKING: Final = (
    *JSON_CODES,
    Code.ROLE_REQUIRED,
    Code.TENANT_MISMATCH,
    Code.EMITTER_MISMATCH,
    Code.NOT_CUSTODIAN,
    Code.AUTHORITY_EXCEEDED,
    Code.ADMISSION_REQUIRED,
    Code.ADMISSION_REFUSED,
    Code.TASK_CONFLICT,
    Code.TASK_MISMATCH,
    Code.OBLIGATION_NOT_ACCEPTED,
    Code.OBLIGATION_ALREADY_TERMINATED,
    Code.ADMISSION_USED,
    Code.TOO_MANY_WAIT,
    Code.RECIPIENT_UNKNOWN,
)

ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/tasks",
        "Hold a task whose obligation AsyncGate was given, until a lease on it ends.",
        ANY_PRINCIPAL,
        (
            Reply(201, "Held, with its two receipts in the same commit.", "Parked"),
            Reply(200, "The same task again.", "Parked", _REPLAYED),
        ),
        _PARKING,
        (_ADMISSION,),
        body="NewTask",
        keeps_deadline=True,
        name="enqueue",
    ),
    Endpoint(
        "POST",
        "/tasks/batch",
        "Hold up to 256 tasks, each for itself or all or none; or judge them and store nothing.",
        ANY_PRINCIPAL,
        (Reply(200, "An answer for each.", "Items"),),
        (*JSON_CODES, Code.ROLE_REQUIRED),
        body="TaskBatch",
        body_bytes=BATCH_BYTES,
        keeps_deadline=True,
        name="enqueueBatch",
    ),
    Endpoint(
        "POST",
        "/lease",
        "Take tasks of mailboxes, the oldest first; wait for one.",
        ANY_PRINCIPAL,
        (Reply(200, "Leases, perhaps none.", "Leases"),),
        _NEEDS_WORKER,
        (_IDEMPOTENCY_KEY,),
        body="LeaseRequest",
        keeps_deadline=True,
        name="lease",
    ),
    Endpoint(
        "POST",
        "/lease/renew",
        "Make a lease longer.",
        ANY_PRINCIPAL,
        (Reply(200, "Until when, and how often again.", "Renewed"),),
        (*_UNDER_LEASE, Code.LEASE_EXHAUSTED),
        body="RenewRequest",
        keeps_deadline=True,
        name="renew",
    ),
    Endpoint(
        "POST",
        "/lease/release",
        "Give a task back; it joins the end of its line.",
        ANY_PRINCIPAL,
        (Reply(200, "When it is available again.", "Released"),),
        _UNDER_LEASE,
        body="ReleaseRequest",
        keeps_deadline=True,
        name="release",
    ),
    Endpoint(
        "POST",
        "/complete",
        "Return a task; the claim becomes its obligation's complete receipt.",
        ANY_PRINCIPAL,
        (Reply(200, "Ended, or ended before by the same claim.", "Ended", _REPLAYED),),
        (*_UNDER_LEASE, Code.INVALID_RECEIPT),
        body="Claim",
        keeps_deadline=True,
        name="complete",
    ),
    Endpoint(
        "POST",
        "/complete/batch",
        "Return up to 32 tasks, each for itself.",
        ANY_PRINCIPAL,
        (Reply(200, "An answer for each.", "Items"),),
        _NEEDS_WORKER,
        body="ClaimBatch",
        body_bytes=BATCH_BYTES,
        keeps_deadline=True,
        name="completeBatch",
    ),
    Endpoint(
        "POST",
        "/escalate",
        "Hand the obligation to somebody whom the task names.",
        ANY_PRINCIPAL,
        (Reply(200, "Ended, or ended before by the same request.", "Ended", _REPLAYED),),
        (*_UNDER_LEASE, Code.ESCALATION_NOT_PERMITTED, Code.RECIPIENT_UNKNOWN, Code.INVALID_RECEIPT),
        body="Escalation",
        keeps_deadline=True,
        name="escalate",
    ),
    Endpoint(
        "POST",
        "/tasks/{task_id}/revoke",
        "End a task, or only its lease.",
        ANY_PRINCIPAL,
        (Reply(200, "It is over, or was before.", "Revoked"),),
        (*JSON_CODES, Code.ROLE_REQUIRED, Code.NOT_FOUND, Code.TASK_ENDED),
        (_TASK_ID,),
        body="RevokeRequest",
        keeps_deadline=True,
        name="revoke",
    ),
    Endpoint(
        "GET",
        "/tasks",
        "The tasks of a tenant, by their ids.",
        ANY_PRINCIPAL,
        (Reply(200, "A page of them.", "TaskPage"),),
        (Code.INVALID_REQUEST, Code.INVALID_CURSOR, Code.TENANT_MISMATCH),
        (_CAPABILITY, _STATE, TENANT_QUERY, LIMIT_QUERY, CURSOR_QUERY),
        name="listTasks",
    ),
    Endpoint(
        "GET",
        "/tasks/{task_id}",
        "One task, also when it is over.",
        ANY_PRINCIPAL,
        (Reply(200, "The task.", "Task"),),
        (Code.INVALID_REQUEST, Code.NOT_FOUND, Code.TENANT_MISMATCH),
        (_TASK_ID, TENANT_QUERY),
        name="readTask",
    ),
    Endpoint(
        "GET",
        "/queue/depth",
        "How much lies in each mailbox that is not empty.",
        ANY_PRINCIPAL,
        (Reply(200, "Counts up to 10,000.", "Depth"),),
        (Code.INVALID_REQUEST, Code.TENANT_MISMATCH),
        (_CAPABILITY, TENANT_QUERY),
        name="readDepth",
    ),
)

_ID: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 200}
_NAME: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 253}
_TEXT: Final[Schema] = {"type": "string"}
_OPTIONAL_TEXT: Final[Schema] = {"type": ["string", "null"]}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_OPTIONAL_TIME: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_RECEIPT_ID: Final[Schema] = {"type": "string", "pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{25}$"}
_SECONDS: Final[Schema] = {"type": "integer", "minimum": 5, "maximum": 86_400}
_OBJECT: Final[Schema] = {"type": "object"}
_IDS: Final[Schema] = {"type": "array", "items": _ID, "maxItems": 64}
_CAPABILITY_NAME: Final[Schema] = {"type": "string", "pattern": _CAPABILITY_PATTERN}


_LEASE_TERMS: Final = object_schema(
    {
        "ttl_seconds": _SECONDS,
        "max_renewals": {"type": "integer", "minimum": 0},
        "max_lifetime_seconds": {"type": "integer", "minimum": 5},
    },
    required=(),
    closed=True,
)
_NEW_TASK: Final = object_schema(
    {
        "task_id": _ID,
        "principal_ai": _NAME,
        "payload_pointer": {"type": "string", "minLength": 1, "maxLength": 2_048},
        "tenant_id": _TEXT,
        "obligation_id": _ID,
        "capability": _CAPABILITY_NAME,
        "not_before": _TIME,
        "parent_task_id": _ID,
        "task_type": _ID,
        "task_summary": {"type": "string", "minLength": 1, "maxLength": 2_048},
        "authority": _OBJECT,
        "needs": _IDS,
        "lease": _LEASE_TERMS,
        "max_leases": {"type": "integer", "minimum": 1},
        "escalation_to": {"type": "array", "items": _NAME, "maxItems": 16},
    },
    required=("task_id", "principal_ai", "payload_pointer"),
    closed=True,
)
_TASK: Final = object_schema(
    {
        "task_id": _ID,
        "obligation_id": _ID,
        "principal_ai": _NAME,
        "capability": _CAPABILITY_NAME,
        "state": {"type": "string", "enum": ["waiting", "held_back", "leased", "ended"]},
        "accepted_receipt_id": _OPTIONAL_TEXT,
        "accepted_at": _OPTIONAL_TIME,
        "available_at": _OPTIONAL_TIME,
        "waits_for": {"type": "array", "items": _ID},
        "lease": {
            "type": ["object", "null"],
            "properties": {"holder": _NAME, "number": _COUNT, "expires_at": _TIME},
        },
        "ended": {
            "type": ["object", "null"],
            "properties": {
                "how": {"type": "string", "enum": ["returned", "escalated", "revoked"]},
                "at": _TIME,
                "receipt_id": _RECEIPT_ID,
            },
        },
    }
)
_LEASE: Final = object_schema(
    {
        "lease_id": _RECEIPT_ID,
        "number": _COUNT,
        "issued_at": _TIME,
        "expires_at": _TIME,
        "expires_in_ms": {"type": "integer"},
        "latest_expiry": _TIME,
        "renewals_left": _COUNT,
        "evidence": {"type": "array", "items": _RECEIPT_ID},
        "root_task_id": _ID,
        "depth": _COUNT,
        "task": _OBJECT,
    }
)

SCHEMAS: Final = {
    "NewTask": _NEW_TASK,
    "TaskBatch": object_schema(
        {
            "items": {
                "type": "array",
                "minItems": 1,
                "maxItems": 256,
                "items": object_schema({"task": _OBJECT, "admission": _TEXT}, required=("task",), closed=True),
            },
            "all_or_none": {"type": "boolean"},
            "check": {"type": "boolean"},
        },
        required=("items",),
        closed=True,
    ),
    "Parked": object_schema(
        {
            "task_id": _ID,
            "obligation_id": _ID,
            "accepted_receipt_id": _RECEIPT_ID,
            "accepted_at": _TIME,
            "available_at": _OPTIONAL_TIME,
            "waits_for": {"type": "array", "items": _ID},
        }
    ),
    "Items": object_schema(
        {"items": {"type": "array", "items": object_schema({"status": {"type": "integer"}}), "maxItems": 256}}
    ),
    "LeaseRequest": object_schema(
        {
            "capabilities": {"type": "array", "items": _CAPABILITY_NAME, "minItems": 1, "maxItems": 16},
            "most": {"type": "integer", "minimum": 1, "maximum": 32},
            "ttl_seconds": _SECONDS,
            "wait_seconds": {"type": "number", "minimum": 0, "maximum": 20},
        },
        required=("capabilities",),
        closed=True,
    ),
    "Lease": _LEASE,
    "Leases": object_schema({"leases": {"type": "array", "items": schema_reference("Lease"), "maxItems": 32}}),
    "RenewRequest": object_schema({"lease_id": _ID, "ttl_seconds": _SECONDS}, required=("lease_id",), closed=True),
    "Renewed": object_schema({"expires_at": _TIME, "expires_in_ms": {"type": "integer"}, "renewals_left": _COUNT}),
    "ReleaseRequest": object_schema(
        {
            "lease_id": _ID,
            "reason": {"type": "string", "minLength": 1, "maxLength": 500},
            "again_after_seconds": {"type": "number", "minimum": 0, "maximum": 3_600},
        },
        required=("lease_id",),
        closed=True,
    ),
    "Released": object_schema({"task_id": _ID, "available_at": _OPTIONAL_TIME}),
    "Claim": object_schema(
        {
            "lease_id": _ID,
            "status": {"type": "string", "enum": ["success", "failure", "canceled"]},
            "outcome_kind": {"type": "string", "enum": ["none", "response_text", "artifact_pointer", "mixed"]},
            "outcome_text": _TEXT,
            "artifact_pointer": _TEXT,
            "artifact_location": _TEXT,
            "artifact_mime": _TEXT,
            "artifact_checksum": _TEXT,
            "artifact_size_bytes": _COUNT,
            "started_at": _TIME,
            "body": {},
            "metadata": _OBJECT,
        },
        required=("lease_id", "status", "outcome_kind"),
        closed=True,
    ),
    "ClaimBatch": object_schema(
        {"items": {"type": "array", "items": _OBJECT, "minItems": 1, "maxItems": 32}}, closed=True
    ),
    "Ended": object_schema({"task_id": _ID, "obligation_id": _ID, "receipt_id": _RECEIPT_ID, "stored_at": _TIME}),
    "Escalation": object_schema(
        {
            "lease_id": _ID,
            "escalation_class": {
                "type": "string",
                "enum": ["owner", "capability", "trust", "policy", "scope", "other"],
            },
            "escalation_reason": {"type": "string", "minLength": 1, "maxLength": 2_048},
            "escalation_to": _NAME,
        },
        required=("lease_id", "escalation_class", "escalation_reason"),
        closed=True,
    ),
    "RevokeRequest": object_schema(
        {
            "what": {"type": "string", "enum": ["task", "lease"]},
            "reason": {"type": "string", "minLength": 1, "maxLength": 500},
        },
        required=(),
        closed=True,
    ),
    "Revoked": object_schema({"task_id": _ID, "lease_ended": {"type": "boolean"}}),
    "Task": _TASK,
    "TaskPage": page_schema("Task"),
    "Depth": object_schema(
        {
            "items": {
                "type": "array",
                "items": object_schema(
                    {
                        "capability": _CAPABILITY_NAME,
                        "waiting": _COUNT,
                        "held_back": _COUNT,
                        "leased": _COUNT,
                        "oldest_available_at": _OPTIONAL_TIME,
                        "capped": {"type": "boolean"},
                    }
                ),
            },
            "as_of": _TIME,
        }
    ),
}
