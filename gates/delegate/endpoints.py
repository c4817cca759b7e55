"""Every endpoint of DeleGate, once: requests are routed and OpenAPI is written from this table."""

from __future__ import annotations

from typing import Final

from delegate.problem_codes import Code
from legivellum.gate.query import CURSOR_QUERY, LIMIT_QUERY, TENANT_QUERY, page_schema
from legivellum.http.endpoints import ANY_PRINCIPAL, ANYBODY, JSON_CODES, Endpoint, Reply, in_header, in_path, in_query
from legivellum.http.endpoints import Schema as JsonSchema
from legivellum.http.openapi import object_schema
from legivellum.identity.caller import TYPES_BUT_WORKERS

_ULID: Final[JsonSchema] = {"type": "string", "pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{25}$"}
_PLAN_ID: Final = in_path("plan_id", _ULID)
_NAMESPACE: Final = in_path("namespace", {"type": "string", "minLength": 1, "maxLength": 63})
_ADMISSION: Final = {
    **in_header("Legivellum-Admission", _ULID, "The receipt by which InterroGate admitted the request."),
    "required": True,
}
_REPLAYED: Final = ("Idempotency-Replayed",)
_TAKING: Final = (
    *JSON_CODES,
    Code.ADMISSION_REFUSED,
    Code.AUTHORITY_EXCEEDED,
    Code.TENANT_NOT_SERVED,
    Code.TEMPLATE_NOT_FOUND,
    Code.PLAN_CONFLICT,
    Code.INVALID_PLAN,
)
_OF_PLAN: Final = (Code.INVALID_REQUEST, Code.TENANT_NOT_SERVED, Code.PLAN_NOT_FOUND)

VALIDATING: Final = (
    Endpoint(
        "POST",
        "/plans/validate",
        "What would become of a request; nothing is written.",
        ANY_PRINCIPAL,
        (Reply(200, "Whether it is a plan that may run, the findings, the plan.", "Validation"),),
        JSON_CODES,
        body="PlanRequest",
        name="validatePlan",
    ),
)
READING: Final = (
    Endpoint(
        "GET",
        "/plans",
        "The caller's own open plans, the oldest first.",
        ANY_PRINCIPAL,
        (Reply(200, "A page of them.", "OpenPlanPage"),),
        (Code.INVALID_REQUEST, Code.INVALID_CURSOR, Code.TENANT_NOT_SERVED),
        (LIMIT_QUERY, CURSOR_QUERY),
        name="listPlans",
        callers=TYPES_BUT_WORKERS,
    ),
    Endpoint(
        "GET",
        "/plans/{plan_id}",
        "What became of a plan, from the receipts of this gate.",
        ANY_PRINCIPAL,
        (Reply(200, "The plan.", "Plan"),),
        (*_OF_PLAN, Code.TENANT_MISMATCH),
        (
            _PLAN_ID,
            in_query("body", {"type": "string", "enum": ["true", "false"]}, "With the whole document."),
            TENANT_QUERY,
        ),
        name="readPlan",
        callers=TYPES_BUT_WORKERS,
    ),
)
TAKING: Final = (
    Endpoint(
        "POST",
        "/intents/{namespace}",
        "Take what InterroGate admitted; the receipt that is named is the authority.",
        ANYBODY,
        (Reply(202, "Taken: the plan, with its steps and receipts.", "Plan", _REPLAYED),),
        (*_TAKING, Code.ADMISSION_REQUIRED, Code.UNAVAILABLE),
        (_NAMESPACE, _ADMISSION),
        body="Intent",
        name="takeIntent",
    ),
    Endpoint(
        "POST",
        "/plans",
        "Make a plan of a template or a draft, and hand its tasks over.",
        ANY_PRINCIPAL,
        (Reply(202, "Taken: the plan, with its steps and receipts.", "Plan", _REPLAYED),),
        (*_TAKING, Code.ADMISSION_REQUIRED, Code.ROLE_REQUIRED),
        body="PlanRequest",
        name="takePlan",
        callers=TYPES_BUT_WORKERS,
    ),
    Endpoint(
        "POST",
        "/plans/{plan_id}/dispatch",
        "Look at the ledger now: hand over what was approved, finish what was begun.",
        ANY_PRINCIPAL,
        (Reply(202, "The plan as it is now.", "Plan", _REPLAYED),),
        (*_OF_PLAN, Code.ROLE_REQUIRED, Code.NOT_APPROVED, Code.AUTHORITY_EXCEEDED),
        (_PLAN_ID,),
        name="dispatchPlan",
        callers=TYPES_BUT_WORKERS,
    ),
    Endpoint(
        "POST",
        "/plans/{plan_id}/close",
        "Look at the ledger now: end the plan if all its steps are over; or abandon it.",
        ANY_PRINCIPAL,
        (Reply(200, "Its end, the same again.", "PlanEnd"),),
        (
            *_OF_PLAN,
            *JSON_CODES[:4],
            Code.ROLE_REQUIRED,
            Code.PLAN_NOT_FINISHED,
            Code.OBLIGATION_ALREADY_TERMINATED,
        ),
        (_PLAN_ID,),
        body="PlanClosing",
        name="closePlan",
    ),
)
ENDPOINTS: Final = (*VALIDATING, *READING, *TAKING)

