"""The client of the ledger: one endpoint that takes many receipts and answers each.

Two things must never be confused (EXT-20). A *refusal* is the ledger's last word about one receipt: sending it again
gives the same. An *outage* is everything else, a wrong credential and an answer that makes no sense included: nothing
was said about the receipts, and they are sent again later.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp

MOST_BYTES = 384 * 1024
"""Of one request; below the ledger's limit, whatever the reports hold."""
MOST_RECEIPTS = 256


class LedgerUnavailable(Exception):  # noqa: N818 - a state, not a mistake
    """The ledger said nothing about the receipts."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Stored now, or before."""


@dataclass(frozen=True, slots=True)
class Rejected:
    code: str
    detail: str


ReceiptOutcome = Accepted | Rejected


class LedgerClient(Protocol):
    """Where receipts go."""

    async def send(self, receipts: Sequence[Mapping[str, Any]]) -> list[ReceiptOutcome]:
        """One answer for each, in their order. Raises LedgerAway; then none of them, some or all are stored."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LedgerAccess:
    """How the ledger is reached. The credential is read again for each request, because tokens are rotated in place."""

    url: str
    token_file: Path | None = None
    api_key_file: Path | None = None
    api_key_header: str = "X-API-Key"
    ca_file: Path | None = None
    timeout_seconds: float = 10.0


class HttpLedgerClient:
    """A connection that is kept; opened with the first request."""

    def __init__(self, access: LedgerAccess) -> None:
        self._access = access
        self._endpoint = f"{access.url.rstrip('/')}/receipts/batch"
        self._session: aiohttp.ClientSession | None = None

    async def send(self, receipts: Sequence[Mapping[str, Any]]) -> list[ReceiptOutcome]:
        answers: list[ReceiptOutcome] = []
        for part in split_batches([json.dumps(receipt, separators=(",", ":")) for receipt in receipts]):
            answers += await self._send(part)
        return answers

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _send(self, receipts: Sequence[str]) -> list[ReceiptOutcome]:
        body = f'{{"receipts":[{",".join(receipts)}]}}'.encode()
        headers = {"Content-Type": "application/json", **await asyncio.to_thread(_credential, self._access)}
        try:
            async with self._opened().post(self._endpoint, data=body, headers=headers) as answer:
                if answer.status != 200:
                    raise LedgerUnavailable(f"the ledger answered {answer.status}")
                return _answers(await answer.json(), len(receipts))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise LedgerUnavailable(f"the ledger did not answer ({type(error).__name__})") from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            ca = self._access.ca_file
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._access.timeout_seconds, sock_connect=2.0),
                connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=None if ca is None else str(ca))),
            )
        return self._session


def split_batches(receipts: Sequence[str]) -> list[list[str]]:
    """In their order, none larger than a request may be."""
    cut: list[list[str]] = []
    size = 0
    for receipt in receipts:
        length = len(receipt.encode()) + 1
        if not cut or size + length > MOST_BYTES or len(cut[-1]) == MOST_RECEIPTS:
            cut.append([])
            size = 0
        cut[-1].append(receipt)
        size += length
    return cut


def _credential(access: LedgerAccess) -> dict[str, str]:
    """Raises LedgerAway when the file cannot be read."""
    try:
        if access.token_file is not None:
            return {"Authorization": f"Bearer {access.token_file.read_text(encoding='ascii').strip()}"}
        if access.api_key_file is not None:
            return {access.api_key_header: access.api_key_file.read_text(encoding="ascii").strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerUnavailable(f"the ledger's credential cannot be read ({type(error).__name__})") from error
    return {}


def _answers(answer: Any, count: int) -> list[ReceiptOutcome]:
    items = answer.get("items") if isinstance(answer, dict) else None
    if not isinstance(items, list) or len(items) != count:
        raise LedgerUnavailable("the ledger's answer does not fit the question")
    return [_answer(item) for item in items]


def _answer(item: Any) -> ReceiptOutcome:
    status = item.get("status") if isinstance(item, dict) else None
    if status in {200, 201}:
        return Accepted()
    if isinstance(status, int) and 400 <= status < 500 and status not in {401, 408, 429}:
        return Rejected(str(item.get("code", status)), str(item.get("detail", "")))
    raise LedgerUnavailable("the ledger's answer makes no sense")
