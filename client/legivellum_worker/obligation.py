"""An obligation as a block of code: accepted before it, complete after it, with how it ended.

What runs inside a block and opens an obligation itself becomes a child: its parent is the block's task, its cause the
block's first receipt. This follows contexts (`contextvars`), so tasks of an event loop and `asyncio.to_thread` inherit
it; a thread that somebody starts by hand begins a story of its own.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar

from legivellum_worker import receipts
from legivellum_worker.ledger_calls import Question, RecordedReceipt, perform_steps
from legivellum_worker.ulids import new_ulid
from metagate_client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Any, Self

    from legivellum_worker.artifacts import StoredArtifact
    from legivellum_worker.ledger_calls import Answer, LedgerCalls, Steps
    from legivellum_worker.receipts import EscalationClass, ObligationName

log = logging.getLogger("legivellum_worker")

_CURRENT: ContextVar[ObligationScope | None] = ContextVar("legivellum_obligation", default=None)
_CANCELLATIONS = frozenset({"CancelledError", "KeyboardInterrupt", "SystemExit", "GeneratorExit"})
"""By name: asyncio, concurrent.futures and frameworks each have a CancelledError, and none is imported here."""


def current_obligation() -> ObligationScope | None:
    """The innermost block around the caller, for instance of a function under `@receipted`."""
    return _CURRENT.get()


class ObligationScope:
    """What Obligation and AsyncObligation share: the names, what is recorded at the end, and the steps."""

    def __init__(
        self,
        calls: LedgerCalls,
        *,
        task_id: str | None = None,
        attempt: int | None = None,
        task_type: str | None = None,
        summary: str | None = None,
        body: Any = None,
        inputs: Any = None,
        owner: str | None = None,
        deadline_at: str | None = None,
    ) -> None:
        self._calls = calls
        self.task_id = task_id or new_ulid()
        self._attempt = attempt
        self._opening = {
            "owner": owner or calls.principal,
            "task_type": task_type,
            "summary": summary,
            "body": body,
            "inputs": inputs,
            "deadline_at": deadline_at,
        }
        self._outer: ObligationScope | None = None
        self._opened: RecordedReceipt | None = None
        self._text: str | None = None
        self._artifact: StoredArtifact | Mapping[str, Any] | None = None
        self._usage: Mapping[str, Any] | None = None
        self._is_over = False
        self.not_recorded: ClientError | None = None
        """Why the end could not be recorded, where it could not; the block's own exception is raised then."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.task_id}>"

    # ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def accepted(self) -> RecordedReceipt:
        """The receipt that opened it."""
        if self._opened is None:
            raise RuntimeError("the obligation is opened by its `with`")
        return self._opened

    @property
    def obligation_id(self) -> str:
        return self.accepted.obligation_id

    @property
    def principal_ai(self) -> str:
        return self.accepted.principal_ai

    @property
    def receipt_id(self) -> str:
        return self.accepted.receipt_id

    # ── what is recorded at the end ──────────────────────────────────────────────────────────────────────────────────

    def text(self, text: str) -> None:
        """What came out, up to 64 KiB. Nothing that a block returns or computes is recorded but this."""
        if len(text.encode("utf-8", "surrogatepass")) > receipts.LARGEST_OUTCOME:
            raise ValueError(f"a text may have {receipts.LARGEST_OUTCOME} bytes; store it and name the artifact")
        self._text = text

    def artifact(self, artifact: StoredArtifact | Mapping[str, Any]) -> None:
        """What DepotGate stored, or the `artifact_*` fields of what is elsewhere."""
        self._artifact = artifact

    def usage(self, **usage: Any) -> None:
        """What it cost, for instance `calls=3, tokens=1200`."""
        self._usage = usage

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> Steps[None]:
        outer = _CURRENT.get()
        opening = receipts.accepted(
            self.task_id,
            parent_task_id=None if outer is None or outer.task_id == self.task_id else outer.task_id,
            caused_by=None if outer is None else outer.receipt_id,
            **self._opening,
        )
        if self._attempt is None:
            self._opened = yield from self._calls.claim_attempt(opening)
        else:
            named = {"obligation_id": f"{self.task_id}:{self._attempt}", "attempt": self._attempt}
            self._opened = yield from self._calls.record(opening | named)

    def _close(self, error: BaseException | None) -> Steps[None]:
        """Record how the block ended. Raises only where the block did not."""
        if self._is_over:
            return
        self._is_over = True
        ending = receipts.complete(
            self,
            status="success" if error is None else "canceled" if _is_cancellation(error) else "failure",
            # The type only: the text of an exception may hold what nobody wants in a ledger.
            reason=None if error is None else type(error).__name__,
            text=self._text,
            artifact=self._artifact,
            usage=self._usage,
            started_at=self.accepted.receipt["created_at"],
        )
        try:
            yield from self._calls.record(ending)
        except ClientError as failure:
            self.not_recorded = failure
            if error is None:
                raise
            log.error("end_not_recorded obligation_id=%s reason=%s", self.obligation_id, failure)  # noqa: TRY400
            error.add_note(f"the end of the obligation {self.obligation_id} is not recorded: {failure}")

    def _question(self, to: str, question: str, **more: Any) -> Steps[Question]:
        asked = Question(self.task_id, self.principal_ai, to, question)
        return self._calls.ask(asked, caused_by=self.receipt_id, **more)

    def _escalation(self, to: str, reason: str, escalation_class: EscalationClass) -> Steps[RecordedReceipt]:
        moving = receipts.escalate(self, to, reason, escalation_class=escalation_class)
        recorded = yield from self._calls.record(moving)
        self._is_over = True
        return recorded

    def _begin(self) -> None:
        self._outer = _CURRENT.get()
        _CURRENT.set(self)

    def _end(self) -> None:
        # Not `reset`: a generator or fixture may leave the block in another context than it was entered in.
        _CURRENT.set(self._outer)


class Obligation(ObligationScope):
    """What `Ledger.obligation` returns, for `with`."""

    def __enter__(self) -> Self:
        perform_steps(self._open())
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        perform_steps(self._close(error))

    def ask(self, to: str, question: str, **more: Any) -> Question:
        """Put a question into somebody's inbox. The same question of the same task is asked once, however often.

        `more`: other arguments of `Ledger.accept`, for instance `deadline_at`, `task_type`.
        """
        return perform_steps(self._question(to, question, **more))

    def answer(self, question: ObligationName | str) -> Answer | None:
        """What was written as the question was closed; None while it is open."""
        return perform_steps(self._calls.answer(question))

    def escalate(self, to: str, reason: str, *, escalation_class: EscalationClass = "other") -> RecordedReceipt:
        """Somebody else has it now: what the block does from here on is not recorded as its end."""
        return perform_steps(self._escalation(to, reason, escalation_class))


def _is_cancellation(error: BaseException) -> bool:
    return any(kind.__name__ in _CANCELLATIONS for kind in type(error).__mro__)