_TEXT: Final[JsonSchema] = {"type": "string"}
_OPTIONAL_TEXT: Final[JsonSchema] = {"type": ["string", "null"]}
_OPTIONAL_COUNT: Final[JsonSchema] = {"type": ["integer", "null"], "minimum": 0}
_DOCUMENT: Final[JsonSchema] = {"type": ["object", "null"]}
_PHASE: Final[JsonSchema] = {
    "type": "string",
    "enum": ["planning", "held", "running", "closed", "escalated", "failed"],
}
_FINDING: Final = object_schema({"path": _TEXT, "reason": _TEXT, "message": _TEXT})
_INTENT: Final[JsonSchema] = {
    "anyOf": [
        object_schema(
            {"template": {"type": "string", "minLength": 1, "maxLength": 253}, "parameters": {}},
            required=("template",),
            closed=True,
        ),
        object_schema({"draft": {}}, closed=True),
    ]
}

SCHEMAS: Final = {
    "PlanRequest": object_schema(
        {"plan_id": _ULID, "intent": _INTENT, "caused_by_receipt_id": _ULID}, required=("intent",), closed=True
    ),
    "Intent": {"type": "object", "description": "Parameters of the admitted template, or a body of `/plans`."},
    "Validation": object_schema(
        {
            "valid": {"type": "boolean"},
            "findings": {"type": "array", "items": _FINDING},
            "tasks": _OPTIONAL_COUNT,
            "depth": _OPTIONAL_COUNT,
            "plan_digest": _OPTIONAL_TEXT,
            "plan": _DOCUMENT,
        }
    ),
    "Plan": object_schema(
        {
            "plan_id": _ULID,
            "principal_ai": _TEXT,
            "phase": _PHASE,
            "root_task_id": _TEXT,
            "artifact": {
                "type": ["object", "null"],
                "required": ["pointer", "sha256"],
                "properties": {"pointer": _TEXT, "sha256": _TEXT},
            },
            "plan_digest": _OPTIONAL_TEXT,
            "receipts": object_schema({"accepted": _TEXT, "plan": _OPTIONAL_TEXT, "end": _OPTIONAL_TEXT}),
            "steps": {
                "type": "array",
                "maxItems": 201,
                "items": object_schema({"step_id": _TEXT, "task_id": _TEXT}),
            },
            "escalation": {
                "type": ["object", "null"],
                "required": ["class", "reason", "to"],
                "properties": {"class": _TEXT, "reason": _TEXT, "to": _TEXT},
            },
            "plan": _DOCUMENT,
        },
        required=(
            "plan_id",
            "principal_ai",
            "phase",
            "root_task_id",
            "artifact",
            "plan_digest",
            "receipts",
            "steps",
            "escalation",
        ),
    ),
    "OpenPlan": object_schema(
        {
            "plan_id": _TEXT,
            "principal_ai": _TEXT,
            "phase": _PHASE,
            "task_summary": _OPTIONAL_TEXT,
            "opened_at": {"type": "string", "format": "date-time"},
            "accepted": _TEXT,
        }
    ),
    "OpenPlanPage": page_schema("OpenPlan"),
    "PlanClosing": object_schema(
        {"abandon": {"type": "boolean"}, "reason": {"type": "string", "minLength": 1, "maxLength": 500}},
        required=(),
        closed=True,
    ),
    "PlanEnd": object_schema(
        {
            "receipt_id": _ULID,
            "status": {"type": "string", "enum": ["success", "failure", "canceled"]},
            "counts": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
        }
    ),
}
