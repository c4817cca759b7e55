"""One streamed request to DepotGate: the body goes up from a file, or comes down in pieces; nothing is held whole."""

from __future__ import annotations

import select
import time

from metagate_client.http_request import (
    HttpResponse,
    ResponseReader,
    UnreachableError,
    connect,
    request_head,
    unreachable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from typing import IO

    from legivellum_worker.settings import GateAccess

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 60.0
"""How long nothing may move, in either direction."""
_CONTINUE_SECONDS = 1.0
"""How long a gate may take to say that it wants the body (RFC 9110 §10.1.1): an old proxy never says it."""
PIECE = 1 << 20


def upload(
    access: GateAccess,
    target: str,
    headers: Mapping[str, str],
    *,
    source: IO[bytes],
    size: int,
    on_progress: Callable[[int], object],
) -> HttpResponse:
    """Send `size` bytes of `source` and return the answer, which may come before the last byte is sent.

    `on_progress` gets the number of bytes sent so far. Raises UnreachableError.
    """
    asked = {**headers, "Content-Length": str(size), **({"Expect": "100-continue"} if size else {})}
    try:
        connection = connect(access.address, time.monotonic() + CONNECT_SECONDS)
        try:
            connection.settimeout(IDLE_SECONDS)
            connection.sendall(request_head(access.address, "POST", access.base + target, asked))
            reader = ResponseReader(connection, time.monotonic() + IDLE_SECONDS)
            early = _refused_before_the_body(connection, reader) if size else None
            return early or _send_body(connection, reader, source, size, on_progress)
        finally:
            connection.close()
    except OSError as error:
        raise unreachable(error) from error


def _refused_before_the_body(connection: socket.socket, reader: ResponseReader) -> HttpResponse | None:
    if not _readable(connection, _CONTINUE_SECONDS):
        return None
    status, headers = reader.head()
    return None if status < 200 else HttpResponse(status, headers, reader.body(headers))


def _send_body(
    connection: socket.socket,
    reader: ResponseReader,
    source: IO[bytes],
    size: int,
    on_progress: Callable[[int], object],
) -> HttpResponse:
    sent = 0
    try:
        # An answer before the end is a refusal.
        while sent < size and not reader.has_more and not _readable(connection, 0):
            piece = source.read(min(PIECE, size - sent))
            if not piece:
                raise UnreachableError("the file became shorter while it was sent")
            connection.sendall(piece)
            sent += len(piece)
            on_progress(sent)
    except (BrokenPipeError, ConnectionResetError) as error:
        # Whoever refuses closes without reading the rest. What was said before that may still be there to be read.
        reader.deadline = time.monotonic() + 1
        try:
            return reader.response()
        except (OSError, UnreachableError):
            raise error from None
    reader.deadline = time.monotonic() + IDLE_SECONDS
    return reader.response()


def _readable(connection: socket.socket, seconds: float) -> bool:
    return bool(select.select([connection], [], [], seconds)[0])


def download(
    access: GateAccess,
    target: str,
    headers: Mapping[str, str],
    on_head: Callable[[int, Mapping[str, str]], Callable[[bytes], object] | None],
) -> HttpResponse:
    """Ask for `target`. `on_head` gets status and headers, and returns what takes each piece of the body; None where
    the body is to be in the response, as a problem is. Raises UnreachableError, also where the body breaks off.
    """
    try:
        connection = connect(access.address, time.monotonic() + CONNECT_SECONDS)
        try:
            connection.settimeout(IDLE_SECONDS)
            asked = {**headers, "Content-Length": "0"}
            connection.sendall(request_head(access.address, "GET", access.base + target, asked))
            reader = ResponseReader(connection, time.monotonic() + IDLE_SECONDS)
            status, answered = reader.final_head()
            on_piece = on_head(status, answered)
            if on_piece is None:
                return HttpResponse(status, answered, reader.body(answered))
            for piece in reader.stream(answered, IDLE_SECONDS):
                on_piece(piece)
            return HttpResponse(status, answered, b"")
        finally:
            connection.close()
    except OSError as error:
        raise unreachable(error) from error
