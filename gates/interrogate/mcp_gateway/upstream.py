"""Calls of tools at the MCP servers behind the gateway: each ends in exactly one outcome, whatever the server does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

import mcp_types
import structlog
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import find_invalid_x_mcp_header, mcp_param_headers, x_mcp_header_map
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import RootModel, ValidationError

from interrogate.mcp_gateway.credentials import CredentialFiles
from interrogate.mcp_gateway.progress import ProgressRelay, ProgressSink
from interrogate.mcp_gateway.tripwire import ListedTool, Tripwire, list_tools
from interrogate.mcp_gateway.upstream_dispatcher import UpstreamDispatcher
from interrogate.mcp_gateway.upstream_revision import UpstreamRevision
from interrogate.mcp_gateway.upstream_transport import CALLS_AT_ONCE, UpstreamFailure, UpstreamTransport
from interrogate.problemata import ToolPin
from interrogate.ruleset import TargetRule
from interrogate.targets import TargetHosts
from interrogate.tool_call import AnsweredState, CallOutcome, EscalateReason
from legivellum.base.canonical_json import Uncanonical, hex_digest
from legivellum.base.json_digest import full_canonical

_HANDSHAKE_BYTES: Final = 262_144
_IDLE_SECONDS: Final = 600.0
_SESSION_END_SECONDS: Final = 5.0
# The server speaks another revision than it did, or has lost the state of its handshake.
_OTHER_REVISION: Final = frozenset({-32020, -32021, -32022, -32600})
_RESERVED_META: Final = ("io.modelcontextprotocol/", "legivellum.io/")

_log = structlog.get_logger("interrogate.upstream")


class _AnyResult(RootModel[dict[str, Any]]):
    """A result as it was sent: its `resultType` decides what it is read as."""


@dataclass(frozen=True, slots=True)
class UpstreamTarget:
    """A target of a tenant. Connections, sessions, listings and credentials are kept by all of it: no two share one."""

    tenant: UUID
    namespace: str
    rule: TargetRule


@dataclass(frozen=True, slots=True)
class UpstreamOutcome:
    """What became of one call."""

    kind: Literal["success", "tool_error", "protocol_error", "escalated"]
    duration_us: int
    attempts: int
    """How often the call was sent; 0 where it was not."""
    sent: bool
    """Whether anything of the call was written to the upstream: then the tool may have run."""
    protocol: str | None = None
    """The revision of MCP that the upstream spoke; None where none was agreed."""
    reason: EscalateReason | None = None
    """Only of an `escalated` one."""
    detail: str = ""
    """One sentence for the caller; nothing of the upstream's text."""
    result: Mapping[str, Any] | None = None
    """The tool's result as JSON (`CallToolResult`), or the error object of JSON-RPC; None of an `escalated` one."""
    code: int | None = None
    """The code of a `protocol_error`."""
    result_sha256: str | None = None
    result_bytes: int | None = None

    @property
    def recorded(self) -> CallOutcome:
        """What is written down of it."""
        return CallOutcome(
            duration_us=self.duration_us,
            attempts=self.attempts,
            state=None if self.kind == "escalated" else self.kind,
            reason=self.reason,
            code=self.code,
            result_sha256=self.result_sha256,
            result_bytes=self.result_bytes,
            protocol=self.protocol,
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a server answered to a call: a result, or an error of JSON-RPC."""

    state: AnsweredState
    value: Mapping[str, Any]
    form: bytes
    code: int | None = None

    @classmethod
    def of(cls, state: AnsweredState, value: Mapping[str, Any], code: int | None = None) -> _Answer:
        """Raises UpstreamFailure for a value without a canonical form: one with an infinite number."""
        try:
            return cls(state, value, full_canonical(value), code)
        except Uncanonical as error:
            raise UpstreamFailure("ANSWER_INVALID", "The MCP server's answer holds what JSON does not have.") from error


@dataclass(frozen=True, slots=True)
class _ToolRequest:
    """What is asked of a server."""

    pin: ToolPin
    arguments: Mapping[str, Any]
    progress: ProgressSink | None


class _CallProgress:
    """What is known of a call while it runs, also when it is cut off."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.attempts = 0
        self.sent = False
        self.protocol: str | None = None

    def escalated(self, reason: EscalateReason, detail: str) -> UpstreamOutcome:
        return UpstreamOutcome(
            "escalated", self._duration(), self.attempts, self.sent, self.protocol, reason=reason, detail=detail
        )

    def answered(self, answer: _Answer) -> UpstreamOutcome:
        return UpstreamOutcome(
            answer.state,
            self._duration(),
            self.attempts,
            self.sent,
            self.protocol,
            result=answer.value,
            code=answer.code,
            result_sha256=hex_digest(answer.form),
            result_bytes=len(answer.form),
        )

    def _duration(self) -> int:
        return round((time.perf_counter() - self.started) * 1_000_000)


class _Upstream:
    """One target of one tenant: its connections, its revision, its listing."""

    def __init__(self, target: UpstreamTarget, url: str, client: mcp_types.Implementation) -> None:
        self._rule = target.rule
        self._url = url
        self._client = client
        self._transport = UpstreamTransport()
        self._revision = UpstreamRevision()
        self._slots = asyncio.Semaphore(CALLS_AT_ONCE)
        self._ending: set[asyncio.Task[None]] = set()
        self.tripwire = Tripwire()
        self.users = 0
        self.used_at = time.monotonic()

    async def call(self, request: _ToolRequest, bearer: str | None, state: _CallProgress) -> _Answer:
        """Raises UpstreamFailure."""
        async with self._slots:
            await self.tripwire.require(request.pin, lambda: self.list_tools(bearer))
            try:
                return await self._attempt(request, bearer, state)
            except UpstreamFailure as failure:
                # What was never written can be sent again; what was written only where somebody declared it harmless.
                if failure.reason != "BROKEN" or (state.sent and not request.pin.idempotent):
                    raise
            return await self._attempt(request, bearer, state)

    async def list_tools(self, bearer: str | None) -> Sequence[ListedTool]:
        """Raises UpstreamFailure."""
        async with self._session(bearer) as (session, dispatcher):
            await self._revision.greet(session, dispatcher)
            return await list_tools(session, dispatcher)

    async def close(self) -> None:
        await self.tripwire.close()
        for ending in self._ending:
            ending.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._transport.close()

    async def _attempt(self, request: _ToolRequest, bearer: str | None, state: _CallProgress) -> _Answer:
        pin, arguments = request.pin, request.arguments
        async with self._session(bearer) as (session, dispatcher):
            state.protocol = await self._revision.greet(session, dispatcher)
            dispatcher.answer_bytes = self._rule.tool_result_bytes
            if state.protocol in MODERN_PROTOCOL_VERSIONS:
                dispatcher.param_headers = _param_headers(pin, arguments)
            params = mcp_types.CallToolRequestParams(name=pin.name, arguments=dict(arguments))
            state.attempts += 1
            dispatcher.sent = False
            try:
                raw = await session.send_request(
                    mcp_types.CallToolRequest(params=params),
                    _AnyResult,
                    progress_callback=None if request.progress is None else ProgressRelay(request.progress),
                )
                return _read_result(raw.root)
            except MCPError as error:
                return self._protocol_error(error)
            except ValidationError as error:
                raise UpstreamFailure("ANSWER_INVALID", "The MCP server's result is not valid.") from error
            except UpstreamFailure as failure:
                if failure.reason in {"HTTP_ERROR", "ANSWER_INVALID"}:
                    self._revision.forget()
                raise
            finally:
                state.sent = state.sent or dispatcher.sent

    def _protocol_error(self, error: MCPError) -> _Answer:
        if error.code in _OTHER_REVISION:
            self._revision.forget()
        value = {"code": error.code, "message": error.message}
        if error.data is not None:
            value["data"] = error.data
        return _Answer.of("protocol_error", value, error.code)

    @asynccontextmanager
    async def _session(self, bearer: str | None) -> AsyncIterator[tuple[ClientSession, UpstreamDispatcher]]:
        headers = {"user-agent": f"{self._client.name}/{self._client.version}"}
        if bearer is not None:
            headers["authorization"] = f"Bearer {bearer}"
        dispatcher = UpstreamDispatcher(self._transport, self._url, headers=headers, answer_bytes=_HANDSHAKE_BYTES)
        try:
            yield ClientSession(dispatcher=dispatcher, client_info=self._client), dispatcher
        finally:
            if dispatcher.session_id is not None:
                self._end(dispatcher)

    def _end(self, dispatcher: UpstreamDispatcher) -> None:
        """End the session beside the answer: nobody waits for it, and a server may not support it."""
        ending = asyncio.create_task(_end_session(dispatcher), name="end a session of an MCP server")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


class Upstreams:
    """The clients of all upstreams of this process."""

    def __init__(self, hosts: TargetHosts, credentials: CredentialFiles, *, version: str) -> None:
        self._hosts = hosts
        self._credentials = credentials
        self._client = mcp_types.Implementation(name="interrogate", version=version)
        self._upstreams: dict[UpstreamTarget, _Upstream] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def call(
        self,
        target: UpstreamTarget,
        pin: ToolPin,
        arguments: Mapping[str, Any],
        *,
        bearer: str | None,
        seconds: float,
        progress: ProgressSink | None = None,
    ) -> UpstreamOutcome:
        """Check the pin against the upstream's listing, then call the tool. Never raises for what an upstream does.

        `bearer`: the token this gate made for the target (IG-10), used where it declares no `secretRef`; never the
        caller's credential. `seconds` is for everything, the listing too. Cancelling it abandons the call: shield it
        where it must run to its end (GW-14).
        """
        outcome = await self._called(target, _ToolRequest(pin, arguments, progress), bearer, seconds)
        if outcome.reason == "TOOL_CHANGED":
            _log.warning("tool_changed", namespace=target.namespace, target=target.rule.name, tool=pin.name)
        return outcome

    async def listing(self, target: UpstreamTarget, *, bearer: str | None, seconds: float) -> Sequence[ListedTool]:
        """What the upstream lists now, asked anew. Raises UpstreamFailure."""
        try:
            async with asyncio.timeout(seconds), self._using(target) as upstream:
                token = self._bearer(target, bearer)
                return await upstream.tripwire.refresh(lambda: upstream.list_tools(token))
        except TimeoutError as error:
            raise UpstreamFailure("TIMEOUT", "The MCP server did not answer in time.") from error

    def is_changed(self, target: UpstreamTarget, pin: ToolPin) -> bool:
        """Whether the last listing of the upstream, if there is one, does not hold the tool as it is declared."""
        upstream = self._upstreams.get(target)
        return upstream is not None and upstream.tripwire.is_changed(pin)

    async def close(self) -> None:
        """Close every connection. Calls that still run end as BROKEN."""
        upstreams, self._upstreams = list(self._upstreams.values()), {}
        await asyncio.gather(*(upstream.close() for upstream in upstreams), *self._closing)

    async def _called(
        self, target: UpstreamTarget, request: _ToolRequest, token: str | None, seconds: float
    ) -> UpstreamOutcome:
        state = _CallProgress()
        try:
            async with asyncio.timeout(seconds), self._using(target) as upstream:
                return state.answered(await upstream.call(request, self._bearer(target, token), state))
        except TimeoutError:
            return state.escalated("TIMEOUT", "The MCP server did not answer in time.")
        except UpstreamFailure as failure:
            return state.escalated(failure.reason, failure.detail)

    def _bearer(self, target: UpstreamTarget, token: str | None) -> str | None:
        """Raises UpstreamFailure where a secret is declared and is not there: the token is no substitute for it."""
        if target.rule.secret_ref is None:
            return token
        return self._credentials.bearer(target.namespace, target.rule.secret_ref)

    @asynccontextmanager
    async def _using(self, target: UpstreamTarget) -> AsyncIterator[_Upstream]:
        """The target's client, kept from being closed as idle meanwhile. Raises UpstreamFailure."""
        upstream = self._upstreams.get(target) or self._opened(target)
        upstream.users += 1
        try:
            yield upstream
        finally:
            upstream.users -= 1
            upstream.used_at = time.monotonic()

    def _opened(self, target: UpstreamTarget) -> _Upstream:
        url = self._hosts.resolve(target.rule.url, target.namespace)
        if url is None:
            raise UpstreamFailure("UNREACHABLE", "The host of the target is not one that may be contacted.")
        self._close_idle()
        upstream = self._upstreams[target] = _Upstream(target, url, self._client)
        return upstream

    def _close_idle(self) -> None:
        """A target that was changed is another target: the client of the old one is not asked for again."""
        before = time.monotonic() - _IDLE_SECONDS
        for target, upstream in list(self._upstreams.items()):
            if not upstream.users and upstream.used_at < before:
                del self._upstreams[target]
                closing = asyncio.create_task(upstream.close(), name="close the client of an MCP server")
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)


