"""A ticket: read, and refunded if `lead` says so. Start it again as often as you like."""

import sys
from pathlib import Path

from legivellum_worker import Ledger, receipted

ledger = Ledger("http://127.0.0.1:8001", Path("triage.key"), principal="triage")


@receipted(ledger, task_type="ticket.read", text=str)
def amount(ticket: str) -> int:
    return len(ticket) * 100  # whatever your agent does


with ledger.obligation(task_id=sys.argv[1], task_type="ticket.triage", summary="A customer wants a refund") as work:
    question = work.ask("lead", f"Refund {amount(sys.argv[1])} EUR?")
    answer = work.answer(question)
    if answer is None:
        work.text("waits for lead")
    else:
        work.text("refunded" if answer.approved else "declined")
    print(answer or "no answer yet", work.obligation_id)
