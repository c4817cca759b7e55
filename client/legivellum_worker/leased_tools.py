"""Tools of one MCP server, InterroGate's `/mcp`, under the lease: it lists what the lease exposes, judges and records
every call (CG-14). This process holds no credential of a tool.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from legivellum_worker.gate_client import GateUnavailableError, refusal
from legivellum_worker.models import RequestedTool
from legivellum_worker.settings import GateAccess
from metagate_client.http_request import UnreachableError, send_request

if TYPE_CHECKING:
    from legivellum_worker.leased_work import LeasedWork

_VERSION: Final = "2026-07-28"
_GATEWAY_PREFIX: Final = "problemata."
"""Tools of the gateway itself, which ask for work of others: nothing that a lease exposes."""
_LARGEST_RESULT: Final = 64 * 1024
_CALL_SECONDS: Final = 60.0
_LIST_SECONDS: Final = 10.0
_MOST_PAGES: Final = 8
_NO_META: Final[Mapping[str, Any]] = {}


class LeasedTools:
    """The tools of one job. `access`: InterroGate; None: there are none."""

    def __init__(self, access: GateAccess | None, work: LeasedWork) -> None:
        self._access, self._work = access, work
        self._numbers = itertools.count(1)
        self._names: dict[str, str] = {}

    def definitions(self) -> list[dict[str, Any]]:
        """As functions of chat completions, whose names have no dots. Raises GateError, GateUnavailableError."""
        if self._access is None or not self._work.authority.get("exposeTools"):
            return []
        tools: dict[str, dict[str, Any]] = {}
        cursor: Any = None
        for _ in range(_MOST_PAGES):
            page = self._request("tools/list", {} if cursor is None else {"cursor": cursor}, None, _LIST_SECONDS)
            result = page.get("result") or {}
            for tool in result.get("tools") or ():
                name = str(tool["name"])
                if not name.startswith(_GATEWAY_PREFIX):
                    tools.setdefault(name.replace(".", "__"), tool)
            cursor = result.get("nextCursor")
            if cursor is None:
                break
        self._names = {shown: str(tool["name"]) for shown, tool in tools.items()}
        return [
            {"name": shown, "description": str(tool.get("description") or ""), "parameters": tool["inputSchema"]}
            for shown, tool in tools.items()
        ]

    def name_of(self, call: RequestedTool) -> str | None:
        """The tool's own name; None where it was not listed: such a call is not sent."""
        return self._names.get(call.name)

    def result(self, name: str, call: RequestedTool, seconds: float) -> str:
        """What the model is told of the call. Raises GateError, GateUnavailableError."""
        try:
            arguments = json.loads(call.arguments)
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            return "The arguments are no JSON object."
        key = f"{self._work.task_id}:{self._work.number}:{next(self._numbers)}"
        meta = {"legivellum.io/idempotency-key": key}
        answer = self._request(
            "tools/call", {"name": name, "arguments": arguments}, name, min(seconds, _CALL_SECONDS), meta
        )
        if "result" not in answer:
            return f"The call was refused: {json.dumps(answer.get('error'))}"[:_LARGEST_RESULT]
        result = answer["result"]
        texts = [str(block.get("text", f"[{block.get('type')}]")) for block in result.get("content") or ()]
        text = "\n".join(texts) or json.dumps(result.get("structuredContent"), ensure_ascii=False)
        return text.encode("utf-8", "replace")[:_LARGEST_RESULT].decode(errors="ignore")

    def _request(
        self,
        method: str,
        params: Mapping[str, Any],
        name: str | None,
        seconds: float,
        meta: Mapping[str, Any] = _NO_META,
    ) -> dict[str, Any]:
        access = self._access
        assert access is not None
        envelope = {
            "io.modelcontextprotocol/protocolVersion": _VERSION, "io.modelcontextprotocol/clientCapabilities": {},
            **meta,
        }  # fmt: skip
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": envelope}}
        headers = {
            "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
            "User-Agent": "cognigate", "MCP-Protocol-Version": _VERSION, "MCP-Method": method,
            **({} if name is None else {"MCP-Name": name}), **self._work.headers_for("interrogate"),
        }  # fmt: skip
        try:
            response = send_request(
                access.address, f"{access.base}/mcp", headers=headers, body=json.dumps(message).encode(),
                deadline=time.monotonic() + max(0.0, seconds), is_cancelled=self._work.cancelled.is_set,
            )  # fmt: skip
        except UnreachableError as error:
            raise GateUnavailableError(access.gate, str(error)) from error
        answer = _message(response.headers.get("content-type", ""), response.body)
        if answer is not None and "jsonrpc" in answer:
            return answer  # also with a status of its own: arguments that a tool does not take are 400
        if not 200 <= response.status < 300:
            raise refusal(access, response)
        raise GateUnavailableError(access.gate, f"what answers at {access.url} does not speak MCP")


def _message(media_type: str, body: bytes) -> dict[str, Any] | None:
    """The JSON-RPC response, as JSON or as the last event of a stream."""
    try:
        if media_type.startswith("text/event-stream"):
            body = [line for line in body.splitlines() if line.startswith(b"data:")][-1].removeprefix(b"data:")
        answer = json.loads(body)
    except (ValueError, LookupError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None
