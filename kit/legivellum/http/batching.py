"""Natural batching: while a statement is in flight, arriving questions queue; the next statement carries them all.

Nobody ever waits for a batch to fill. One question alone goes at once; under load the batches grow by themselves to
what the database can take, one commit for many answers. Two statements in flight keep the database busy while Python
works. The queue is bounded: beyond it the answer is an immediate 503 (F21), not a longer wait.

One failed statement must not spoil its neighbours: its rows are asked again one by one, once, while their deadlines
allow it. Two failures in a row say that it was not a row's fault, and the rest is told at once.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from legivellum.http.deadline import DeadlineExceeded, Overloaded

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

_HOPELESS_SECONDS = 0.03
"""A row with less than this left is not asked again."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`statement_seconds`: a statement that takes longer loses its slot; it dies in the background."""

    in_flight: int = 2
    rows: int = 64
    queue: int = 1_024
    statement_seconds: float = 1.0
    leftovers: int = 8


class _Waiting(Generic[Ask, Answer]):
    __slots__ = ("answer", "ask", "deadline")

    def __init__(self, ask: Ask, answer: "asyncio.Future[Answer]", deadline: float) -> None:
        self.ask = ask
        self.answer = answer
        self.deadline = deadline


class Batcher(Generic[Ask, Answer]):
    """`run` answers many questions with one statement: as many answers, in the same order.

    `renew` makes the question that is asked again after a failure (with new ids: the first may have been answered).
    """

    def __init__(
        self,
        run: Callable[[Sequence[Ask]], Awaitable[list[Answer]]],
        *,
        name: str,
        shape: BatchLimits | None = None,
        renew: Callable[[Ask], Ask] | None = None,
    ) -> None:
        self._run = run
        self._renew = renew
        self._name = name
        self._shape = shape or BatchLimits()
        self._queue: deque[_Waiting[Ask, Answer]] = deque()
        self._statements: set[asyncio.Task[None]] = set()
        self._cancelling: set[asyncio.Future[list[Answer]]] = set()
        self._kicked = False

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def ask(self, ask: Ask, deadline: float) -> Answer:
        """The answer, by `deadline` (the loop's clock). Raises DeadlineExceeded, Overloaded, or what `run` raises."""
        loop = asyncio.get_running_loop()
        if len(self._queue) >= self._shape.queue:
            raise Overloaded
        answer: asyncio.Future[Answer] = loop.create_future()
        self._queue.append(_Waiting(ask, answer, deadline))
        if not self._kicked and len(self._statements) < self._shape.in_flight:
            # After everything that is ready in this turn of the loop: what arrived together travels together.
            self._kicked = True
            loop.call_soon(self._kick)
        clock = loop.call_at(deadline, _expire, answer)
        try:
            return await answer
        finally:
            clock.cancel()

    async def close(self) -> None:
        """Let what is in flight end."""
        while self._statements:
            await asyncio.wait(set(self._statements))

    def _kick(self) -> None:
        self._kicked = False
        while self._queue and len(self._statements) < self._shape.in_flight:
            statement = asyncio.get_running_loop().create_task(self._drain(), name=self._name)
            self._statements.add(statement)
            statement.add_done_callback(self._drained)
            if len(self._queue) <= self._shape.rows:
                break

    def _drained(self, statement: asyncio.Task[None]) -> None:
        self._statements.discard(statement)
        if self._queue and not statement.cancelled():
            self._kick()

    async def _drain(self) -> None:
        while batch := self._take():
            await self._settle(batch)

    def _take(self) -> list[_Waiting[Ask, Answer]]:
        """The next rows; who is gone or out of time is not asked for, so that nothing is written for nobody."""
        batch: list[_Waiting[Ask, Answer]] = []
        while self._queue and len(batch) < self._shape.rows:
            waiting = self._queue.popleft()
            if not waiting.answer.done():
                batch.append(waiting)
        return batch

    async def _settle(self, batch: list[_Waiting[Ask, Answer]]) -> None:
        failure = await self._ask_all(batch)
        if failure is None:
            return
        strikes = 0
        now = asyncio.get_running_loop().time
        for waiting in batch:
            if waiting.answer.done():
                continue
            if strikes < 2 and waiting.deadline - now() > _HOPELESS_SECONDS:
                if self._renew is not None:
                    waiting.ask = self._renew(waiting.ask)
                if (failure_again := await self._ask_all([waiting])) is None:
                    strikes = 0
                    continue
                strikes, failure = strikes + 1, failure_again
            if not waiting.answer.done():
                waiting.answer.set_exception(failure)

    async def _ask_all(self, batch: list[_Waiting[Ask, Answer]]) -> Exception | None:
        """One statement. Answers are handed out; a failure is returned, the futures left open."""
        if len(self._cancelling) >= self._shape.leftovers:
            return Overloaded()
        statement = asyncio.ensure_future(self._run([waiting.ask for waiting in batch]))
        done, _ = await asyncio.wait({statement}, timeout=self._shape.statement_seconds)
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
        for waiting, answer in zip(batch, statement.result(), strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)
        return None

    def _on_cancelled(self, statement: "asyncio.Future[list[Answer]]") -> None:
        self._cancelling.discard(statement)
        if not statement.cancelled():
            statement.exception()


def _expire(answer: "asyncio.Future[Answer]") -> None:
    if not answer.done():
        answer.set_exception(DeadlineExceeded())
