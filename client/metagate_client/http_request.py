"""One HTTP/1.1 request and its answer, before a deadline, over one connection that is closed afterwards.

A few lines instead of http.client: they start in a third of the time, and a deadline here is one, also against a
server that sends a byte now and then, or a resolver that does not answer.
"""

from __future__ import annotations

import re
import select
import socket
import time

from metagate_client.errors import MisconfiguredError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

LARGEST_HEAD = 64 * 1024
LARGEST_BODY = 4 * 1024 * 1024

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: |$)")
_HEX = re.compile(rb"[0-9a-fA-F]{1,8}")


class UnreachableError(Exception):
    """No usable answer. The text says why, in words for a person."""


class BrokenAnswerError(UnreachableError):
    """What answered does not speak the protocol, or says more than is read."""


class HttpResponse:
    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class ServerAddress:
    """Where to connect to. With `tls` the authorities in `ca_file`, or else the system's, must vouch for it."""

    __slots__ = ("ca_file", "host", "port", "tls")

    def __init__(self, host: str, port: int, *, tls: bool, ca_file: str | None) -> None:
        self.host, self.port, self.tls, self.ca_file = host, port, tls, ca_file


def send_request(
    address: ServerAddress,
    target: str,
    *,
    headers: dict[str, str],
    body: bytes,
    deadline: float,
    method: str = "POST",
    on_connected: Callable[[socket.socket], object] | None = None,
    on_waiting: Callable[[], object] | None = None,
    largest_body: int = LARGEST_BODY,
    is_cancelled: Callable[[], bool] | None = None,
) -> HttpResponse:
    """Send one request and return the answer. `deadline` in seconds of `time.monotonic`. Raises UnreachableError.

    `on_connected` gets the connection before the request is sent, so that another thread can end the wait.
    `on_waiting` is called at least once a second until the first byte of the answer is read, `is_cancelled` once a
    second until the last: also a server that sends a byte now and then holds nobody who was told to stop.
    """
    try:
        connection = connect(address, deadline)
        try:
            if on_connected is not None:
                on_connected(connection)
            connection.settimeout(seconds_left(deadline))
            head = request_head(address, method, target, {**headers, "Content-Length": str(len(body))})
            connection.sendall(head + body)
            return ResponseReader(
                connection, deadline, on_waiting, largest_body=largest_body, is_cancelled=is_cancelled
            ).response()
        finally:
            connection.close()
    except OSError as error:
        raise unreachable(error) from error


