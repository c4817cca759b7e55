"""Every endpoint of the ledger, once: requests are routed and OpenAPI is written from this table."""

from __future__ import annotations

from typing import Final

from legivellum.gate.query import CURSOR_QUERY, LIMIT_QUERY, TENANT_QUERY, page_schema
from legivellum.http.endpoints import JSON_CODES, Endpoint, Reply, Schema, in_path, in_query
from legivellum.receipts.json_schemas import receipt_schemas
from legivellum.receipts.rights import CUSTODIAL
from memorygate.ledger import Custody
from memorygate.problem_codes import Code

_RECEIPT: Final = (
    Code.INVALID_RECEIPT,
    Code.RECIPIENT_UNKNOWN,
    Code.TENANT_MISMATCH,
    Code.EMITTER_MISMATCH,
    Code.MAY_NOT_EMIT,
    Code.SIGNATURE_REFUSED,
    Code.NOT_CUSTODIAN,
    Code.RECEIPT_CONFLICT,
    Code.DEDUPE_CONFLICT,
    Code.OBLIGATION_NOT_ACCEPTED,
    Code.OBLIGATION_ALREADY_TERMINATED,
    Code.TASK_MISMATCH,
)
_READ: Final = (Code.INVALID_REQUEST, Code.TENANT_MISMATCH)
_CHAIN_LIMIT: Final = in_query(
    "limit", {"type": "integer", "minimum": 1, "maximum": 500}, "Most items of one page; omitted: the whole chain."
)
_ID: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 200}
_NAME: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 253}

ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/receipts",
        "Store one receipt.",
        "any principal",
        (Reply(201, "Stored.", "Stored"), Reply(200, "Stored before: the first answer.", "Stored")),
        (*JSON_CODES, *_RECEIPT),
        body="Receipt",
        keeps_deadline=True,
        name="storeReceipt",
    ),
    Endpoint(
        "POST",
        "/receipts/batch",
        "Store receipts in one transaction, each judged by itself.",
        "any principal",
        (Reply(200, "One item for each: its status, and what a single POST would say.", "BatchAnswer"),),
        JSON_CODES,
        body="Batch",
        keeps_deadline=True,
        name="storeReceipts",
    ),
    Endpoint(
        "GET",
        "/receipts/{receipt_id}",
        "One receipt.",
        "any principal",
        (Reply(200, "The receipt.", "StoredReceipt"),),
        (*_READ, Code.NOT_FOUND),
        (in_path("receipt_id", _ID), TENANT_QUERY),
        name="readReceipt",
    ),
    Endpoint(
        "GET",
        "/receipts/task/{task_id}",
        "All receipts of a task, by ledger time; none is an empty list.",
        "any principal",
        (Reply(200, "A page.", "ReceiptPage"),),
        (*_READ, Code.INVALID_CURSOR, Code.NOT_FOUND),
        (in_path("task_id", _ID), LIMIT_QUERY, CURSOR_QUERY, TENANT_QUERY),
        name="readTask",
    ),
    Endpoint(
        "GET",
        "/receipts/chain/{receipt_id}",
        "What led to a receipt and what it led to.",
        "any principal",
        (Reply(200, "The chain, by ledger time.", "Chain"),),
        (*_READ, Code.INVALID_CURSOR, Code.NOT_FOUND),
        (in_path("receipt_id", _ID), _CHAIN_LIMIT, CURSOR_QUERY, TENANT_QUERY),
        name="readChain",
    ),
    Endpoint(
        "GET",
        "/receipts/root/{task_id}",
        "All receipts of the tree in which a task hangs, in the order of its chain; none is an empty list.",
        "any principal",
        (Reply(200, "A page.", "ReceiptPage"),),
        (*_READ, Code.INVALID_CURSOR, Code.NOT_FOUND),
        (in_path("task_id", _ID), LIMIT_QUERY, CURSOR_QUERY, TENANT_QUERY),
        name="readRoot",
    ),
    Endpoint(
        "GET",
        "/v1/receipts",
        "All receipts of the tenant in the order of the stream, from a time on.",
        "any principal",
        (Reply(200, "A page.", "ReceiptPage"),),
        (*_READ, Code.INVALID_CURSOR),
        (
            in_query("since", {"type": "string", "format": "date-time"}, "Stored then or later."),
            LIMIT_QUERY,
            CURSOR_QUERY,
            TENANT_QUERY,
        ),
        name="readReceipts",
    ),
    Endpoint(
        "POST",
        "/v1/obligations/lookup",
        "Whether obligations are open, and who has custody of them.",
        "any principal",
        (Reply(200, "One item for each, in their order.", "Obligations"),),
        (*JSON_CODES, *_READ),
        (TENANT_QUERY,),
        body="ObligationIds",
        name="lookUpObligations",
    ),
    Endpoint(
        "GET",
        "/receipts/stream",
        "Receipts as they are stored, as server-sent events; resumes at Last-Event-ID.",
        "any principal",
        (Reply(200, "Events until either side ends it.", "Text", media="text/event-stream"),),
        (*_READ, Code.INVALID_CURSOR),
        (in_query("from", {"type": "string", "enum": ["now", "beginning"]}, "Where it begins."), TENANT_QUERY),
        name="streamReceipts",
    ),
    Endpoint(
        "GET",
        "/inbox",
        "Open obligations in a principal's custody.",
        "any principal",
        (Reply(200, "A page, by the time custody began.", "ObligationPage"),),
        (*_READ, Code.INVALID_CURSOR, Code.ROLE_REQUIRED),
        (
            in_query("principal", _NAME, "Admins and observers only."),
            in_query("kind", {"type": "string", "enum": sorted(CUSTODIAL), "default": "obligation"}, "Only this kind."),
            in_query("task_id", {**_NAME, "maxLength": 200}, "Only of this task."),
            in_query("principal_ai", _NAME, "Only of this owner."),
            LIMIT_QUERY,
            CURSOR_QUERY,
            TENANT_QUERY,
        ),
        name="readInbox",
    ),
    Endpoint(
        "GET",
        "/v1/summary",
        "Counts by state; overdue is counted up to 10,000.",
        "any principal",
        (Reply(200, "The counts.", "Object"),),
        _READ,
        (TENANT_QUERY,),
        name="readSummary",
    ),
)

