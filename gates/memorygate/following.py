"""Following the two databases: the ledger's own, and the one that holds principals and credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from legivellum.gate.identity_poller import IdentityReplica
from legivellum.gate.snapshot_poller import SnapshotPoller, close_quietly, polling, read_connected, require_version
from legivellum.postgres.errors import SchemaMismatch
from memorygate import metrics
from memorygate.gate import Gate
from memorygate.ledger import Ledger

_LOGGER = "memorygate.database"
_FIRST_LOOK_SECONDS = 3.0


def ledger_poller(gate: Gate, connect: Callable[[], Awaitable[Ledger]], *, needed: int) -> SnapshotPoller:
    """Connects to the ledger's database, and says whether it still answers."""
    status = gate.seen

    async def look() -> Mapping[str, object]:
        status.schema_version = await read_connected(gate, connect, Ledger.schema_version)
        require_version(status.schema_version, needed)
        status.up = status.fits = True
        status.ready = status.ready or status.identity
        metrics.DATABASE_UP.set(1)
        return {"schema_version": status.schema_version}

    def on_lost(error: Exception) -> None:
        status.up, status.fits = False, not isinstance(error, SchemaMismatch)
        metrics.DATABASE_UP.set(0)

    return SnapshotPoller("ledger", look, logger=_LOGGER, seconds=1.0, on_lost=on_lost)


def identity_poller(gate: Gate, replica: IdentityReplica) -> SnapshotPoller:
    """Takes over keys, issuers and principals as they are published."""
    status = gate.seen

    def measure(*, reached: bool) -> None:
        status.identity = reached
        metrics.IDENTITY_AGE.set(-1 if replica.age is None else replica.age)

    async def look() -> Mapping[str, object]:
        facts = await replica.look()
        measure(reached=True)
        status.ready = status.ready or (status.up and status.fits)
        return facts

    def on_lost(_error: Exception) -> None:
        measure(reached=False)

    seconds = gate.settings.identity_poll_ms / 1_000
    return SnapshotPoller("identity", look, logger=_LOGGER, seconds=seconds, on_lost=on_lost)


@asynccontextmanager
async def following(
    gate: Gate, connect: Callable[[], Awaitable[Ledger]], replica: IdentityReplica, *, needed: int
) -> AsyncIterator[None]:
    """Follow while serving; the first look happens before the first request, if the databases are quick."""
    pollers = (ledger_poller(gate, connect, needed=needed), identity_poller(gate, replica))
    async with polling(*pollers, first_look_seconds=_FIRST_LOOK_SECONDS):
        try:
            yield
        finally:
            await replica.close()
            await close_quietly(gate.connected)
