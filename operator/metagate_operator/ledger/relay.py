"""From the outbox to the ledger, beside everything else: MetaGate's witness record, mirrored (D-04).

The API writes an outbox row in the transaction of the startup and never thinks of it again. Here rows are taken in
their order, sent, and removed when the ledger has them; a crash anywhere between sends them again, under the same ids.
While the ledger is away rows wait, and asking slows down to once in half a minute. What the ledger refuses is put
aside and counted, because sending it again would be refused again.

Several drainers work side by side, each with its own share of the startups, so that a startup's receipts never
overtake each other; a share is in one hand at a time, and free again when its relay dies.

Bootstraps should hardly notice it, even where one small machine does everything. So batches are small and a drainer
rests after each, in proportion to how long the batch took: a busy machine makes batches slow, and the rests long. The
older the outbox grows with that, the larger the batches and the shorter the rests, up to full speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from prometheus_client import Counter, Gauge

from legivellum.base.backoff import Backoff
from legivellum.base.supervision import run_until_first_exit
from metagate_operator.ledger.ledger_client import LedgerClient, LedgerUnavailable, ReceiptOutcome, Rejected
from metagate_operator.ledger.witness_receipts import receipt_of, time_as_written
from metagate_store.errors import StoreError
from metagate_store.outbox import Batch, OutboxStore
from metagate_store.rows import OutboxRow

log = structlog.get_logger(__name__)

DELIVERED = Counter("metagate_relay_delivered", "Receipts that the ledger has")
REFUSED = Counter("metagate_relay_refused", "Receipts that the ledger refused; not sent again", ("code",))
OUTAGES = Counter("metagate_relay_outages", "Attempts that the ledger or the database did not answer")
WAITING = Gauge("metagate_relay_waiting", "Receipts in the outbox, counted up to 10,000")
LAG = Gauge("metagate_relay_lag_seconds", "How long the oldest receipt in the outbox has waited")
DEAD = Gauge("metagate_relay_dead_letters", "Refused receipts that nobody has looked into")


CONFLICT = "RECEIPT_CONFLICT"
"""The ledger's code for an id under which it has a receipt of another content."""

DRAINERS = 2
"""Every relay has as many: shares of the startups are counted by it."""


class Outbox(Protocol):
    """`metagate_store.outbox.OutboxStore`."""

    def batch(self, limit: int = 256, *, share: int = 0, shares: int = 1) -> AbstractAsyncContextManager[Batch]: ...
    async def backlog(self) -> tuple[int, float]: ...
    async def refused(self) -> int: ...


@dataclass(frozen=True, slots=True)
class RelayPace:
    """Rows of one transaction; seconds of rest for each second of work; rows of one at full speed, which is reached,
    with no rest, when the oldest receipt has waited `behind_seconds`; seconds between looks into an empty outbox; and
    between attempts while the ledger is away.
    """

    rows: int = 16
    rest: float = 9.0
    most_rows: int = 256
    behind_seconds: float = 60.0
    idle_seconds: float = 0.2
    backoff_seconds: float = 0.5
    backoff_max_seconds: float = 30.0
    measure_seconds: float = 5.0


