"""Following MetaGate's own database: take over what was published, again and again.

API keys and issuers are held in memory and refreshed by what changed; a poll every 200 ms is how fast a revocation
reaches a process that has just verified something (the statement checks it in any case, D-45).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Protocol

from legivellum.gate.snapshot_poller import SnapshotPoller, close_quietly, polling, read_connected, require_version
from legivellum.postgres.published_identity import CredentialChanges
from metagate_api import metrics
from metagate_api.gate import Gate
from metagate_store.errors import SchemaMismatch
from metagate_store.reader import Reader
from metagate_store.rows import State

_FIRST_LOOK_SECONDS = 2.0


class CredentialConsumer(Protocol):
    """What is refreshed: the key ring and the issuers (`Authenticator`)."""

    def apply(self, changes: CredentialChanges) -> None: ...


class IdentityCache(Protocol):
    """What is forgotten when anything may have changed (`Directory`)."""

    def forget(self) -> None: ...


Connect = Callable[[], Awaitable[Reader]]


class DatabaseSnapshot:
    """What this process holds of the database. `look` is what a SnapshotPoller repeats."""

    def __init__(
        self, gate: Gate, credentials: CredentialConsumer, cache: IdentityCache, connect: Connect, *, needed: int
    ) -> None:
        self._gate = gate
        self._credentials = credentials
        self._cache = cache
        self._connect = connect
        self._needed = needed
        self._mark = 0
        self._server_started_at: datetime | None = None

    async def look(self) -> Mapping[str, object]:
        """Raises what the store raises."""
        state, changes = await read_connected(self._gate, self._connect, self._read)
        self._credentials.apply(changes)
        self._mark = self._gate.status.credential_mark = changes.mark
        # Only then: forgetting at every look would ask the database for each caller again, five times a second.
        if state.revision != self._gate.status.revision or state.server_started_at != self._server_started_at:
            self._cache.forget()
        self._server_started_at = state.server_started_at
        self._take_over(state)
        return {"revision": state.revision, "schema_version": state.schema_version}

    async def _read(self, reader: Reader) -> tuple[State, CredentialChanges]:
        state = await reader.state()
        require_version(state.schema_version, self._needed)
        # A standby that was promoted may give the same marks to other changes.
        same_server = state.server_started_at == self._server_started_at
        return state, await reader.credentials(self._mark if same_server else 0)

    def _take_over(self, state: State) -> None:
        status = self._gate.status
        status.ready = status.up = status.fits = True
        status.revision, status.compiled_at, status.schema_version = (
            state.revision,
            state.compiled_at,
            state.schema_version,
        )
        metrics.DATABASE_UP.set(1)
        metrics.REVISION.set(state.revision)
        if state.compiled_at is not None:
            metrics.COMPILED_AT.set(state.compiled_at.timestamp())

    def on_lost(self, error: Exception) -> None:
        # Whether what is cached still holds cannot be known while nobody answers.
        self._cache.forget()
        self._gate.status.up = False
        self._gate.status.fits = not isinstance(error, SchemaMismatch)
        metrics.DATABASE_UP.set(0)


@asynccontextmanager
async def following(state: DatabaseSnapshot, gate: Gate) -> AsyncIterator[None]:
    """Follow while serving; the first look happens before the first request, if the database is quick."""
    seconds = gate.settings.credentials_poll_ms / 1_000
    poller = SnapshotPoller(
        "database",
        state.look,
        logger="metagate.database",
        seconds=seconds,
        retry_seconds=seconds,
        on_lost=state.on_lost,
    )
    try:
        async with polling(poller, first_look_seconds=_FIRST_LOOK_SECONDS):
            yield
    finally:
        await close_quietly(gate.connected)
