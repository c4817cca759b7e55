"""One request and its answer, as the hot routes see them: raw headers in, bytes out, no framework between."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any, NamedTuple

import uuid_utils

from legivellum.http.problem_codes import Code, ProblemCode
from legivellum.http.problems import JSON_TYPE, SECURITY_HEADERS, Problem, refuse

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

_NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})
_BODILESS = frozenset({204, 304})
_JSON_MEDIA = re.compile(rb'application/json(?:\s*;\s*charset\s*=\s*"?utf-8"?)?\s*\Z', re.IGNORECASE)


_SANE_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/=+-]{0,127}\Z")


def choose_request_id(headers: RawHeaders) -> str:
    """The id that a request carries through every log line: the caller's own when it is sane, else a new one."""
    # The id goes into every log line, so a caller may choose it only from characters that cannot forge one.
    for name, value in headers:
        if name == b"x-request-id" and _SANE_ID.match(value):
            return value.decode()
    return uuid_utils.uuid7().hex


LEAVES_AT_EOF = "legivellum.leaves_at_eof"
"""In the scope: whether a client that closes its sending half has left."""
AT_EOF = "legivellum.at_eof"
"""In the scope, where it has closed it: what ends the connection without an answer."""


class ClientGone(Exception):  # noqa: N818  # nobody is left to read an error
    """The client went away before its request was complete."""


class Response(NamedTuple):
    status: int
    headers: RawHeaders
    body: bytes


class ResponseStream:
    """The body of an answer that lasts. `write` waits while the client's socket is full."""

    def __init__(self, send: Send, disconnected: asyncio.Task[None]) -> None:
        self._send = send
        self._disconnected = disconnected

    @property
    def client_gone(self) -> bool:
        return self._disconnected.done()

    async def write(self, part: bytes) -> None:
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def pause(self, seconds: float) -> None:
        """Waits that long, or until the client has gone."""
        await asyncio.wait({self._disconnected}, timeout=seconds)


class StreamingResponse(NamedTuple):
    """An answer whose body is written for as long as `write_body` runs. HEAD gets its head and no body."""

    status: int
    headers: RawHeaders
    write_body: Callable[[ResponseStream], Awaitable[None]]


AnyResponse = Response | StreamingResponse


class Exchange:
    """A request being answered. `deadline` is the loop's time by which its answer is due."""

    __slots__ = (
        "body_bytes",
        "caller_type",
        "callers",
        "code",
        "content",
        "deadline",
        "headers",
        "method",
        "path",
        "path_parameters",
        "principal",
        "reason",
        "receive",
        "request_id",
        "route",
        "scope",
        "seconds",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, *, request_id: str, seconds: float) -> None:
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: RawHeaders = scope["headers"]
        self.request_id = request_id
        self.route: str | None = None
        """The template of the path, once it is known: what metrics and logs may name."""
        self.path_parameters: Mapping[str, str] = _NO_PARAMETERS
        self.body_bytes = 0
        """Most bytes of the body: set by the edge to what the route takes."""
        self.content: bytes | None = None
        """The body, once it was read."""
        self.seconds = seconds
        self.deadline = asyncio.get_running_loop().time() + seconds
        self.principal: tuple[str, str] | None = None
        """(tenant, principal_key) once known: for the access log, like `code` and `reason`."""
        self.caller_type: str | None = None
        """Type of that principal: for the count of edges."""
        self.callers: frozenset[str] | None = None
        """Types of principals that the route lets in; None: all."""
        self.code: ProblemCode | None = None
        """Why it was refused."""
        self.reason: str | None = None
        """What was wrong with its credential; never any part of it."""

    def header(self, name: bytes) -> bytes | None:
        """The one value of a header; MALFORMED_REQUEST when it was sent several times."""
        values = [value for key, value in self.headers if key == name]
        if len(values) > 1:
            raise refuse(Code.MALFORMED_REQUEST, f"The header {name.decode()} was sent more than once.")
        return values[0] if values else None

    async def body(self, limit: int | None = None) -> bytes:
        """The whole body, of at most `limit` bytes (None: what the route takes).

        A client that is slow with it (the protocol bounds how slow) starts the deadline anew.
        """
        if self.content is not None:
            return self.content
        limit = self.body_bytes if limit is None else limit
        message = await self.receive()
        # Nearly every body is one message: it is taken as it is, without a list to join.
        if message["type"] == "http.request" and not message.get("more_body"):
            body: bytes = message.get("body", b"")
        else:
            body = await self._collect(message, limit)
            self.deadline = asyncio.get_running_loop().time() + self.seconds
        if len(body) > limit:
            raise too_large(limit)
        self.content = body
        return body

    async def _collect(self, message: Message, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            if message["type"] != "http.request":
                raise ClientGone
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise too_large(limit)
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)
            message = await self.receive()

    def set_deadline(self, seconds: float) -> None:
        """Another time for the answer than the gate's default."""
        self.deadline += seconds - self.seconds
        self.seconds = seconds

    async def send(self, answer: AnyResponse, send: Send) -> None:
        """The answer with this request's id, without a body where HTTP wants none (RFC 9110 §6.4.1)."""
        answer.headers.append((b"x-request-id", self.request_id.encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        if answer.status in _BODILESS or self.method == "HEAD":
            await send({"type": "http.response.body", "body": b""})
        elif isinstance(answer, Response):
            await send({"type": "http.response.body", "body": answer.body})
        else:
            await self._stream(answer, send)

    async def _stream(self, answer: StreamingResponse, send: Send) -> None:
        disconnected = asyncio.create_task(wait_for_disconnect(self.receive), name="wait for the client to leave")
        try:
            await answer.write_body(ResponseStream(send, disconnected))
            await send({"type": "http.response.body", "body": b""})
        finally:
            disconnected.cancel()

    def leave_at_eof(self) -> None:
        """From now on a client that closes its sending half has left: for answers that are waited for. Raises
        ClientGone where it has.
        """
        self.scope[LEAVES_AT_EOF] = True
        if (leave := self.scope.get(AT_EOF)) is not None:
            leave()
            raise ClientGone

    def require_json(self) -> None:
        """Refuses any media type but application/json in UTF-8 (415)."""
        media = self.header(b"content-type")
        if media is None or not _JSON_MEDIA.match(media):
            raise refuse(Code.UNSUPPORTED_MEDIA_TYPE, "Send the body as application/json.")


def too_large(limit: int) -> Exception:
    return refuse(Code.BODY_TOO_LARGE, f"The body is larger than {limit} bytes.")


async def wait_for_disconnect(receive: Receive) -> None:
    """Until the client is: for answers that last."""
    while (await receive())["type"] != "http.disconnect":
        pass


def json_response(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> Response:
    return Response(
        status,
        [(b"content-type", JSON_TYPE), (b"content-length", b"%d" % len(body)), *SECURITY_HEADERS, *headers],
        body,
    )


def problem_response(problem: Problem) -> Response:
    body = problem.body()
    return Response(problem.status, problem.all_headers(len(body)), body)
