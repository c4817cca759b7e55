"""A TCP proxy on loopback that adds headers to every request: for clients that cannot send credentials.

It changes nothing else but `Connection`, so the gate behind it sees each request as the client wrote it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def adding_headers(url: str, headers: Mapping[str, str]) -> AsyncIterator[str]:
    """The address of a proxy of `url`."""
    upstream = urlsplit(url)
    # One request for each connection: only its head is parsed, and the rest passes unread.
    added = [f"{name}: {value}".encode() for name, value in {**headers, "Connection": "close"}.items()]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            request_line, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
            lines = [line for line in lines if not line.lower().startswith(b"connection:")]
            far_reader, far_writer = await asyncio.open_connection(upstream.hostname, upstream.port)
            far_writer.write(b"\r\n".join([request_line, *lines, *added, b"", b""]))
            body = asyncio.create_task(_pump(reader, far_writer))
            await _pump(far_reader, writer)
            body.cancel()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
