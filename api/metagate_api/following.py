"""Following the database: connect when it is there, then take over what was published, again and again.

API keys and issuers are held in memory and refreshed by what changed; a poll every 200 ms is how fast a revocation
reaches a process that has just verified something (the statement checks it in any case, D-45). Nothing here ends the
process: a database that is away is a 503 per request and another try.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import structlog

from metagate_api import metrics
from metagate_api.gate import Gate
from metagate_store.errors import SchemaMismatch, StoreError
from metagate_store.reader import Reader
from metagate_store.rows import CredentialChanges, State

_log = structlog.get_logger("metagate.database")


class Beliefs(Protocol):
    """What is refreshed: the key ring and the issuers (`Authenticator`)."""

    def apply(self, changes: CredentialChanges) -> None: ...


class Memory(Protocol):
    """What is forgotten when anything may have changed (`Directory`)."""

    def forget(self) -> None: ...


Connect = Callable[[], Awaitable[Reader]]


class Follower:
    def __init__(self, gate: Gate, beliefs: Beliefs, memory: Memory, connect: Connect, *, needed: int) -> None:
        self._gate = gate
        self._memory = memory
        self._beliefs = beliefs
        self._connect = connect
        self._needed = needed
        self._mark = 0
        self._every = gate.settings.credentials_poll_ms / 1_000

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.step()
            except (StoreError, OSError, TimeoutError) as error:
                self._lost(error)
            await asyncio.sleep(self._every)

    async def step(self) -> None:
        """One look. Raises what the store raises."""
        gate = self._gate
        reader = gate.connected or await self._connect()
        try:
            state = await reader.state()
            if state.schema_version < self._needed:
                raise SchemaMismatch(f"schema version {state.schema_version}, needed {self._needed}")  # noqa: TRY301
            changes = await reader.credentials(self._mark)
        except BaseException:
            if gate.connected is None:
                await reader.close()
            raise
        self._beliefs.apply(changes)
        self._mark = changes.mark
        if state.revision != gate.seen.revision:
            self._memory.forget()
        gate.connected = reader
        self._found(state)

    def _found(self, state: State) -> None:
        seen = self._gate.seen
        if not seen.up:
            _log.info("database_reached", revision=state.revision, schema_version=state.schema_version)
        seen.ready = seen.up = seen.fits = True
        seen.revision, seen.compiled_at, seen.schema_version = state.revision, state.compiled_at, state.schema_version
        metrics.DATABASE_UP.set(1)
        metrics.REVISION.set(state.revision)
        if state.compiled_at is not None:
            metrics.COMPILED_AT.set(state.compiled_at.timestamp())

    def _lost(self, error: Exception) -> None:
        seen = self._gate.seen
        self._memory.forget()
        fits = not isinstance(error, SchemaMismatch)
        if seen.up or seen.fits != fits:
            _log.warning("database_lost", error=type(error).__qualname__, reason=str(error))
        seen.up, seen.fits = False, fits
        metrics.DATABASE_UP.set(0)


@asynccontextmanager
async def following(follower: Follower, gate: Gate) -> AsyncIterator[None]:
    """Follow while serving; the first look happens before the first request, if the database is quick."""
    with contextlib.suppress(StoreError, OSError, TimeoutError):
        await asyncio.wait_for(follower.step(), timeout=2)
    task = asyncio.create_task(follower.run(), name="follow the database")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if gate.connected is not None:
            with contextlib.suppress(StoreError, OSError, TimeoutError):
                await asyncio.wait_for(gate.connected.close(), timeout=2)
