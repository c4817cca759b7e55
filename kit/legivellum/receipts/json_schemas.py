"""Receipts as JSON schemas, for the OpenAPI documents of the gates that take or show them."""

from typing import Any, Final

from legivellum.receipts.receipt import OPTIONAL_IN_A_REQUEST, Draft

LEDGER_FIELDS: Final[dict[str, Any]] = {
    "stored_at": {"type": "string", "format": "date-time"},
    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "root_task_id": {"type": "string"},
    "position": {"type": "integer", "minimum": 1},
    "chain_sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}
"""What only the ledger writes, beside the fields of the emitter."""


def receipt_schemas() -> dict[str, Any]:
    """`Receipt` as it is sent, `StoredReceipt` as the ledger shows it, and what they refer to."""
    draft = Draft.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = draft.pop("$defs", {})
    required = [name for name in draft["required"] if name not in OPTIONAL_IN_A_REQUEST]
    return {
        **definitions,
        "Receipt": {**draft, "required": required, "additionalProperties": False},
        "StoredReceipt": {
            "type": "object",
            "properties": {**draft["properties"], **LEDGER_FIELDS},
            "required": [*draft["required"], *LEDGER_FIELDS],
        },
    }
