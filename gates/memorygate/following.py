"""Following the two databases: the ledger's own, and the one that says who may speak.

Nothing here ends the process. A ledger that is away is a 503 per request and another try; identity that is away means
that what was read last is believed for a while longer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import structlog

from legivellum.postgres.errors import DatabaseError, SchemaMismatch
from memorygate import metrics
from memorygate.gate import Gate
from memorygate.identity import Beliefs, Directory, IdentityReader
from memorygate.ledger import Ledger

_log = structlog.get_logger("memorygate.database")

_LOST = (DatabaseError, OSError, TimeoutError)
_RETRY_SECONDS = 1.0


class Believes(Protocol):
    """`legivellum.identity.authenticator.Authenticator`."""

    def apply(self, changes: Beliefs) -> None: ...


class LedgerFollower:
    """Connects to the ledger's database, and says whether it still answers."""

    def __init__(self, gate: Gate, connect: Callable[[], Awaitable[Ledger]], *, needed: int) -> None:
        self._gate = gate
        self._connect = connect
        self._needed = needed
        self._told: type[BaseException] | None = None

    async def step(self) -> None:
        seen = self._gate.seen
        try:
            await self._look()
        except _LOST as error:
            fits = not isinstance(error, SchemaMismatch)
            if type(error) is not self._told:  # also the first time: nobody else says why it is not ready
                _log.warning("ledger_lost", error=type(error).__qualname__, reason=str(error))
            self._told, seen.up, seen.fits = type(error), False, fits
            metrics.DATABASE_UP.set(0)
            return
        if not seen.up:
            _log.info("ledger_reached", schema_version=seen.schema_version)
        seen.up = seen.fits = True
        self._told = None
        metrics.DATABASE_UP.set(1)

    async def _look(self) -> None:
        gate = self._gate
        ledger = gate.connected or await self._connect()
        try:
            version = await ledger.schema_version()
            if version < self._needed:
                raise SchemaMismatch(f"schema version {version}, this release needs {self._needed}")  # noqa: TRY301
        except BaseException:
            if gate.connected is None:
                await ledger.close()
            raise
        gate.connected, gate.seen.schema_version = ledger, version


class IdentityFollower:
    """Takes over keys, issuers and principals as they are published."""

    def __init__(
        self, gate: Gate, believer: Believes, directory: Directory, connect: Callable[[], Awaitable[IdentityReader]]
    ) -> None:
        self._gate = gate
        self._believer = believer
        self._directory = directory
        self._connect = connect
        self._reader: IdentityReader | None = None
        self._mark = 0
        self._revision = -1
        self._told: type[BaseException] | None = None

    async def step(self) -> None:
        seen = self._gate.seen
        try:
            await self._look()
        except _LOST as error:
            if type(error) is not self._told:
                _log.warning("identity_lost", error=type(error).__qualname__, reason=str(error))
            self._told, seen.identity = type(error), False
        else:
            if not seen.identity:
                _log.info("identity_reached", revision=self._revision)
            self._told, seen.identity = None, True
        metrics.IDENTITY_AGE.set(-1 if self._directory.age is None else self._directory.age)

    async def _look(self) -> None:
        if self._reader is None:
            self._reader = await self._connect()
        revision = await self._reader.revision()
        changes = await self._reader.beliefs(self._mark)
        if revision != self._revision or changes.mark != self._mark:
            everybody = await self._reader.everybody()
            # Principals before keys: a key that is believed must already stand for somebody.
            self._directory.replace(everybody)
            self._believer.apply(changes)
            self._revision, self._mark = revision, changes.mark
        self._directory.confirm()

    async def close(self) -> None:
        if self._reader is not None:
            await self._reader.close()


async def _again_and_again(step: Callable[[], Awaitable[None]], pause: Callable[[], float]) -> None:
    while True:
        await asyncio.sleep(pause())
        await step()


@asynccontextmanager
async def following(ledger: LedgerFollower, identity: IdentityFollower, gate: Gate) -> AsyncIterator[None]:
    """Follow while serving; the first look happens before the first request, if the databases are quick."""
    poll = gate.settings.identity_poll_ms / 1_000

    async def look() -> None:
        await ledger.step()
        _settle(gate)

    async def know() -> None:
        await identity.step()
        _settle(gate)

    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(look(), know()), timeout=3)
    tasks = [
        asyncio.create_task(_again_and_again(look, lambda: _RETRY_SECONDS), name="follow the ledger"),
        asyncio.create_task(
            _again_and_again(know, lambda: poll if gate.seen.identity else 1.0), name="follow identity"
        ),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await identity.close()
        if gate.connected is not None:
            await gate.connected.close()


def _settle(gate: Gate) -> None:
    seen = gate.seen
    seen.ready = seen.ready or (seen.up and seen.fits and seen.identity)
