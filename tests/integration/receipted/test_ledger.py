"""The ledger's verbs from a program: what is stored, what is raised, what a lost answer costs."""

import asyncio
import json

import pytest
from tests.integration.receipted.relayed_ledger import KILLED_AFTER, LOST, REFUSED, RelayedLedger

from legivellum_worker import NotRecorded, Refused


async def test_each_verb(relayed: RelayedLedger) -> None:
    """Opened for somebody, acknowledged in their inbox, escalated, completed: each by its custodian."""

    def act() -> None:
        triage, lead, helper = relayed.ledger(), relayed.ledger("lead"), relayed.ledger("helper")
        task = relayed.task("verbs")
        opened = triage.accept(
            task, recipient="lead", task_type="refund", summary="Refund 400 EUR", inputs={"ticket": 7}
        )
        [item] = lead.inbox(task_id=task)
        assert (item.obligation_id, item.principal_ai, item.summary) == (task, "triage", "Refund 400 EUR")
        assert item.receipt_id == opened.receipt_id
        lead.escalate(item, "helper", "I am on leave", escalation_class="owner")
        assert lead.inbox(task_id=task) == []
        [item] = helper.inbox(task_id=task)
        done = helper.complete(item, text="refunded", usage={"calls": 2}, fields={"for_principal": "customer"})
        assert done.stored_at is not None
        assert [receipt["phase"] for receipt in triage.receipts(task)] == ["accepted", "escalate", "complete"]

    await asyncio.to_thread(act)
    accepted, escalated, completed = await relayed.stored("verbs")
    assert accepted["inputs"] == {"ticket": 7}
    assert escalated["caused_by_receipt_id"] == accepted["receipt_id"]
    assert completed["caused_by_receipt_id"] == escalated["receipt_id"]
    assert (completed["outcome_text"], completed["metadata"]) == ("refunded", {"usage": {"calls": 2}})
    assert completed["for_principal"] == "customer"


async def test_the_same_verbs_on_an_event_loop(relayed: RelayedLedger) -> None:
    triage, lead = relayed.async_ledger(), relayed.async_ledger("lead")
    task = relayed.task("awaited")
    await triage.accept(task, recipient="lead")
    [item] = await lead.inbox(task_id=task)
    await lead.escalate(item, "triage", "yours")
    [item] = await triage.inbox(task_id=task)
    await triage.complete(item, status="canceled", reason="NOT_NEEDED")
    receipts = await triage.receipts(task)
    assert [receipt["phase"] for receipt in receipts] == ["accepted", "escalate", "complete"]
    question = await triage.ask(task, "lead", "Why?")
    assert await triage.answer(question) is None
    await lead.complete((await lead.inbox(task_id=task))[0], text="because")
    assert await triage.answer(question.obligation_id) == "because"


@pytest.mark.parametrize("special", [LOST, REFUSED, (503, "NOT_READY"), (429, "RATE_LIMITED"), (500, "INTERNAL")])
async def test_whatever_happens_to_each_first_call_there_is_one_receipt_of_each(
    relayed: RelayedLedger, special: tuple[int, str] | str
) -> None:
    relayed.answers = [special, None, special, special, None, special]

    def act() -> None:
        ledger = relayed.ledger()
        opened = ledger.accept(relayed.task("lost"))
        ledger.complete(opened)
        assert len(relayed.calls) == 5

    await asyncio.to_thread(act)
    assert await relayed.phases("lost") == ["accepted", "complete success"]


async def test_a_ledger_that_is_killed_after_accepted(relayed: RelayedLedger) -> None:
    """It had stored the receipt and not answered. The completion comes with its restart, and both are there once."""

    def act() -> None:
        ledger = relayed.ledger(seconds=60)
        relayed.answers = [KILLED_AFTER]
        opened = ledger.accept(relayed.task("killed"))
        assert opened.replayed
        relayed.answers = [REFUSED, KILLED_AFTER]
        assert ledger.complete(opened).replayed

    await asyncio.to_thread(act)
    assert await relayed.phases("killed") == ["accepted", "complete success"]


async def test_after_the_deadline_the_receipt_comes_back_to_be_sent_later(relayed: RelayedLedger) -> None:
    """As JSON, by another process: the same receipt, stored once."""
    relayed.always = LOST

    def act() -> None:
        with pytest.raises(NotRecorded, match="is not recorded") as raised:
            relayed.ledger(seconds=0.5).accept(relayed.task("later"), summary="Later")
        assert len(relayed.calls) > 1
        relayed.always = None
        kept = json.loads(json.dumps(raised.value.receipt))
        assert relayed.ledger().send(kept).replayed
        assert relayed.ledger().send(kept).replayed

    await asyncio.to_thread(act)
    assert await relayed.phases("later") == ["accepted"]


async def test_a_silent_ledger_costs_no_more_than_the_deadline(relayed: RelayedLedger) -> None:
    relayed.may_pass.clear()
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(NotRecorded):
        await relayed.async_ledger(seconds=0.3).accept(relayed.task("silent"))
    assert loop.time() - began < 5
    relayed.may_pass.set()


async def test_a_refusal_is_final_and_says_its_code(relayed: RelayedLedger) -> None:
    def act() -> None:
        ledger = relayed.ledger()
        opened = ledger.accept(relayed.task("refused"), recipient="lead")
        for code, refused in (
            ("NOT_CUSTODIAN", lambda: ledger.complete(opened)),
            ("RECIPIENT_UNKNOWN", lambda: ledger.accept(relayed.task("nobody"), recipient="no-such")),
            ("EMITTER_MISMATCH", lambda: ledger.accept(relayed.task("others"), owner="lead")),
        ):
            before = len(relayed.calls)
            with pytest.raises(Refused, match=code) as raised:
                refused()
            assert raised.value.code == code
            assert len(relayed.calls) == before + 1

    await asyncio.to_thread(act)


async def test_a_question_is_asked_once_and_answered_once(relayed: RelayedLedger) -> None:
    """From two processes, with and without another cause, after the answer too: one obligation."""
    task = relayed.task("question")

    def act() -> None:
        first, second, lead = relayed.ledger(), relayed.ledger(), relayed.ledger("lead")
        asked = first.ask(task, "lead", "Refund 400 EUR?")
        again = second.ask(task, "lead", "Refund 400 EUR?", caused_by=asked.receipt_id)
        assert again.obligation_id == asked.obligation_id
        assert again.receipt_id == asked.receipt_id
        assert first.ask(task, "lead", "Refund 500 EUR?").obligation_id != asked.obligation_id
        assert first.answer(asked) is None
        [item, _] = lead.inbox(task_id=task)
        assert item.receipt["task_body"] == "Refund 400 EUR?"
        lead.complete(item, status="failure", text="too much")
        answer = second.answer(again)
        assert answer == "too much"
        assert answer is not None
        assert (answer.by, answer.status, answer.approved) == ("lead", "failure", False)
        assert first.ask(task, "lead", "Refund 400 EUR?").receipt_id == asked.receipt_id
        assert first.answer("no-such-question") is None

    await asyncio.to_thread(act)
    assert await relayed.phases("question") == ["accepted", "accepted", "complete failure"]
