"""Batching: while a statement is in flight, arriving queries queue; the next statement carries them all.

Nobody waits for a batch to fill, unless `BatchLimits.collect_seconds` says so. A query that comes alone leaves at once;
under load the batches grow to what the database can take, one commit for many results. Two statements in flight keep
the database busy while Python works. The queue is bounded: beyond it a query is refused at once (F21) instead of
waiting longer.

A failed statement must not fail every query in it because of one: they are run again one by one, once, while their
deadlines allow it. After two failures in a row the reason is not a single row, and the rest fails with it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from legivellum.http.deadline import DeadlineExceeded, Overloaded

Query = TypeVar("Query")
Result = TypeVar("Result")

_LEAST_SECONDS = 0.03
"""A query with less time than this is not run again."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`statement_seconds`: a statement that takes longer loses its slot; it is cancelled in the background.

    `collect_seconds`: a batch waits so long before it takes its queries. Zero but for batches that wait for each other
    anyhow: few large ones are then done sooner than many small ones.
    """

    in_flight: int = 2
    rows: int = 64
    queue: int = 1_024
    statement_seconds: float = 1.0
    leftovers: int = 8
    collect_seconds: float = 0.0


class _Pending(Generic[Query, Result]):
    __slots__ = ("deadline", "query", "result")

    def __init__(self, query: Query, result: "asyncio.Future[Result]", deadline: float) -> None:
        self.query = query
        self.result = result
        self.deadline = deadline


class Batcher(Generic[Query, Result]):
    """`run` gives the results of many queries with one statement: as many, in the same order.

    `renew` makes the query that is run again after a failure (with new ids: the first may have been committed).
    """

    def __init__(
        self,
        run: Callable[[Sequence[Query]], Awaitable[list[Result]]],
        *,
        name: str,
        limits: BatchLimits | None = None,
        renew: Callable[[Query], Query] | None = None,
    ) -> None:
        self._run = run
        self._renew = renew
        self._name = name
        self._limits = limits or BatchLimits()
        self._queue: deque[_Pending[Query, Result]] = deque()
        self._statements: set[asyncio.Task[None]] = set()
        self._cancelling: set[asyncio.Future[list[Result]]] = set()
        self._start_scheduled = False

    @property
    def pending(self) -> int:
        return len(self._queue)

    async def submit(self, query: Query, deadline: float) -> Result:
        """The result, by `deadline` (the loop's clock). Raises DeadlineExceeded, Overloaded, or what `run` raises."""
        loop = asyncio.get_running_loop()
        if len(self._queue) >= self._limits.queue:
            raise Overloaded
        result: asyncio.Future[Result] = loop.create_future()
        self._queue.append(_Pending(query, result, deadline))
        if not self._start_scheduled and len(self._statements) < self._limits.in_flight:
            # After everything that is ready in this turn of the loop: what arrived together travels together.
            self._start_scheduled = True
            loop.call_soon(self._start_statements)
        expiry = loop.call_at(deadline, _expire, result)
        try:
            return await result
        finally:
            expiry.cancel()

    async def close(self) -> None:
        """Let what is in flight end."""
        while self._statements:
            await asyncio.wait(set(self._statements))

    def _start_statements(self) -> None:
        self._start_scheduled = False
        while self._queue and len(self._statements) < self._limits.in_flight:
            statement = asyncio.get_running_loop().create_task(self._drain(), name=self._name)
            self._statements.add(statement)
            statement.add_done_callback(self._on_statement_end)
            # What is left fits into this statement: a second one would split a batch and pay for another commit.
            if len(self._queue) <= self._limits.rows:
                break

    def _on_statement_end(self, statement: asyncio.Task[None]) -> None:
        self._statements.discard(statement)
        if self._queue and not statement.cancelled():
            self._start_statements()

    async def _drain(self) -> None:
        while self._queue:
            if self._limits.collect_seconds:
                await asyncio.sleep(self._limits.collect_seconds)
            if batch := self._next_batch():
                await self._answer_batch(batch)

    def _next_batch(self) -> list[_Pending[Query, Result]]:
        """The next queries. Those nobody waits for any more are dropped, so that nothing is written for them."""
        batch: list[_Pending[Query, Result]] = []
        while self._queue and len(batch) < self._limits.rows:
            pending = self._queue.popleft()
            if not pending.result.done():
                batch.append(pending)
        return batch

    async def _answer_batch(self, batch: list[_Pending[Query, Result]]) -> None:
        failure = await self._run_batch(batch)
        if failure is None:
            return
        # One query of the batch may be what the database refuses; the others must not fail with it.
        failures_in_a_row = 0
        now = asyncio.get_running_loop().time
        for pending in batch:
            if pending.result.done():
                continue
            if failures_in_a_row < 2 and pending.deadline - now() > _LEAST_SECONDS:
                if self._renew is not None:
                    pending.query = self._renew(pending.query)
                if (second_failure := await self._run_batch([pending])) is None:
                    failures_in_a_row = 0
                    continue
                failures_in_a_row, failure = failures_in_a_row + 1, second_failure
            if not pending.result.done():
                pending.result.set_exception(failure)

    async def _run_batch(self, batch: list[_Pending[Query, Result]]) -> Exception | None:
        """One statement. Results are handed out; a failure is returned, and the futures stay open."""
        if len(self._cancelling) >= self._limits.leftovers:
            return Overloaded()
        statement = asyncio.ensure_future(self._run([pending.query for pending in batch]))
        # `wait` and not `wait_for`: a driver may swallow the cancellation, and this slot is needed for the next batch.
        done, _ = await asyncio.wait({statement}, timeout=self._limits.statement_seconds)
        if not done:
            self._cancelling.add(statement)
            statement.add_done_callback(self._on_cancelled)
            statement.cancel()
            return DeadlineExceeded()
        if statement.cancelled():
            return DeadlineExceeded()
        failure = statement.exception()
        if isinstance(failure, Exception):
            return failure
        for pending, result in zip(batch, statement.result(), strict=True):
            if not pending.result.done():
                pending.result.set_result(result)
        return None

    def _on_cancelled(self, statement: "asyncio.Future[list[Result]]") -> None:
        self._cancelling.discard(statement)
        # Reading the exception marks it as retrieved; else asyncio logs it when the task is collected.
        if not statement.cancelled():
            statement.exception()


def _expire(result: "asyncio.Future[Result]") -> None:
    if not result.done():
        result.set_exception(DeadlineExceeded())
