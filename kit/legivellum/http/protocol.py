"""The edge guard at the socket: uvicorn's httptools protocol with limits, clocks and one reading of every request.

uvicorn bounds neither bodies nor time, and answers what it cannot parse in the middle of somebody else's answer.
llhttp (strict) already refuses Content-Length beside Transfer-Encoding, duplicate or odd lengths, obs-fold, bare LF
and malformed chunks. What it lets pass and two HTTP implementations may read differently is refused here: trailers
(they would join the headers), codings before `chunked`, chunked HTTP/1.0, several or no Host, other versions.
Everything a refusal says is problem+json; a request whose bytes are wrong costs no task.

An offer to change the protocol (Upgrade) is declined by going on in HTTP/1.1, white space around a header's value is no
part of it (not around a coding's either), and a client of HTTP/1.0 is answered in HTTP/1.0.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import re
import sys
import termios
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from legivellum.http.declined_upgrade import ParserAfterHead
from legivellum.http.exchange import AT_EOF, LEAVES_AT_EOF
from legivellum.http.http10 import Http10Cycle, in_version_10
from legivellum.http.limits import Limits
from legivellum.http.problem_codes import Code, ProblemCode
from legivellum.http.problems import Problem
from legivellum.http.router import RouteLimits, Router
from legivellum.http.write_coalescing import CoalescedWrites

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

__all__ = ["GuardedProtocol", "guarded"]

_CHUNK_OVERHEAD = 4
"""Raw bytes a chunked body may take per byte of the limit; chunk extensions are free text that no parser counts."""

_READER_SECONDS = 10.0
"""Over so long it is measured how fast a reader takes an answer, on routes that demand a rate."""

_CODING_WITH_TAB = re.compile(rb"transfer-encoding:[^\r\n]*\t", re.IGNORECASE)
_LINES = re.compile(rb"[^\n]*\n|[^\n]+")


class _Phase(Enum):
    IDLE = "idle"
    HEAD = "head"
    BODY = "body"


class _ParsingAborted(Exception):  # noqa: N818  # unwinds the parser's C callbacks, is never seen outside
    """Raised inside a parser callback after the refusal was noted."""


def guarded(limits: Limits, router: Router | None = None) -> type[GuardedProtocol]:
    """A protocol class with these limits, and those of the router's routes, for `uvicorn.Config(http=…)`."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limits": limits, "router": router})


