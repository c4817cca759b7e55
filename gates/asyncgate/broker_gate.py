"""What AsyncGate's handlers share: the process, a batcher for each verb, ceilings, the workers that wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from asyncgate.bookkeeping import Bookkeeping
from asyncgate.ceilings import Ceilings
from asyncgate.database import AsyncGateDatabase
from asyncgate.lease import (
    Claim,
    EndedTask,
    EscalationRequest,
    Lease,
    LeaseRequest,
    ReleasedTask,
    ReleaseRequest,
    Renewal,
    RenewRequest,
    Revocation,
    RevokeRequest,
)
from asyncgate.long_poll import LongPoll
from asyncgate.outcomes import EndOutcome, ParkOutcome, ReleaseOutcome, RenewOutcome, RevokeOutcome, VerbOutcome
from asyncgate.problem_codes import Code
from asyncgate.settings import Settings
from asyncgate.task import ParkedTask, ParkingBatch
from legivellum.gate.process import GateProcess
from legivellum.http.batching import Batcher, BatchLimits
from legivellum.http.problems import refuse
from legivellum.identity.caller import Caller
from legivellum.postgres.pool import QUERY_SHARE
from legivellum.receipts.rights import GATES

AsyncGateProcess = GateProcess[Settings, AsyncGateDatabase]
RunVerb = Callable[[Sequence[Any]], Awaitable[list[Any]]]

ENQUEUING_TYPES: Final = frozenset({"principal", "delegate"})
LEASING_TYPES: Final = frozenset({"worker", "service", "component"})


class LeaseStatements:
    """Statements that lease, one at a time: requests and workers that wait ask for the same mailboxes (AG-17).

    Two at once would wait for each other's locks in the database, and hold a connection each.
    """

    def __init__(self, process: AsyncGateProcess) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    async def ask(self, requests: Sequence[LeaseRequest]) -> list[tuple[Lease, ...]]:
        async with self._turn:
            return await self._process.database.lease(requests)


@dataclass(frozen=True, slots=True)
class VerbBatchers:
    """What arrives while a statement is in flight travels in the next.

    `enqueue_batch`: a statement for each, for it may have 256 tasks; 64 of them in one would outlast every deadline.
    """

    enqueue: Batcher[ParkingBatch, list[VerbOutcome[ParkOutcome, ParkedTask]]]
    enqueue_batch: Batcher[ParkingBatch, list[VerbOutcome[ParkOutcome, ParkedTask]]]
    lease: Batcher[LeaseRequest, tuple[Lease, ...]]
    renew: Batcher[RenewRequest, VerbOutcome[RenewOutcome, Renewal]]
    release: Batcher[ReleaseRequest, VerbOutcome[ReleaseOutcome, ReleasedTask]]
    complete: Batcher[Claim, VerbOutcome[EndOutcome, EndedTask]]
    escalate: Batcher[EscalationRequest, VerbOutcome[EndOutcome, EndedTask]]
    revoke: Batcher[RevokeRequest, VerbOutcome[RevokeOutcome, Revocation]]

    @classmethod
    def of(cls, process: AsyncGateProcess, leasing: LeaseStatements) -> VerbBatchers:
        queue = process.settings.queue

        def batcher(verb: str, run: RunVerb | None = None, in_flight: int = 2, rows: int = 64) -> Batcher[Any, Any]:
            # The database is looked up for each statement: it may not have been reached yet.
            async def run_verb(items: Sequence[Any]) -> list[Any]:
                results: list[Any] = await getattr(process.database, verb)(items)
                return results

            limits = BatchLimits(
                in_flight=in_flight, rows=rows, queue=queue, statement_seconds=process.settings.deadline_seconds
            )
            return Batcher(run or run_verb, name=verb, limits=limits)

        return cls(
            enqueue=batcher("enqueue"),
            enqueue_batch=batcher("enqueue", rows=1),
            lease=batcher("lease", leasing.ask, in_flight=1),
            renew=batcher("renew"),
            release=batcher("release"),
            complete=batcher("complete"),
            escalate=batcher("escalate"),
            revoke=batcher("revoke"),
        )


@dataclass(frozen=True, slots=True)
class BrokerGate:
    """One per process."""

    process: AsyncGateProcess
    ceilings: Ceilings
    verbs: VerbBatchers
    waiting: LongPoll
    admission_globs: tuple[str, ...]

    @classmethod
    def of(cls, process: AsyncGateProcess) -> BrokerGate:
        """Raises CeilingsUnreadable."""
        settings, leasing = process.settings, LeaseStatements(process)
        globs = tuple(glob.strip() for glob in settings.require_admission.split(",") if glob.strip())
        # A statement waits for the one before it.
        seconds = 2 * settings.deadline_seconds * QUERY_SHARE
        waiting = LongPoll(leasing.ask, most=settings.waiters, statement_seconds=seconds)
        verbs = VerbBatchers.of(process, leasing)
        gate = cls(process, Ceilings.from_file(settings.ceilings_file), verbs, waiting, globs)
        process.beside.append(gate.running)
        return gate

    @property
    def settings(self) -> Settings:
        return self.process.settings

    def requires_admission(self, namespace: str) -> bool:
        return any(fnmatchcase(namespace, glob) for glob in self.admission_globs)

    def is_recipient(self, caller: Caller, name: str) -> bool:
        """Whether custody can be given to the name (D-71)."""
        return name in GATES or self.process.is_principal(caller.tenant, name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The pass and the workers that wait, while the block runs."""
        bookkeeping = Bookkeeping(
            lambda: self.process.database,
            seconds=self.settings.pass_seconds,
            archive_days=self.settings.archive_days,
            on_change=self.waiting.wake,
        )
        async with self.waiting.running(), bookkeeping.running():
            yield


def require_type(caller: Caller, types: frozenset[str], action: str) -> None:
    """Raises ROLE_REQUIRED."""
    if caller.type not in types:
        raise refuse(Code.ROLE_REQUIRED, f"Only the types {', '.join(sorted(types))} may {action}.")