def _param_headers(pin: ToolPin, arguments: Mapping[str, Any]) -> Mapping[str, str]:
    """`Mcp-Param-*`, made from the declared schema. A schema that marks them wrongly marks none (2026-07-28)."""
    schema = dict(pin.input_schema)
    if find_invalid_x_mcp_header(schema) is not None:
        return {}
    return mcp_param_headers(x_mcp_header_map(schema), arguments)


def _read_result(raw: Mapping[str, Any]) -> _Answer:
    """Members that the protocol does not know are dropped. Raises UpstreamFailure, ValidationError."""
    kind = raw.get("resultType", "complete")
    if kind == "input_required":
        raise UpstreamFailure("INPUT_REQUIRED", "The tool asks for more input, which the gateway does not relay.")
    if kind != "complete":
        raise UpstreamFailure("ANSWER_INVALID", "The MCP server answered with another kind of result than was asked.")
    read = mcp_types.CallToolResult.model_validate(raw, by_name=False)
    result = read.model_dump(by_alias=True, mode="json", exclude_none=True, exclude={"result_type"})
    if "structuredContent" in raw:
        result["structuredContent"] = raw["structuredContent"]  # null, too, is a result
    meta = {name: value for name, value in result.pop("_meta", {}).items() if not name.startswith(_RESERVED_META)}
    if meta:
        result["_meta"] = meta
    return _Answer.of("tool_error" if read.is_error else "success", result)


async def _end_session(dispatcher: UpstreamDispatcher) -> None:
    with contextlib.suppress(UpstreamFailure, TimeoutError):
        async with asyncio.timeout(_SESSION_END_SECONDS):
            await dispatcher.end_session()