_CHAIN: Final = {
    "type": "object",
    "required": ["items", "next_cursor", "dangling", "cycles", "truncated"],
    "properties": {
        "items": {"type": "array", "items": {"$ref": "#/components/schemas/StoredReceipt"}},
        "next_cursor": {"type": ["string", "null"]},
        "dangling": {"type": "array", "items": {"type": "string"}, "description": "Causes that are not in the ledger."},
        "cycles": {"type": "array", "items": {"type": "string"}, "description": "The smallest id of each cycle."},
        "truncated": {"type": "boolean"},
    },
}
_OBLIGATION_IDS: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["obligation_ids"],
    "properties": {"obligation_ids": {"type": "array", "items": _ID, "minItems": 1, "maxItems": 256}},
}
_OBLIGATIONS: Final = {
    "type": "object",
    "required": ["items"],
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["obligation_id", *Custody._fields],
                "properties": {name: {"type": ["string", "null"]} for name in Custody._fields},
            },
        }
    },
}
_ACKNOWLEDGED: Final = (
    "receipt_id", "tenant_id", "task_id", "obligation_id", "root_task_id", "position", "stored_at", "sha256",
    "replayed",
)  # fmt: skip
_BATCH: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["receipts"],
    "properties": {
        "receipts": {
            "type": "array",
            "items": {"$ref": "#/components/schemas/Receipt"},
            "minItems": 1,
            "maxItems": 256,
        }
    },
}
_BATCH_ANSWER: Final = {
    "type": "object",
    "required": ["items"],
    "properties": {"items": {"type": "array", "items": {"type": "object", "required": ["status"]}}},
}


SCHEMAS: Final = {
    "Batch": _BATCH,
    "BatchAnswer": _BATCH_ANSWER,
    "Chain": _CHAIN,
    "ReceiptPage": page_schema("StoredReceipt"),
    "ObligationPage": page_schema("OpenObligation"),
    "ObligationIds": _OBLIGATION_IDS,
    "Obligations": _OBLIGATIONS,
    **receipt_schemas(),
    "Stored": {
        "type": "object",
        "required": list(_ACKNOWLEDGED),
        "properties": {
            "receipt_id": {"type": "string"},
            "stored_at": {"type": "string", "format": "date-time"},
            "replayed": {"type": "boolean"},
        },
    },
    "OpenObligation": {
        "type": "object",
        "required": ["obligation_id", "kind", "task_id", "principal_ai", "opened_at", "custody_at", "receipt"],
    },
}