class GuardedProtocol(HttpToolsProtocol):
    limits: ClassVar[Limits] = Limits()
    router: ClassVar[Router | None] = None
    """Knows how large and how slow a body may be on each route; without it `limits` say so for all."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._phase = _Phase.IDLE
        self._discarding = False  # what still arrives is discarded
        self._refusal: Problem | None = None
        self._active_cycle: RequestResponseCycle | None = None
        self._raw_head_bytes = self._raw_body_bytes = self._received_bytes = self._head_bytes = 0
        self._announced_bytes = 0
        """The Content-Length of the body that is being received; 0 where it comes in chunks."""
        self._body_limit = self.limits.body_bytes
        self._body_seconds = self.limits.body_seconds
        self._postponed_head: bytes | None = None
        """The head that frames the body behind an offer to upgrade, until that body is parsed."""
        self._head_has_tab = False
        self._phase_timer: asyncio.TimerHandle | None = None
        self._timed_phase: _Phase | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    # ── connection ───────────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._responses = CoalescedWrites(transport, self.loop)
        if len(self.connections) > self.limits.connections:
            self._write_problem(Problem(Code.OVERLOADED, "Too many connections."))
            return
        self._phase_timer = self.loop.call_later(self.limits.idle_seconds, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_phase_timer()
        if self._write_timer is not None:
            self._write_timer.cancel()
        cycle = self._active_cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._discarding:
            return
        within_body = self._phase is _Phase.BODY
        if within_body:
            self._raw_body_bytes += len(data)
        else:
            self._raw_head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse_request(
                self._refusal or Problem(Code.MALFORMED_REQUEST, "This is not one unambiguous HTTP request.")
            )
            return
        if self._phase is _Phase.BODY and not within_body:
            self._raw_body_bytes = len(data)  # the head in it counts too; the limit has room for that
        if self._phase is not _Phase.BODY and self._raw_head_bytes > self.limits.header_bytes + self.limits.url_bytes:
            self._refuse_request(
                Problem(Code.HEADERS_TOO_LARGE, f"More than {self.limits.header_bytes} bytes of headers.")
            )
        elif self._raw_body_bytes > self._body_limit * _CHUNK_OVERHEAD:
            self._refuse_request(Problem(Code.MALFORMED_REQUEST, "The chunks carry more framing than body."))
        else:
            self._start_phase_timer()

    def _feed(self, data: bytes) -> None:
        """Parses. llhttp takes `chunked` with a tab behind it for an unknown coding and stops at the end of the head,
        but by RFC 9110 §5.5 it is `chunked`. To go on from there the end of that head has to be known, so a head that
        holds a tab is fed line by line.
        """
        if b"\t" in data and self._may_hold_coding_with_tab(data):
            self._head_has_tab = True
        if not self._head_has_tab:
            self._feed_part(data)
            return
        for line in _LINES.findall(data):
            phase = self._phase
            try:
                self._feed_part(line)
            except httptools.HttpParserError as error:
                # Only the check of the coding comes between the accepted end of a head and its body.
                if type(error) is not httptools.HttpParserError or phase is not _Phase.HEAD or self._refusal:
                    raise
                if self._phase is not _Phase.BODY:
                    raise
                self._parse_behind(self._framing_head(self.parser.get_http_version()))
        self._head_has_tab = self._phase is _Phase.HEAD

    def _may_hold_coding_with_tab(self, data: bytes) -> bool:
        """Within a body only the head of a pipelined request counts, which cannot come before the body's end. The bytes
        of an artifact are gigabytes, and searching them took more time than all else that is done with them.
        """
        if self._phase is not _Phase.BODY:
            return True
        if self._received_bytes + len(data) <= self._announced_bytes:
            return False
        return b"transfer-encoding:" in data.lower() and _CODING_WITH_TAB.search(data) is not None

    def _feed_part(self, data: bytes) -> None:
        """Behind an offer to upgrade httptools stops, and takes what follows for another protocol; it is not, because
        the offer is declined (RFC 9110 §7.8): a body, if one was announced, and the next request.
        """
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as pause:
                data = data[pause.args[0] :]
                if self._postponed_head is not None:
                    self._parse_behind(self._postponed_head)
            else:
                return

    def _parse_behind(self, head: bytes) -> None:
        self._postponed_head = None
        self.parser = ParserAfterHead(self, head).parser

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A client that only closed its sending half still gets the answer it waits for."""
        if self._phase is not _Phase.IDLE and not self._discarding:
            self._refuse_request(Problem(Code.MALFORMED_REQUEST, "The connection ended within a request."))
        cycle = self._active_cycle
        # An answer that has begun and goes on is a stream: who stops talking to it has left. So has who does it in a
        # long poll, whose request says so: most that leave do it in this way, and nobody may get what they wait for.
        if cycle is None or cycle.response_started or self.scheme == "https" or LEAVES_AT_EOF in cycle.scope:
            return None
        cycle.scope[AT_EOF] = partial(self._leave, cycle)  # type: ignore[literal-required]
        cycle.keep_alive = False
        return True

    def _leave(self, cycle: RequestResponseCycle) -> None:
        """Nobody waits for this answer: without one it is no failure of the application."""
        cycle.disconnected = True
        self.transport.close()

    def shutdown(self) -> None:
        """The server stops: what is being answered is answered first, and a stream ends here and whole. Who follows
        one connects again.
        """
        cycle = self._active_cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            super().shutdown()
            return
        if cycle.chunked_encoding:
            self._responses.write(b"0\r\n\r\n")
        self._responses.close()

    # ── the parser's callbacks ───────────────────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase = _Phase.HEAD
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.url_bytes:
            self._abort_parsing(Code.URL_TOO_LONG, f"The URL is longer than {self.limits.url_bytes} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        value = value.strip(b" \t")  # RFC 9110 §5.5; the parser drops what is in front only
        if self._phase is _Phase.BODY:
            self._abort_parsing(Code.MALFORMED_REQUEST, "Trailers are not accepted.")
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self.limits.header_bytes:
            self._abort_parsing(Code.HEADERS_TOO_LARGE, f"More than {self.limits.header_bytes} bytes of headers.")
        # As uvicorn's own, without the call: this runs for every header of every request.
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))
        if len(self.headers) > self.limits.header_count:
            self._abort_parsing(Code.HEADERS_TOO_LARGE, f"More than {self.limits.header_count} header fields.")

    def on_headers_complete(self) -> None:
        self._raw_head_bytes = self._raw_body_bytes = self._received_bytes = 0
        version = self.parser.get_http_version()
        has_body = self._check_framing(version)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._abort_parsing(Code.MALFORMED_REQUEST, "Tunnels are not opened here.")
            self._postponed_head = self._framing_head(version) if has_body else None
        if len(self.pipeline) >= self.limits.pipelined:
            self._abort_parsing(Code.MALFORMED_REQUEST, f"More than {self.limits.pipelined} pipelined requests.")
        old = version == "1.0"
        if old:
            self.expect_100_continue = False  # it knows no interim answers (RFC 9110 §10.1.1)
        super().on_headers_complete()
        self._phase = _Phase.BODY
        if old:
            self.cycle.__class__ = Http10Cycle  # uvicorn makes the cycle and offers no place to choose its class

    def _framing_head(self, version: str) -> bytes:
        """A head with the same framing as the one at hand, and nothing else that matters to a parser."""
        head = [
            b"%s: %s\r\n" % (name, value)
            for name, value in self.headers
            if name in {b"content-length", b"transfer-encoding"}
        ]
        close = b"" if self.parser.should_keep_alive() else b"connection: close\r\n"
        return b"POST / HTTP/%s\r\nhost: -\r\n%s%s\r\n" % (version.encode(), b"".join(head), close)

    def _check_framing(self, version: str) -> bool:
        """Refuse what another implementation might frame differently. Returns whether a body follows."""
        if version not in {"1.1", "1.0"}:
            self._abort_parsing(Code.MALFORMED_REQUEST, "Only versions 1.1 and 1.0 of HTTP are spoken here.")
        host_count = coding_count = length = 0
        for name, value in self.headers:
            if name == b"host":
                host_count += 1
            elif name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                coding_count += 1
                if value.lower() != b"chunked" or coding_count > 1 or version == "1.0":
                    self._abort_parsing(Code.MALFORMED_REQUEST, "The only transfer coding is chunked, in version 1.1.")
        if host_count > 1 or (host_count == 0 and version == "1.1"):
            self._abort_parsing(Code.MALFORMED_REQUEST, "Exactly one Host header is required.")
        self._announced_bytes = length
        if length or coding_count:
            self._set_body_limits()
        if length > self._body_limit:
            self._abort_parsing(Code.BODY_TOO_LARGE, f"The body is larger than {self._body_limit} bytes.")
        return bool(length or coding_count)

    def _set_body_limits(self) -> None:
        """Those of the route that the body is for: an upload is larger and slower than a report."""
        if self.router is None:
            return
        method = self.parser.get_method()
        by_method = self.router.exact_limits.get(self.url)
        limits = None if by_method is None else by_method.get(method)
        if limits is None:
            raw_path = self.url.split(b"?", 1)[0]
            if not raw_path.startswith(b"/"):
                raw_path = httptools.parse_url(self.url).path  # the absolute form, which a proxy sends
            limits = self.router.limits(method.decode("ascii"), raw_path)
        self._body_limit, self._body_seconds = limits.body_bytes, limits.body_seconds

    def on_body(self, body: bytes) -> None:
        self._received_bytes += len(body)
        if self._received_bytes > self._body_limit:
            self._abort_parsing(Code.BODY_TOO_LARGE, f"The body is larger than {self._body_limit} bytes.")
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._postponed_head is not None:
            return  # the parser takes the message for complete without its body, which follows
        self._phase = _Phase.IDLE
        self._raw_head_bytes = self._raw_body_bytes = 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._active_cycle = cycle
        cycle.transport = self._responses
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self._responses.flush()
        super().on_response_complete()
        cycle = self._active_cycle
        # An upload that is answered before its end: its rest is not waited for, as that of a small body is.
        if self._phase is _Phase.BODY and cycle is self.cycle and self._body_limit > self.limits.body_bytes:
            self._cancel_phase_timer()
            self._unset_keepalive_if_required()
            self._half_close()
            return
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._write_timer = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        if self.transport.get_write_buffer_size():
            self._write_timer = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    # ── slow writers and slow readers ────────────────────────────────────────────────────────────────────────────────

    def _start_phase_timer(self) -> None:
        """A phase that is still open after this packet has a clock, started once: dripping bytes do not renew it."""
        phase = _Phase.HEAD if self._phase is _Phase.IDLE and self._raw_head_bytes else self._phase
        if phase is self._timed_phase:
            return
        self._cancel_phase_timer()
        if phase is not _Phase.IDLE:
            seconds = self.limits.header_seconds if phase is _Phase.HEAD else self._body_seconds
            self._timed_phase = phase
            self._phase_timer = self.loop.call_later(seconds, self._on_phase_timeout, phase)

    def _cancel_phase_timer(self) -> None:
        if self._phase_timer is not None:
            self._phase_timer.cancel()
            self._phase_timer = None
        self._timed_phase = None

    def _on_phase_timeout(self, phase: _Phase) -> None:
        part = "headers" if phase is _Phase.HEAD else "body"
        self._refuse_request(Problem(Code.REQUEST_TIMEOUT, f"The {part} did not arrive in time."))

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is not None:
            return
        limits = self._answered_limits()
        if limits is None or not limits.reader_rate:
            self._write_timer = self.loop.call_later(self.limits.write_seconds, self.transport.abort)
        else:
            self._watch_reader(limits.reader_rate)

    def _answered_limits(self) -> RouteLimits | None:
        """Those of the route whose answer is being written."""
        if self.router is None or self._active_cycle is None:
            return None
        scope = self._active_cycle.scope
        return self.router.limits(scope["method"], scope["raw_path"])

    def _watch_reader(self, rate: int) -> None:
        self._write_timer = self.loop.call_later(_READER_SECONDS, self._check_reader, rate, self._unread_bytes())

    def _check_reader(self, rate: int, before: int) -> None:
        """Nothing is written while the socket is full, so what left the buffer is what the client took."""
        if before - self._unread_bytes() < rate * _READER_SECONDS:
            self.transport.abort()
        else:
            self._watch_reader(rate)

    def _unread_bytes(self) -> int:
        """Of what was written, here and in the kernel, which takes more only when a third of its buffer is free: with
        megabytes of it a slow reader would seem to take nothing for a minute.
        """
        kernel = bytearray(4)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, kernel)
        return self.transport.get_write_buffer_size() + int.from_bytes(kernel, sys.byteorder)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    # ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _abort_parsing(self, code: ProblemCode, detail: str) -> None:
        self._refusal = Problem(code, detail)
        raise _ParsingAborted

    def _refuse_request(self, problem: Problem) -> None:
        """Answer once, in the place of the request that is at fault, and never inside another request's answer."""
        self._discarding = True
        cycle = self._active_cycle
        if cycle is None or cycle.response_complete:
            if self._phase is _Phase.BODY and cycle is not None and cycle is self.cycle:
                self.transport.close()  # it has its answer already; only its body is still dripping in
            else:
                self._write_problem(problem)
        elif cycle is self.cycle and self._phase is _Phase.BODY and not cycle.response_started:
            cycle.disconnected = True
            cycle.message_event.set()
            self._write_problem(problem)
        else:
            self.pipeline.clear()
            cycle.keep_alive = False
            if self.transport.is_closing():
                return
            self._cancel_phase_timer()

    def _write_problem(self, problem: Problem) -> None:
        self._discarding = True
        self._cancel_phase_timer()
        self._unset_keepalive_if_required()
        body = problem.body()
        head = STATUS_LINE[problem.status]
        lines = [in_version_10(head) if self.parser.get_http_version() == "1.0" else head]
        for name, value in (*self.server_state.default_headers, *problem.all_headers(len(body))):
            lines += [name, b": ", value, b"\r\n"]
        lines += [b"connection: close\r\n\r\n", body]
        self.transport.write(b"".join(lines))
        self._half_close()

    def _half_close(self) -> None:
        """Nothing more is said, and what the client still sends is discarded for a moment: closing at once would reset
        the connection, and the client might never read its answer.
        """
        self._discarding = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._write_timer = self.loop.call_later(self.limits.linger_seconds, self.transport.abort)
        else:
            self.transport.close()
