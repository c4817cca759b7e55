"""HTTP to one MCP server, with what it answers bounded: bytes are counted, encodings and redirects refused (GW-17.3).

Nothing is kept between two requests but connections: no cookie, no authentication, no redirect. What one caller's
request left behind would otherwise travel with another's.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Final

import httpx2

from interrogate.tool_call import EscalateReason
from legivellum.gate.outbound_transport import OutboundTransport

CALLS_AT_ONCE: Final = 32
_CONNECT_SECONDS: Final = 5.0
_CONNECT_RETRIES: Final = 2
# Shorter than the 5 s after which common servers close a connection: a request that is written to a connection while
# its server closes it counts as sent, and may not be repeated.
_KEEPALIVE_SECONDS: Final = 2.0


class UpstreamFailure(Exception):  # noqa: N818 - one is expected of every upstream, and is stored as a reason
    """No answer that can be believed. `detail` is one sentence of ours; it quotes nothing of the upstream."""

    def __init__(self, reason: EscalateReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class UpstreamRequestBody:
    """A body that knows whether it was asked for: until then the server has headers at most, and can run nothing."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.sent = False

    def __len__(self) -> int:
        return len(self._content)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.sent = True
        yield self._content


class _CountedBody(httpx2.AsyncByteStream):
    """An answer's bytes as they come in; raises UpstreamFailure when there are more than `limit`."""

    def __init__(self, stream: httpx2.AsyncByteStream, limit: int) -> None:
        self._stream = stream
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        with _translated():
            async for part in self._stream:
                total += len(part)
                if total > self._limit:
                    raise UpstreamFailure("ANSWER_TOO_LARGE", f"The MCP server sent more than {self._limit} bytes.")
                yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


@cache
def _tls() -> ssl.SSLContext:
    """One for all: loading certificates takes longer than a call."""
    return httpx2.create_ssl_context(trust_env=False)


class UpstreamTransport:
    """The connections to one target of one tenant."""

    def __init__(self) -> None:
        self._pool = OutboundTransport(
            verify=_tls(),
            trust_env=False,
            retries=_CONNECT_RETRIES,
            limits=httpx2.Limits(
                max_connections=None,
                max_keepalive_connections=CALLS_AT_ONCE,
                keepalive_expiry=_KEEPALIVE_SECONDS,
            ),
        )

    async def close(self) -> None:
        await self._pool.aclose()

    @asynccontextmanager
    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: UpstreamRequestBody, *, limit: int
    ) -> AsyncIterator[httpx2.Response]:
        """The response, its body not read yet; at most `limit` bytes of it can be. Raises UpstreamFailure."""
        with _translated():
            request = httpx2.Request(
                method,
                url,
                headers={**headers, "accept-encoding": "identity", "content-length": str(len(body))},
                content=body,
                extensions={"timeout": {"connect": _CONNECT_SECONDS}},
            )
            answer = await self._pool.handle_async_request(request)
        try:
            _require_plain(answer)
            stream = answer.stream
            assert isinstance(stream, httpx2.AsyncByteStream)
            yield httpx2.Response(
                answer.status_code, headers=answer.headers, stream=_CountedBody(stream, limit), request=request
            )
        finally:
            await answer.aclose()


def _require_plain(answer: httpx2.Response) -> None:
    if 300 <= answer.status_code < 400:
        raise UpstreamFailure("REDIRECT", "The MCP server redirects, which is not followed.")
    if answer.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise UpstreamFailure("ENCODED", "The MCP server compresses its answer although it was asked not to.")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise UpstreamFailure("UNREACHABLE", "The MCP server cannot be reached.") from error
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.LocalProtocolError) as error:
        raise UpstreamFailure("UNREACHABLE", "No request can be made of the target's URL or credential.") from error
    except (httpx2.HTTPError, OSError) as error:
        raise UpstreamFailure("BROKEN", "The connection to the MCP server broke.") from error
