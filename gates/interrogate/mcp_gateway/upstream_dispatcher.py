"""JSON-RPC to one MCP server over HTTP, below the SDK's `ClientSession`: one object for one call.

The SDK's own transport answers through streams and tasks that all calls of a session share: a connection that breaks
cancels every one of them (GW-17.1), a stream is opened again by itself, and what went wrong is logged and not raised.
Here a request is a plain `await`: what goes wrong is raised where it is waited for, as UpstreamFailure.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, TypeGuard

import anyio
import anyio.abc
import httpx2
import pydantic_core
from mcp.shared.dispatcher import CallOptions, OnNotify, OnNotifyIntercept, OnRequest, ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER

from interrogate.mcp_gateway.upstream_transport import UpstreamFailure, UpstreamRequestBody, UpstreamTransport
from legivellum.http import strict_json

_SESSION_HEADER: Final = "mcp-session-id"
# An answer of a gateway's tool cannot be asked for while the call runs: what a server asks of its client is refused.
_METHOD_NOT_FOUND: Final = {"code": -32601, "message": "The client offers nothing that may be asked for."}
_NOTIFICATION_BYTES: Final = 1_048_576
"""What a stream may hold beside the answer itself."""
_ERROR_BYTES: Final = 65_536
_SERVER_REQUESTS: Final = 16
_LARGEST_PROGRESS: Final = 1e300
_SMALLEST_CODE, _LARGEST_CODE = -(2**31), 2**31 - 1


class UpstreamDispatcher:
    """`mcp.shared.dispatcher.Dispatcher`, as far as a session that only sends requests needs it."""

    def __init__(
        self, transport: UpstreamTransport, url: str, *, headers: Mapping[str, str], answer_bytes: int
    ) -> None:
        self._transport = transport
        self._url = url
        self._headers = {
            **headers,
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
        }
        self._stamped: dict[str, str] = {}
        self._request_id = 0
        self.answer_bytes = answer_bytes
        """How large the next answer may be."""
        self.received_bytes = 0
        """The size of the last answer."""
        self.session_id: str | None = None
        self.sent = False
        """Whether the last request was written, or may have been."""
        self.param_headers: Mapping[str, str] = {}
        """`Mcp-Param-*` of the next requests: a session that never listed cannot make them (GW-17.5)."""

    async def run(
        self,
        on_request: OnRequest,  # noqa: ARG002 - the protocol of the SDK, as the next two
        on_notify: OnNotify,  # noqa: ARG002
        on_notify_intercept: OnNotifyIntercept | None = None,  # noqa: ARG002
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Nothing to run: each request reads its own answer."""
        task_status.started()

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """The `result` of the answer. Raises MCPError for a JSON-RPC error, UpstreamFailure for everything else."""
        self._request_id += 1
        options = opts or {}
        on_progress = options.get("on_progress")
        message = _message_of(method, params, self._request_id)
        if on_progress is not None:
            message["params"] = _with_progress_token(params or {}, self._request_id)
        self._stamped = options.get("headers", {})
        body = UpstreamRequestBody(strict_json.encode(message))
        self.sent = False
        try:
            headers = {**self._session_headers(), **self._stamped, **self.param_headers}
            limit = _NOTIFICATION_BYTES + self.answer_bytes
            async with self._transport.request("POST", self._url, headers, body, limit=limit) as response:
                if method == "initialize":
                    self.session_id = response.headers.get(_SESSION_HEADER)
                return await self._answer(response, self._request_id, on_progress)
        finally:
            self.sent = body.sent

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Raises UpstreamFailure where the server does not take it."""
        self._stamped = (opts or {}).get("headers", {})
        await self._tell(_message_of(method, params))

    async def end_session(self) -> None:
        """Tell the server that the session is over. Raises UpstreamFailure; a server need not support it."""
        async with self._transport.request(
            "DELETE", self._url, self._session_headers(), UpstreamRequestBody(b""), limit=_ERROR_BYTES
        ):
            pass

    def _session_headers(self) -> dict[str, str]:
        """Of a frame that is no request: the session's, and of what was stamped on its last request the revision."""
        session = {} if self.session_id is None else {_SESSION_HEADER: self.session_id}
        stamped = {name: value for name, value in self._stamped.items() if name == MCP_PROTOCOL_VERSION_HEADER}
        return {**self._headers, **session, **stamped}

    async def _tell(self, message: Mapping[str, Any]) -> None:
        body = UpstreamRequestBody(strict_json.encode(message))
        async with self._transport.request(
            "POST", self._url, self._session_headers(), body, limit=_ERROR_BYTES
        ) as response:
            if response.status_code >= 400:
                raise UpstreamFailure("HTTP_ERROR", f"The MCP server answered {response.status_code}.")

    async def _answer(
        self, response: httpx2.Response, request_id: int, on_progress: ProgressFnT | None
    ) -> dict[str, Any]:
        media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status_code >= 400:
            raise await _refusal(response, media, request_id)
        if response.status_code == 202:
            raise UpstreamFailure("ANSWER_INVALID", "The MCP server answered a request with 202 and nothing else.")
        if media == "application/json":
            raw = await _read(response, self.answer_bytes)
            self.received_bytes = len(raw)
            return _result(_parsed(raw), request_id)
        if media == "text/event-stream":
            return await self._streamed(response, request_id, on_progress)
        raise UpstreamFailure("ANSWER_INVALID", "The MCP server answered with neither JSON nor an event stream.")

    async def _streamed(
        self, response: httpx2.Response, request_id: int, on_progress: ProgressFnT | None
    ) -> dict[str, Any]:
        questions = 0
        async for size, message in _events(response, self.answer_bytes):
            if "method" not in message:
                self.received_bytes = size
                return _result(message, request_id)
            if "id" in message:
                questions += 1
                if questions > _SERVER_REQUESTS:
                    raise UpstreamFailure("ANSWER_INVALID", "The MCP server asks its client without an end.")
                await self._refuse_question(message)
            elif on_progress is not None and message["method"] == "notifications/progress":
                await _relay(message.get("params"), request_id, on_progress)
        raise UpstreamFailure("BROKEN", "The MCP server ended its event stream without an answer.")

    async def _refuse_question(self, message: Mapping[str, Any]) -> None:
        """A ping is answered; sampling, elicitation and roots were not offered to the server (GW-11)."""
        answer = {"result": {}} if message["method"] == "ping" else {"error": _METHOD_NOT_FOUND}
        # A server that does not take the answer may still answer the call.
        with contextlib.suppress(UpstreamFailure):
            await self._tell({"jsonrpc": "2.0", "id": message["id"], **answer})


