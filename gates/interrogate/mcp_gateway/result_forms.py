"""Results as a client of a revision of MCP can read them, and refusals that a model can read (GW-05, GW-17)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from mcp_types import methods
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from interrogate.admission_receipt import RecordedAdmission
from interrogate.mcp_gateway.gateway_tool import RECEIPT_META, Result

_CALL: Final = "tools/call"
_LIST: Final = "tools/list"
_LIST_TTL_MS: Final = 5_000
"""How long a client may keep a listing: a change of a declaration is seen after this time at the latest."""
_TASK: Final = "task"


def structured_result(
    content: Mapping[str, Any], *, is_error: bool = False, meta: Mapping[str, Any] | None = None
) -> Result:
    """An object as the structured content, and as text for clients that show nothing else."""
    result: Result = {
        "content": [{"type": "text", "text": json.dumps(content, ensure_ascii=False, separators=(",", ":"))}],
        "structuredContent": dict(content),
        "isError": is_error,
    }
    return result if meta is None else {**result, "_meta": dict(meta)}


def receipt_meta(admission: str, outcome: str | None) -> dict[str, Any]:
    """`_meta` of a result: which receipts say that it happened."""
    return {RECEIPT_META: {"admission": admission, "outcome": outcome}}


def refusal_result(recorded: RecordedAdmission) -> Result:
    """A denied request: a result and no error of the protocol, because the model must read it."""
    decision = recorded.decision
    return structured_result(
        {
            "outcome": decision.outcome.value,
            "reason_code": decision.reason_code,
            "detail": decision.detail,
            "receipt_id": recorded.receipt_id,
            "policy_hash": recorded.policy_hash,
            "retry_after_ms": decision.retry_after_ms,
        },
        is_error=True,
        meta=receipt_meta(recorded.receipt_id, None),
    )


def failure_result(
    recorded: RecordedAdmission, reason: str, detail: str, *, outcome_receipt: str | None, **more: Any
) -> Result:
    """A request that was admitted and did not end well."""
    return structured_result(
        {
            "outcome": recorded.decision.outcome.value,
            "reason_code": reason,
            "detail": detail,
            "receipt_id": recorded.receipt_id,
            "policy_hash": recorded.policy_hash,
            "retry_after_ms": None,
            **more,
        },
        is_error=True,
        meta=receipt_meta(recorded.receipt_id, outcome_receipt),
    )


def fitted_result(result: Result, version: str) -> Result:
    """What a client of this revision can be given: what the SDK refused here would be lost, and the tool has run."""
    modern = version in MODERN_PROTOCOL_VERSIONS
    if modern and result.get("resultType") == _TASK:
        return result
    result = {"resultType": "complete", **result}
    structured = result.get("structuredContent")
    if not modern and structured is not None and not isinstance(structured, dict):
        result = {name: value for name, value in result.items() if name != "structuredContent"}
    if _fits(result, version):
        return result
    blocks = result.get("content")
    content = [_fitted_block(block, version) for block in blocks] if isinstance(blocks, list) else []
    return {**result, "content": content}


def listed_tools(definitions: list[dict[str, Any]], version: str) -> Result:
    """The answer to `tools/list`. What a revision cannot express of a tool is left out, and a tool that it cannot
    express at all: else one declaration would take every tool from every client of that revision.
    """
    fitted = (_fitted_definition(definition, version) for definition in definitions)
    return _listing([definition for definition in fitted if definition is not None])


def _fitted_definition(definition: dict[str, Any], version: str) -> dict[str, Any] | None:
    for member in (None, "outputSchema", "annotations", "title"):
        definition = {name: value for name, value in definition.items() if name != member}
        if _fits(_listing([definition]), version, _LIST):
            return definition
    return None


def _listing(definitions: list[dict[str, Any]]) -> Result:
    return {"resultType": "complete", "tools": definitions, "cacheScope": "private", "ttlMs": _LIST_TTL_MS}


def _fits(result: Mapping[str, Any], version: str, method: str = _CALL) -> bool:
    try:
        wire = methods.serialize_server_result(method, version, {"resultType": "complete", **result})
    except ValidationError:
        return False
    # What is no result of a tool may pass as one of another kind, without its content.
    return method != _CALL or "content" in wire


def _fitted_block(block: Any, version: str) -> Any:
    """A block that this revision does not know is named, so that nobody takes the answer for complete."""
    if _fits({"content": [block]}, version):
        return block
    kind = block.get("type") if isinstance(block, dict) else None
    return {"type": "text", "text": f"[content of type {kind} cannot be shown in MCP {version}]"}
