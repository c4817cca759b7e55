"""Handing an admitted request to its targets: after the commit, while the caller waits, and once (IG-09).

An outbox would schedule and would keep payloads at rest; here the payload goes on as it was sent, byte for byte, and
nothing of it stays. Only a connect that failed is repeated: nothing was sent then. Whatever else went wrong, the target
may have acted, and that is for somebody to look at: it is escalated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import quote

import httpx2

from legivellum.gate.outbound_transport import OutboundTransport
from legivellum.http import strict_json
from legivellum.http.problems import RequestRefused

LARGEST_ANSWER: Final = 65_536
_CONNECT_RETRIES: Final = 2
# Header values are ASCII: names that are not, and the percent sign itself, are percent-encoded.
_SAFE_IN_HEADER: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

FailureCause = Literal["UNREACHABLE", "TIMEOUT", "REFUSED"]


@dataclass(frozen=True, slots=True)
class ForwardRequest:
    """One target of one admission. `url` is None where its host is not allowed: then nothing is contacted."""

    target: str
    url: str | None
    headers: Mapping[str, str]
    seconds: float
    answer_bytes: int = LARGEST_ANSWER


@dataclass(frozen=True, slots=True)
class ForwardResult:
    """What became of it. `reason` and `status` are None where they do not apply."""

    target: str
    state: Literal["delivered", "failed", "pending"]
    status: int | None = None
    reason: FailureCause | None = None
    answer: Any = None


def header_value(text: str) -> str:
    return quote(text, safe=_SAFE_IN_HEADER)


class TargetClient:
    """Sends payloads to targets. Nothing of the gate's environment is added: no proxy, no `.netrc`, no cookie."""

    def __init__(self, *, user_agent: str) -> None:
        # No connection is kept: one that the target closed meanwhile would fail a request that may not be repeated.
        transport = OutboundTransport(
            trust_env=False,
            retries=_CONNECT_RETRIES,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._client = httpx2.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=None,
            headers={"user-agent": user_agent, "accept-encoding": "identity"},
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def deliver_all(self, requests: Sequence[ForwardRequest], payload: bytes) -> list[ForwardResult]:
        """All at the same time; the results in their order."""
        return list(await asyncio.gather(*(self.deliver(request, payload) for request in requests)))

    async def deliver(self, request: ForwardRequest, payload: bytes) -> ForwardResult:
        """POST the payload and read the answer. Never raises for what a target does."""
        if request.url is None:
            return ForwardResult(request.target, "failed", reason="REFUSED")
        try:
            async with asyncio.timeout(request.seconds):
                return await self._post(request, request.url, payload)
        except (TimeoutError, httpx2.TimeoutException):
            return ForwardResult(request.target, "failed", reason="TIMEOUT")
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.LocalProtocolError):
            return ForwardResult(request.target, "failed", reason="REFUSED")
        except (httpx2.HTTPError, OSError):
            return ForwardResult(request.target, "failed", reason="UNREACHABLE")

    async def _post(self, request: ForwardRequest, url: str, payload: bytes) -> ForwardResult:
        headers = {"content-type": "application/json", **request.headers}
        async with self._client.stream("POST", url, content=payload, headers=headers) as response:
            body = await _limited_body(response, request.answer_bytes)
        if body is None:
            return ForwardResult(request.target, "failed", response.status_code, "REFUSED")
        answer = _read_answer(body, response.headers.get("content-type", ""))
        if 200 <= response.status_code < 300:
            return ForwardResult(request.target, "delivered", response.status_code, None, answer)
        return ForwardResult(request.target, "failed", response.status_code, "REFUSED", answer)


async def _limited_body(response: httpx2.Response, limit: int) -> bytes | None:
    """The bytes as they were sent; None when there are more than `limit`."""
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > limit:
            return None
    return bytes(body)


def _read_answer(body: bytes, media_type: str) -> Any:
    """JSON where the target says so and it parses, else text; None for an empty one."""
    if not body:
        return None
    media = media_type.partition(";")[0].strip().lower()
    if media == "application/json" or media.endswith("+json"):
        try:
            return strict_json.parse(body)
        except RequestRefused:
            pass  # what only looks like JSON is handed on as text
    # A database keeps no NUL.
    return body.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