class Relay:
    """`outboxes`: one per drainer, each with a connection of its own."""

    def __init__(
        self,
        outboxes: Sequence[Outbox],
        client: LedgerClient,
        *,
        pace: RelayPace | None = None,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._outboxes = outboxes
        self._client = client
        self._pace = pace or RelayPace()
        self._jitter = jitter
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._away = False
        self._rows, self._rest = self._pace.rows, self._pace.rest

    async def run(self) -> None:
        """Until cancelled."""
        shares = len(self._outboxes)
        drainers = {
            f"drain_{share}": functools.partial(self._drain_for_ever, outbox, share, shares)
            for share, outbox in enumerate(self._outboxes)
        }
        try:
            await run_until_first_exit(**drainers, measure=functools.partial(self._measure, self._outboxes[0]))
        finally:
            await self._client.close()

    async def drain(self, outbox: Outbox, share: int = 0, shares: int = 1, *, rows: int | None = None) -> int:
        """One batch of at most `rows`; how many it held. Raises LedgerAway, StoreError; then all are still there."""
        async with outbox.batch(rows or self._pace.rows, share=share, shares=shares) as batch:
            if batch.rows:
                await self._send(batch)
        DELIVERED.inc(len(batch.delivered))
        for seq, code, _ in batch.refused:
            REFUSED.labels(code).inc()
            log.error("receipt_refused", seq=seq, code=code)
        return len(batch.rows)

    async def _send(self, batch: Batch) -> None:
        receipts: list[tuple[OutboxRow, dict[str, Any]]] = []
        for row in batch.rows:
            try:
                receipts.append((row, receipt_of(row)))
            except (KeyError, TypeError, ValueError) as error:
                # One row that nobody can read must not stop all that come after it.
                batch.refused.append((row.seq, "UNREADABLE", type(error).__name__))
        answers = await self._client.send([receipt for _, receipt in receipts])
        answered = list(zip((row for row, _ in receipts), answers, strict=True))
        for row, answer in await self._recognized(answered):
            self._note(batch, row, answer)

    async def _recognized(
        self, answered: list[tuple[OutboxRow, ReceiptOutcome]]
    ) -> list[tuple[OutboxRow, ReceiptOutcome]]:
        """Where the ledger has another receipt under the id: its answer to the form that the release before sent.

        That is a replay of what was stored then, or the same conflict; under a stored id nothing new can be stored.
        """
        conflicts = [row for row, answer in answered if isinstance(answer, Rejected) and answer.code == CONFLICT]
        if not conflicts:
            return answered
        earlier = await self._client.send([receipt_of(row, time_as_written) for row in conflicts])
        answers = dict(zip((row.seq for row in conflicts), earlier, strict=True))
        return [(row, answers.get(row.seq, answer)) for row, answer in answered]

    @staticmethod
    def _note(batch: Batch, row: OutboxRow, answer: ReceiptOutcome) -> None:
        if isinstance(answer, Rejected):
            batch.refused.append((row.seq, answer.code, answer.detail))
        else:
            batch.delivered.append(row.seq)

    async def _drain_for_ever(self, outbox: Outbox, share: int, shares: int) -> None:
        failing, rows = False, self._rows
        backoff = Backoff(self._pace.backoff_seconds, self._pace.backoff_max_seconds, jitter=self._jitter)
        while True:
            try:
                sent, worked = await self._drain_in_turn(outbox, share, shares, rows=rows)
            except (LedgerUnavailable, StoreError) as error:
                failing = True
                rows = max(1, rows // 2)  # a ledger that is only slow answers a smaller question in time
                OUTAGES.inc()
                self._tell(error)
                await self._sleep(backoff.pause())
                continue
            if failing and sent:
                failing = False
                backoff.reset()
                self._tell(None)
            full, rows = sent == rows, min(self._rows, rows * 2)
            await self._sleep(worked * self._rest if full else self._pace.idle_seconds)

    async def _drain_in_turn(self, outbox: Outbox, share: int, shares: int, *, rows: int) -> tuple[int, float]:
        """How many receipts the batch held, and the seconds it took. Whoever rests works alone: one batch goes through
        relay, ledger and database one after the other, and occupies one processor at a time.
        """
        turn: AbstractAsyncContextManager[None] = self._turn if self._rest else contextlib.nullcontext()
        async with turn:
            began = self._clock()
            return await self.drain(outbox, share, shares, rows=rows), self._clock() - began

    def _adapt(self, lag: float) -> None:
        """From the gentle pace, while the oldest receipt waits no longer than from one look to the next, evenly to full
        speed: wherever as much is carried over as comes in, the lag stays.
        """
        pace = self._pace
        hurry = min(1.0, max(0.0, lag - pace.measure_seconds) / (pace.behind_seconds - pace.measure_seconds))
        self._rest = pace.rest * (1 - hurry)
        self._rows = max(pace.rows, round(pace.most_rows * hurry))

    def _tell(self, error: Exception | None) -> None:
        """A change of state is an event; another failed attempt is not."""
        if error is not None and not self._away:
            log.warning("ledger_away", reason=str(error))
        elif error is None and self._away:
            log.info("ledger_back")
        self._away = error is not None

    async def _measure(self, outbox: Outbox) -> None:
        while True:
            try:
                waiting, lag = await outbox.backlog()
                WAITING.set(waiting)
                LAG.set(lag)
                self._adapt(lag)
                DEAD.set(await outbox.refused())
            except StoreError:
                pass  # the drainers say it
            await self._sleep(self._pace.measure_seconds)


async def run_relay(dsn: str, client: LedgerClient, *, pace: RelayPace | None = None) -> None:
    """Relay from the database of role `metagate_publisher` until cancelled, on connections of its own."""
    outboxes = [OutboxStore(dsn) for _ in range(DRAINERS)]
    try:
        await Relay(outboxes, client, pace=pace).run()
    finally:
        for outbox in outboxes:
            with contextlib.suppress(Exception):
                await outbox.close()
