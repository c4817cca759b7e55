"""The ledger's verbs and obligations for an event loop: calls run in threads of their own, pauses on the loop."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from legivellum_worker import receipts
from legivellum_worker.ledger_calls import LedgerCall, Question
from legivellum_worker.ledger_connection import LedgerConnection
from legivellum_worker.obligation import ObligationScope
from metagate_client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Any, Self, Unpack

    from legivellum_worker.ledger_calls import Answer, OpenObligation, RecordedReceipt, Result, Steps
    from legivellum_worker.receipts import (
        AcceptedFields,
        CompleteFields,
        EscalateFields,
        EscalationClass,
        ObligationFields,
        ObligationName,
    )

_THREADS: dict[int, ThreadPoolExecutor] = {}
"""By process: a child that was forked has none of its parent's threads, and would wait for them for ever."""


def _threads() -> ThreadPoolExecutor:
    """Not the loop's default executor: calls to a ledger that is silent would hold up what else runs there."""
    process = os.getpid()
    if process not in _THREADS:
        _THREADS.clear()
        _THREADS[process] = ThreadPoolExecutor(max_workers=16, thread_name_prefix="ledger")
    return _THREADS[process]


async def await_steps(steps: Steps[Result]) -> Result:
    """What the verb gives, without blocking the loop."""
    loop = asyncio.get_running_loop()
    try:
        step = next(steps)
        while True:
            try:
                answer: object = None
                if isinstance(step, LedgerCall):
                    answer = await loop.run_in_executor(_threads(), step.perform)
                else:
                    await asyncio.sleep(step)
            except ClientError as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        result: Result = end.value
        return result


class AsyncLedger(LedgerConnection):
    """The verbs of Ledger as coroutines."""

    __slots__ = ()

    async def accept(self, task_id: str, **fields: Unpack[AcceptedFields]) -> RecordedReceipt:
        return await await_steps(self.calls.record(receipts.accepted(task_id, **self.calls.owned(fields))))

    async def complete(self, obligation: ObligationName, **fields: Unpack[CompleteFields]) -> RecordedReceipt:
        return await await_steps(self.calls.record(receipts.complete(obligation, **fields)))

    async def escalate(
        self, obligation: ObligationName, to: str, reason: str, **fields: Unpack[EscalateFields]
    ) -> RecordedReceipt:
        return await await_steps(self.calls.record(receipts.escalate(obligation, to, reason, **fields)))

    async def send(self, receipt: Mapping[str, Any]) -> RecordedReceipt:
        return await await_steps(self.calls.send(receipt))

    async def inbox(self, *, task_id: str | None = None) -> list[OpenObligation]:
        return await await_steps(self.calls.inbox(**({} if task_id is None else {"task_id": task_id})))

    async def receipts(self, task_id: str) -> list[dict[str, Any]]:
        return await await_steps(self.calls.receipts(task_id))

    async def ask(self, task_id: str, to: str, question: str, **fields: Unpack[AcceptedFields]) -> Question:
        asked = Question(task_id, fields.pop("owner", None) or self.calls.principal, to, question)
        return await await_steps(self.calls.ask(asked, **fields))

    async def answer(self, question: ObligationName | str) -> Answer | None:
        return await await_steps(self.calls.answer(question))

    def obligation(self, **fields: Unpack[ObligationFields]) -> AsyncObligation:
        """As `Ledger.obligation`, for `async with`."""
        return AsyncObligation(self.calls, **fields)


class AsyncObligation(ObligationScope):
    """What `AsyncLedger.obligation` returns. A block that is cancelled ends as canceled, wherever that meets it.

    A first cancellation waits until the call that runs has ended, at most the ledger's deadline; a second one does not,
    and the call goes on by itself.
    """

    _is_abandoned = False

    async def __aenter__(self) -> Self:
        opening = asyncio.ensure_future(self._opened_or_cancelled())
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The receipt may be on its way: whoever waits must not leave an obligation open that nobody works on.
            self._is_abandoned = True
            await _settled(opening)
            raise
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        closing = asyncio.ensure_future(await_steps(self._close(error)))
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await _settled(closing)
            raise

    async def ask(self, to: str, question: str, **more: Any) -> Question:
        """As `Obligation.ask`."""
        return await await_steps(self._question(to, question, **more))

    async def answer(self, question: ObligationName | str) -> Answer | None:
        """As `Obligation.answer`."""
        return await await_steps(self._calls.answer(question))

    async def escalate(self, to: str, reason: str, *, escalation_class: EscalationClass = "other") -> RecordedReceipt:
        """As `Obligation.escalate`."""
        return await await_steps(self._escalation(to, reason, escalation_class))

    async def _opened_or_cancelled(self) -> None:
        await await_steps(self._open())
        if self._is_abandoned:
            await await_steps(self._close(asyncio.CancelledError()))


async def _settled(future: asyncio.Future[None]) -> None:
    """Wait for its end; what it raises is let go, its caller was cancelled."""
    await asyncio.wait([future])
    if not future.cancelled():
        future.exception()
