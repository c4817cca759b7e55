"""How one gate asks another: over HTTP, with a credential of the tenant that is served.

What is asked may be asked again: whoever calls derives its ids, so that a repeat is a replay. A gate that cannot be
reached, is overloaded, or does not take a credential that MetaGate publishes as good counts as away: a 503 that names
it. What a gate refuses otherwise is a `GateRefused`, for the caller to judge.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import httpx2

from legivellum.base.settings import UnusableSettingError
from legivellum.gate.outbound_transport import OutboundTransport
from legivellum.http.problem_codes import Code
from legivellum.http.problems import Problem, RequestRefused

LARGEST_ANSWER: Final = 4 * 1_024 * 1_024
"""No gate builds a larger one (D-66)."""
_PAGE: Final = 500
_REPEATS: Final = 2
_CREDENTIAL_REFUSALS: Final = frozenset({"PRINCIPAL_UNKNOWN", "PRINCIPAL_SUSPENDED"})
_JSON: Final = "application/json"

ObserveCall = Callable[[str, str, float], None]
"""Is told the gate, what became of the call (a status, or `away`) and the seconds it took."""


class GateAway(RequestRefused):
    """A gate gave no usable answer: 503, and it is named. Nothing is known of what it did with the request."""

    def __init__(self, gate: str, why: str = "cannot be reached", *, retry_after: int | None = None) -> None:
        super().__init__(Problem(Code.UNAVAILABLE, f"{gate} {why}.", retry_after=retry_after))
        self.gate = gate


class GateRefused(Exception):  # noqa: N818 - what another gate decided, not an error of this one
    """A gate understood the request and refuses it."""

    def __init__(self, gate: str, status: int, code: str, detail: str) -> None:
        super().__init__(f"{gate}: {status} {code}")
        self.gate = gate
        self.status = status
        self.code = code
        self.detail = detail


class GateAnswer(NamedTuple):
    """`retry_after` in seconds, where the gate said it."""

    status: int
    content: bytes
    retry_after: int | None

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300


class GateCaller:
    """One per process. `urls` by the gates' names; `seconds`: within which each must answer."""

    def __init__(
        self, urls: Mapping[str, str], *, seconds: float, user_agent: str, trust: ssl.SSLContext, observe: ObserveCall
    ) -> None:
        self._urls = {gate: url.rstrip("/") for gate, url in urls.items()}
        self._seconds = seconds
        self._observe = observe
        # No proxy, no `.netrc`, no cookie: nothing of the environment goes to a gate.
        self._client = httpx2.AsyncClient(
            transport=OutboundTransport(
                verify=trust,
                trust_env=False,
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=10),
            ),
            trust_env=False,
            follow_redirects=False,
            timeout=None,
            headers={"user-agent": user_agent, "accept-encoding": "identity"},
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def pages(
        self, gate: str, credential: Mapping[str, str], path: str, query: Mapping[str, str]
    ) -> AsyncIterator[Mapping[str, Any]]:
        """The items of every page of a list."""
        cursor: str | None = None
        while True:
            asked = {**query, "limit": str(_PAGE), **({} if cursor is None else {"cursor": cursor})}
            page = await self.ask(gate, credential, "GET", f"{path}?{urlencode(asked)}")
            with decoding(gate):
                items, cursor = [*page["items"]], page["next_cursor"]
            for item in items:
                yield item
            if cursor is None:
                return

    async def find(self, gate: str, credential: Mapping[str, str], path: str) -> dict[str, Any] | None:
        """What is looked up; None where it is not there."""
        try:
            return await self.ask(gate, credential, "GET", path)
        except GateRefused as refused:
            if refused.status == 404:
                return None
            raise

    async def ask(
        self,
        gate: str,
        credential: Mapping[str, str],
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        media_type: str = _JSON,
    ) -> dict[str, Any]:
        """The JSON object of a success. Raises GateAway, GateRefused."""
        return read_object(gate, await self.call(gate, credential, method, path, body, media_type=media_type))

    async def call(
        self,
        gate: str,
        credential: Mapping[str, str],
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        media_type: str = _JSON,
    ) -> bytes:
        """The body of a success. Raises GateAway, GateRefused."""
        answer = await self.exchange(gate, credential, method, path, body, media_type=media_type)
        if answer.succeeded:
            return answer.content
        raise refusal_of(gate, answer, read_object(gate, answer.content))

    async def exchange(
        self,
        gate: str,
        credential: Mapping[str, str],
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        media_type: str = _JSON,
    ) -> GateAnswer:
        """Whatever the gate answers. Raises GateAway."""
        headers = {"content-type": media_type, **credential}
        began = time.perf_counter()
        outcome = "away"
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._repeated(gate, method, self._urls[gate] + path, body, headers)
            outcome = str(answer.status)
        except TimeoutError:
            raise GateAway(gate, "did not answer in time") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise GateAway(gate) from error
        else:
            return answer
        finally:
            self._observe(gate, outcome, time.perf_counter() - began)

    async def _repeated(
        self, gate: str, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> GateAnswer:
        """A kept connection that the gate closed meanwhile is no outage: the same request goes out on another one."""
        for left in reversed(range(_REPEATS)):
            try:
                return await self._send(gate, method, url, body, headers)
            except (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError):
                if not left:
                    raise
        raise AssertionError("unreachable")

    async def _send(
        self, gate: str, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> GateAnswer:
        content = bytearray()
        async with self._client.stream(method, url, content=body, headers=headers) as response:
            async for part in response.aiter_raw():
                content += part
                if len(content) > LARGEST_ANSWER:
                    raise GateAway(gate, "answered more than may be believed")
            retry_after = response.headers.get("retry-after", "")
        return GateAnswer(response.status_code, bytes(content), _whole_seconds(retry_after))


def trusting(ca_file: str | None, variable: str) -> ssl.SSLContext:
    """Whom the gates' certificates are signed by; None: the authorities of the system. `variable`: names the file.

    Raises OSError, UnusableSettingError.
    """
    if ca_file is None:
        return ssl.create_default_context()
    content = Path(ca_file).read_text(encoding="ascii", errors="replace")
    try:
        return ssl.create_default_context(cadata=content)
    except ssl.SSLError:
        raise UnusableSettingError(f"{variable}: {ca_file} holds no certificates in PEM") from None


@contextmanager
def decoding(gate: str) -> Iterator[None]:
    """An answer without the members that every answer of the gate has is none of the gate's."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise GateAway(gate, "did not answer as a gate does") from error


def read_object(gate: str, content: bytes) -> dict[str, Any]:
    """Raises GateAway for what is no JSON object."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise GateAway(gate, "did not answer as a gate does")
    return answer


def refusal_of(gate: str, answer: GateAnswer, problem: Mapping[str, Any]) -> Exception:
    """What an answer that is no success means here."""
    code = str(problem.get("code", ""))
    if answer.status == 401 or code in _CREDENTIAL_REFUSALS:
        # MetaGate publishes the credential as good, so this gate does not know it yet, or any more.
        return GateAway(gate, "does not accept the credential of this tenant now")
    if answer.status == 429:
        return GateAway(gate, "is asked too often", retry_after=answer.retry_after)
    if answer.status >= 500 or not code:
        return GateAway(gate, "cannot answer now", retry_after=answer.retry_after)
    return GateRefused(gate, answer.status, code, str(problem.get("detail", "")))


def path_segment(text: str) -> str:
    """A name as one segment of a path, whatever it holds."""
    return quote(text, safe="")


def _whole_seconds(text: str) -> int | None:
    """Of Retry-After. A date there, or more than a day, is not handed on."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else None