def _message_of(method: str, params: Mapping[str, Any] | None, request_id: int | None = None) -> dict[str, Any]:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if request_id is not None:
        message["id"] = request_id
    if params is not None:
        message["params"] = dict(params)
    return message


def _with_progress_token(params: Mapping[str, Any], request_id: int) -> dict[str, Any]:
    return {**params, "_meta": {**params.get("_meta", {}), "progressToken": request_id}}


async def _relay(params: Any, request_id: int, on_progress: ProgressFnT) -> None:
    """Hand on a notification of progress of this request; whatever is none is ignored, as the protocol has it."""
    if not isinstance(params, dict) or params.get("progressToken") not in {request_id, str(request_id)}:
        return
    progress, total, text = params.get("progress"), params.get("total"), params.get("message")
    if _is_number(progress) and (total is None or _is_number(total)):
        await on_progress(progress, total, text if isinstance(text, str) else None)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST_PROGRESS


async def _read(response: httpx2.Response, limit: int) -> bytes:
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > limit:
            raise UpstreamFailure("ANSWER_TOO_LARGE", f"The MCP server's answer has more than {limit} bytes.")
    return bytes(body)


async def _events(response: httpx2.Response, limit: int) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """The messages of an event stream, each behind its size.

    Raises UpstreamFailure where one is larger than `limit`, or is no message.
    """
    try:
        async for event in httpx2.EventSource(response, max_event_size=limit):
            # Others mark positions in the stream, which is never opened a second time.
            if event.event == "message" and event.data:
                raw = event.data.encode()
                yield len(raw), _message(_parsed(raw))
    except httpx2.SSEError as error:
        raise UpstreamFailure("ANSWER_TOO_LARGE", f"An event of the MCP server has more than {limit} bytes.") from error


def _parsed(raw: bytes) -> Any:
    """JSON of bounded depth and with bounded numbers: the parser refuses more than 200 levels and 4,300 digits."""
    try:
        return pydantic_core.from_json(raw, allow_inf_nan=False, cache_strings=False)
    except ValueError as error:
        raise UpstreamFailure("ANSWER_INVALID", "The MCP server's answer is not JSON, or nests too deeply.") from error


def _message(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise UpstreamFailure("ANSWER_INVALID", "The MCP server's answer is no JSON-RPC message.")
    return value


def _result(value: Any, request_id: int) -> dict[str, Any]:
    """The result in a response to this request. Raises MCPError, UpstreamFailure."""
    message = _message(value)
    if "error" in message:
        raise _error(message, request_id)
    result = message.get("result")
    # `True == 1` in Python: an id must be of the type that was sent, too.
    if message.get("id") != request_id or type(message.get("id")) is not int or not isinstance(result, dict):
        raise UpstreamFailure("ANSWER_INVALID", "The MCP server's answer is no response to the request.")
    return result


def _error(message: Mapping[str, Any], request_id: int) -> MCPError | UpstreamFailure:
    """Its id may be null: a server may refuse what it has not read to the id."""
    error = message["error"]
    if message.get("id") in {request_id, None} and isinstance(error, dict):
        code, text = error.get("code"), error.get("message")
        if type(code) is int and _SMALLEST_CODE <= code <= _LARGEST_CODE and isinstance(text, str):
            return MCPError(code, text, error.get("data"))
    return UpstreamFailure("ANSWER_INVALID", "The MCP server's answer is no error of JSON-RPC.")


async def _refusal(response: httpx2.Response, media: str, request_id: int) -> MCPError | UpstreamFailure:
    """What an HTTP error stands for: the JSON-RPC error in its body, where there is one."""
    failure = UpstreamFailure("HTTP_ERROR", f"The MCP server answered {response.status_code}.")
    if media != "application/json":
        return failure
    try:
        message = _parsed(await _read(response, _ERROR_BYTES))
    except UpstreamFailure:
        return failure
    if not isinstance(message, dict) or "error" not in message:
        return failure
    error = _error(message, request_id)
    return error if isinstance(error, MCPError) else failure