def request_head(address: ServerAddress, method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """The bytes before the body of a request."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    usual = 443 if address.tls else 80
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {host}" if address.port == usual else f"Host: {host}:{address.port}",
        *(f"{name}: {value}" for name, value in headers.items()),
        "Connection: close",
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1")


def connect(address: ServerAddress, deadline: float) -> socket.socket:
    """A connection, with TLS where the address says so. Raises OSError, UnreachableError for an unknown name."""
    context = _context(address.ca_file) if address.tls else None
    last_error: OSError = OSError("its name has no address")
    for family, kind, protocol, _, where in _resolved(address, deadline):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(seconds_left(deadline))
            connection.connect(where)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is None:
                return connection
            return context.wrap_socket(connection, server_hostname=address.host)
        except OSError as error:
            connection.close()
            last_error = error
    raise last_error


def _context(ca_file: str | None) -> ssl.SSLContext:
    import ssl

    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise MisconfiguredError(f"the CA file {ca_file} cannot be used: {error.strerror or error}") from error


def _resolved(address: ServerAddress, deadline: float) -> list[Any]:
    try:
        return socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    # The system's resolver has no deadline of its own (5 s for each server that is silent), so it gets a thread that
    # is left behind when it takes too long.
    import threading

    result: list[Any] = []

    def resolve() -> None:
        try:
            result.append(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=resolve, name="resolve", daemon=True)
    thread.start()
    thread.join(seconds_left(deadline))
    if not result:
        raise UnreachableError(f"the name {address.host} was not resolved in time")
    if isinstance(result[0], OSError):
        raise UnreachableError(f"the name {address.host} cannot be resolved") from result[0]
    addresses: list[Any] = result[0]
    return addresses


def seconds_left(deadline: float) -> float:
    """Raises TimeoutError when the deadline has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def unreachable(error: OSError) -> UnreachableError:
    """What a person is told about a connection that failed."""
    return UnreachableError("no answer in time" if isinstance(error, TimeoutError) else _reason(error))


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if type(error).__name__ == "SSLCertVerificationError":
        return f"its certificate is not trusted ({getattr(error, 'verify_message', error)}); set METAGATE_CA_FILE"
    if type(error).__module__ == "ssl":
        return "the TLS connection failed; check whether the address should be http or https"
    return (error.strerror or str(error) or type(error).__name__).lower()


class ResponseReader:
    """Reads an answer, never past the deadline and never more than the bounds."""

    def __init__(
        self,
        connection: socket.socket,
        deadline: float,
        on_waiting: Callable[[], object] | None = None,
        *,
        largest_body: int = LARGEST_BODY,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self._connection = connection
        self.deadline = deadline
        self._on_waiting = on_waiting
        self._largest_body, self._is_cancelled = largest_body, is_cancelled
        self._buffer = b""

    @property
    def has_more(self) -> bool:
        """Whether bytes were read that belong to what comes next."""
        return bool(self._buffer)

    def response(self) -> HttpResponse:
        status, headers = self.final_head()
        if status in {204, 304}:
            return HttpResponse(status, headers, b"")
        return HttpResponse(status, headers, self.body(headers))

    def final_head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the answer, behind all interim ones."""
        while True:
            status, headers = self.head()
            if status >= 200:
                return status, headers

    def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers that come next, also of an interim answer."""
        raw = self._until(b"\r\n\r\n", LARGEST_HEAD)
        first, *lines = raw.split(b"\r\n")
        match = _STATUS.match(first)
        if match is None:
            raise BrokenAnswerError("what answers there does not speak HTTP")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon:
                raise BrokenAnswerError("the answer's headers are broken")
            headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()
        return int(match[1]), headers

    def body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._chunks()
        length = headers.get("content-length")
        if length is None:
            return self._rest()
        if not length.isdigit() or int(length) > self._largest_body:
            raise BrokenAnswerError("the answer is larger than any packet")
        return self._exactly(int(length))

    def stream(self, headers: dict[str, str], idle_seconds: float) -> Iterator[bytes]:
        """The body in the pieces in which it arrives, however large it is. Each may take `idle_seconds`.

        Raises UnreachableError where it ends before the length that the headers name.
        """
        chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        left = 0 if chunked else int(headers.get("content-length", "0") or 0)
        while True:
            self.deadline = time.monotonic() + idle_seconds
            if chunked and not left:
                size = _HEX.match(self._until(b"\r\n", 1024))
                left = int(size[0], 16) if size is not None else 0
                if not left:
                    return
            if not left:
                return
            if not self._buffer and not self._more():
                raise UnreachableError("the answer broke off")
            piece, self._buffer = self._buffer[:left], self._buffer[left:]
            left -= len(piece)
            yield piece
            if chunked and not left:
                self._exactly(2)

    def _chunks(self) -> bytes:
        body = b""
        while True:
            size = _HEX.match(self._until(b"\r\n", 1024))
            if size is None or len(body) + int(size[0], 16) > self._largest_body:
                raise BrokenAnswerError("the answer is broken")
            if int(size[0], 16) == 0:
                return body
            body += self._exactly(int(size[0], 16))
            self._exactly(2)

    def _rest(self) -> bytes:
        while self._more():
            if len(self._buffer) > self._largest_body:
                raise BrokenAnswerError("the answer is larger than any packet")
        return self._buffer

    def _until(self, mark: bytes, largest: int) -> bytes:
        while (at := self._buffer.find(mark)) < 0:
            if len(self._buffer) > largest or not self._more():
                raise UnreachableError("the answer broke off")
        part, self._buffer = self._buffer[:at], self._buffer[at + len(mark) :]
        return part

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not self._more():
                raise UnreachableError("the answer broke off")
        part, self._buffer = self._buffer[:size], self._buffer[size:]
        return part

    def _more(self) -> bool:
        while self._on_waiting is not None and not self._buffer:
            self._on_waiting()
            if select.select([self._connection], [], [], min(1.0, seconds_left(self.deadline)))[0]:
                break
        chunk = self._received()
        self._buffer += chunk
        return bool(chunk)

    def _received(self) -> bytes:
        if self._is_cancelled is None:
            self._connection.settimeout(seconds_left(self.deadline))
            return self._connection.recv(65_536)
        while not self._is_cancelled():
            # No `select`: bytes that TLS has read already would not be seen by it.
            self._connection.settimeout(min(1.0, seconds_left(self.deadline)))
            try:
                return self._connection.recv(65_536)
            except TimeoutError:
                continue
        raise UnreachableError("the request was cancelled")
