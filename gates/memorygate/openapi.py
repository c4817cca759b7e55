"""The OpenAPI document: every path, every answer it may give, the receipt's field table as its schema."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from legivellum.http.problem_codes import MEANINGS, Code
from legivellum.receipts.receipt import OPTIONAL_IN_A_REQUEST, Draft
from legivellum.receipts.rights import CUSTODIAL
from memorygate.settings import Settings

_PROBLEM: Final = "#/components/schemas/Problem"
_EDGE: Final = (
    Code.MALFORMED_REQUEST,
    Code.REQUEST_TIMEOUT,
    Code.URL_TOO_LONG,
    Code.HEADERS_TOO_LARGE,
    Code.UNAVAILABLE,
    Code.DEADLINE_EXCEEDED,
    Code.OVERLOADED,
)
_CREDENTIAL: Final = (
    Code.SEVERAL_CREDENTIALS,
    Code.CREDENTIAL_MISSING,
    Code.CREDENTIAL_INVALID,
    Code.CREDENTIAL_EXPIRED,
    Code.PRINCIPAL_UNKNOWN,
    Code.PRINCIPAL_SUSPENDED,
    Code.RATE_LIMITED,
)
_BODY: Final = (
    Code.MALFORMED_JSON,
    Code.BODY_TOO_LARGE,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.JSON_TOO_DEEP,
    Code.JSON_TOO_MANY_KEYS,
)
_RECEIPT: Final = (
    Code.INVALID_RECEIPT,
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
_READ: Final = (*_CREDENTIAL, Code.INVALID_REQUEST, Code.TENANT_MISMATCH)


def document(settings: Settings) -> dict[str, Any]:
    return {**_document(settings.api_key_header), "info": {**_INFO, "version": settings.version}}


_INFO: Final = {"title": "MemoryGate", "description": "The append-only ledger of receipts.", "version": "0"}


@cache
def _document(api_key_header: str) -> dict[str, Any]:
    tenant = _parameter(
        "tenant", {"type": "string", "format": "uuid"}, "Cluster-wide admins and observers only (D-51)."
    )
    page = [
        _parameter("limit", {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}),
        _parameter("cursor", {"type": "string", "minLength": 1, "maxLength": 1024}),
    ]
    name = {"type": "string", "minLength": 1, "maxLength": 253}
    receipts = _list("StoredReceipt")
    paths: dict[str, Any] = {
        "/receipts": {
            "post": _operation(
                "storeReceipt",
                "Store one receipt.",
                {
                    "201": _answer("Stored.", _ref("Stored")),
                    "200": _answer("Stored before: the first answer.", _ref("Stored")),
                },
                (*_CREDENTIAL, *_BODY, *_RECEIPT),
                body=_ref("Receipt"),
            )
        },
        "/receipts/batch": {
            "post": _operation(
                "storeReceipts",
                "Store receipts in one transaction, each judged by itself.",
                {"200": _answer("One item for each: its status, and what a single POST would say.", _BATCH_ANSWER)},
                (*_CREDENTIAL, *_BODY, Code.INVALID_REQUEST),
                body={
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["receipts"],
                    "properties": {
                        "receipts": {"type": "array", "items": _ref("Receipt"), "minItems": 1, "maxItems": 256}
                    },
                },
            )
        },
        "/receipts/{receipt_id}": {
            "get": _operation(
                "readReceipt",
                "One receipt.",
                {"200": _answer("The receipt.", _ref("StoredReceipt"))},
                (*_READ, Code.NOT_FOUND),
                parameters=[_path("receipt_id"), tenant],
            )
        },
        "/receipts/task/{task_id}": {
            "get": _operation(
                "readTask",
                "All receipts of a task, by ledger time; none is an empty list.",
                {"200": _answer("A page.", receipts)},
                (*_READ, Code.INVALID_CURSOR, Code.NOT_FOUND),
                parameters=[_path("task_id"), *page, tenant],
            )
        },
        "/receipts/chain/{receipt_id}": {
            "get": _operation(
                "readChain",
                "What led to a receipt and what it led to.",
                {"200": _answer("The chain, by ledger time.", _CHAIN)},
                (*_READ, Code.NOT_FOUND),
                parameters=[_path("receipt_id"), tenant],
            )
        },
        "/receipts/stream": {
            "get": {
                **_operation(
                    "streamReceipts",
                    "Receipts as they are stored, as server-sent events; resumes at Last-Event-ID.",
                    {
                        "200": {
                            "description": "Events until either side ends it.",
                            "content": {"text/event-stream": {"schema": {"type": "string"}}},
                        }
                    },
                    (*_READ, Code.INVALID_CURSOR),
                    parameters=[_parameter("from", {"type": "string", "enum": ["now", "beginning"]}), tenant],
                ),
            }
        },
        "/inbox": {
            "get": _operation(
                "readInbox",
                "Open obligations in a principal's custody.",
                {"200": _answer("A page, by the time custody began.", _list("OpenObligation"))},
                (*_READ, Code.INVALID_CURSOR, Code.ROLE_REQUIRED),
                parameters=[
                    _parameter("principal", name, "Admins and observers only."),
                    _parameter("kind", {"type": "string", "enum": sorted(CUSTODIAL), "default": "obligation"}),
                    _parameter("task_id", {**name, "maxLength": 200}),
                    _parameter("principal_ai", name),
                    *page,
                    tenant,
                ],
            )
        },
        "/v1/summary": {
            "get": _operation(
                "readSummary",
                "Counts by state; overdue is counted up to 10,000.",
                {"200": _answer("The counts.", {"type": "object"})},
                _READ,
                parameters=[tenant],
            )
        },
    }
    for path, says in _OPEN_DOORS.items():
        media = "text/plain" if path == "/metrics" else "application/json"
        found = {"200": {"description": says, "content": {media: {"schema": {}}}}}
        codes = (Code.NOT_READY,) if path == "/readyz" else ()
        paths[path] = {
            "get": {**_operation(path.strip("/").replace(".", "_") or "root", says, found, codes), "security": []}
        }
    return {
        "openapi": "3.1.0",
        "info": _INFO,
        "paths": paths,
        "security": [{"key": []}, {"bearer": []}],
        "components": {
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": api_key_header},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
            "schemas": _schemas(),
        },
    }


_OPEN_DOORS: Final = {
    "/": "The service and its doctrine.",
    "/health": "This process answers.",
    "/livez": "This process lives.",
    "/readyz": "Both databases were reached.",
    "/metrics": "Prometheus metrics.",
    "/openapi.json": "This document.",
}

_CHAIN: Final = {
    "type": "object",
    "required": ["items", "next_cursor", "dangling", "cycles", "truncated"],
    "properties": {
        "items": {"type": "array", "items": {"$ref": "#/components/schemas/StoredReceipt"}},
        "next_cursor": {"type": "null"},
        "dangling": {"type": "array", "items": {"type": "string"}, "description": "Causes that are not in the ledger."},
        "cycles": {"type": "array", "items": {"type": "string"}, "description": "The smallest id of each cycle."},
        "truncated": {"type": "boolean"},
    },
}
_ACKNOWLEDGED: Final = (
    "receipt_id", "tenant_id", "task_id", "obligation_id", "root_task_id", "position", "stored_at", "sha256",
    "replayed",
)  # fmt: skip
_BATCH_ANSWER: Final = {
    "type": "object",
    "required": ["items"],
    "properties": {"items": {"type": "array", "items": {"type": "object", "required": ["status"]}}},
}


def _schemas() -> dict[str, Any]:
    drafted = Draft.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = drafted.pop("$defs", {})
    required = [name for name in drafted["required"] if name not in OPTIONAL_IN_A_REQUEST]
    ledgers_own = {
        "stored_at": {"type": "string", "format": "date-time"},
        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "root_task_id": {"type": "string"},
        "position": {"type": "integer", "minimum": 1},
        "chain_sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    }
    return {
        **definitions,
        "Receipt": {**drafted, "required": required, "additionalProperties": False},
        "StoredReceipt": {
            "type": "object",
            "properties": {**drafted["properties"], **ledgers_own},
            "required": [*drafted["required"], *ledgers_own],
        },
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
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail", "code"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "code": {"type": "string", "enum": [code.value for code in Code]},
            },
        },
    }  # fmt: skip


def _operation(
    name: str,
    says: str,
    answers: dict[str, Any],
    codes: Sequence[Code],
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": name,
        "summary": says,
        "responses": {**answers, **_problems((*codes, *_EDGE))},
    }
    if parameters:
        made["parameters"] = parameters
    if body is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return made


def _problems(codes: Sequence[Code]) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(MEANINGS[code].status, []).append(code.value)
    return {
        str(status): {
            "description": ", ".join(names),
            "content": {"application/problem+json": {"schema": {"$ref": _PROBLEM}}},
        }
        for status, names in sorted(by_status.items())
    }


def _answer(says: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": says, "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(name: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["items", "next_cursor"],
        "properties": {
            "items": {"type": "array", "items": _ref(name)},
            "next_cursor": {"type": ["string", "null"]},
        },
    }


def _parameter(name: str, schema: dict[str, Any], says: str = "") -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, **({"description": says} if says else {})}


def _path(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    }
