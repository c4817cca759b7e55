"""Receipts for who already has agents: the ledger's verbs, and obligations as blocks, for code that blocks.

from legivellum_worker import Ledger

ledger = Ledger("http://memorygate:8001", Path("triage.key"), principal="triage")

with ledger.obligation(task_id=ticket.id, task_type="ticket.triage") as work:
question = work.ask("lead", "Refund 400 EUR?")
answer = work.answer(question)              # None, or what `lead` wrote
work.text("refunded")
"""

from __future__ import annotations

from legivellum_worker import receipts
from legivellum_worker.ledger_calls import Question, perform_steps
from legivellum_worker.ledger_connection import LedgerConnection
from legivellum_worker.obligation import Obligation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Unpack

    from legivellum_worker.ledger_calls import Answer, OpenObligation, RecordedReceipt
    from legivellum_worker.receipts import (
        AcceptedFields,
        CompleteFields,
        EscalateFields,
        ObligationFields,
        ObligationName,
    )


class Ledger(LedgerConnection):
    """Each verb returns when the ledger has answered. Raises NotRecorded after the deadline, Refused for a no."""

    __slots__ = ()

    def accept(self, task_id: str, **fields: Unpack[AcceptedFields]) -> RecordedReceipt:
        """Open an obligation; with `recipient` it is in that principal's custody."""
        return perform_steps(self.calls.record(receipts.accepted(task_id, **self.calls.owned(fields))))

    def complete(self, obligation: ObligationName, **fields: Unpack[CompleteFields]) -> RecordedReceipt:
        """Close an obligation: one that `accept` opened, or an item of the inbox."""
        return perform_steps(self.calls.record(receipts.complete(obligation, **fields)))

    def escalate(
        self, obligation: ObligationName, to: str, reason: str, **fields: Unpack[EscalateFields]
    ) -> RecordedReceipt:
        """Give an obligation to `to`."""
        return perform_steps(self.calls.record(receipts.escalate(obligation, to, reason, **fields)))

    def send(self, receipt: Mapping[str, Any]) -> RecordedReceipt:
        """A receipt as it was made, for instance of NotRecorded: sent again it is a replay."""
        return perform_steps(self.calls.send(receipt))

    def inbox(self, *, task_id: str | None = None) -> list[OpenObligation]:
        """What is open in the principal's custody, oldest first."""
        return perform_steps(self.calls.inbox(**({} if task_id is None else {"task_id": task_id})))

    def receipts(self, task_id: str) -> list[dict[str, Any]]:
        """All receipts of a task, by the ledger's clock."""
        return perform_steps(self.calls.receipts(task_id))

    def ask(self, task_id: str, to: str, question: str, **fields: Unpack[AcceptedFields]) -> Question:
        """Put a question of a task into somebody's inbox; asked twice, it is the same."""
        asked = Question(task_id, fields.pop("owner", None) or self.calls.principal, to, question)
        return perform_steps(self.calls.ask(asked, **fields))

    def answer(self, question: ObligationName | str) -> Answer | None:
        """What was written as the question was closed; None while it is open."""
        return perform_steps(self.calls.answer(question))

    def obligation(self, **fields: Unpack[ObligationFields]) -> Obligation:
        """A block that is an obligation. Without a `task_id` it is a task of its own.

        Without an `attempt` the block is the task's next one.
        """
        return Obligation(self.calls, **fields)
