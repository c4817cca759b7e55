"""Obligations: who opens, moves and closes them, and what happens when many try at once."""

import asyncio
from collections import Counter

import pytest
from tests.integration.memorygate.conftest import RunningLedger, accepted, complete, new_id


def code(answer):
    return answer.status_code, answer.json().get("code")


@pytest.mark.invariant("INV-042")
async def test_a_valid_receipt_is_stored_and_read_back_with_equal_content(gate: RunningLedger):
    """What was sent is found by id, task and chain, with the ledger's own fields beside it."""
    alice = gate.peer()
    sent = accepted(
        task_id="t1", principal_ai="alice", task_summary="größer als 1 €", inputs={"n": 1.5, "list": [None, True]}
    )
    answer = await alice.post(sent)
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/receipts/{sent['receipt_id']}"
    document = (await alice.get(f"/receipts/{sent['receipt_id']}")).json()
    by_task = (await alice.get("/receipts/task/t1")).json()["items"]
    by_chain = (await alice.get(f"/receipts/chain/{sent['receipt_id']}")).json()["items"]
    assert [document] == by_task == by_chain
    assert {name: document[name] for name in sent} == sent
    assert document["tenant_id"] == str(gate.tenant)
    assert document["obligation_id"] == "t1"
    assert document["stored_at"] == answer.json()["stored_at"]


@pytest.mark.invariant("INV-051", "EXT-13")
async def test_an_obligation_is_in_its_custodians_inbox_until_it_is_completed(gate: RunningLedger):
    """Accepting shows it, completing removes it, a sibling of the same task stays."""
    alice = gate.peer()
    await alice.accepted(task_id="t", obligation_id="one")
    await alice.accepted(task_id="t", obligation_id="two")
    assert await alice.inbox() == ["one", "two"]
    assert (await alice.complete(task_id="t", obligation_id="one")).status_code == 201
    assert await alice.inbox() == ["two"]


@pytest.mark.invariant("INV-051", "EXT-14", "INV-060")
async def test_escalation_moves_custody_inside_the_obligation(gate: RunningLedger):
    """The target sees it at once, and the former custodian can neither complete nor escalate it any more (D-08)."""
    alice, bob = gate.peer("alice"), gate.peer("bob", "worker")
    await alice.accepted(task_id="t")
    assert (await alice.escalate("bob", task_id="t")).status_code == 201
    assert await alice.inbox() == []
    assert await bob.inbox() == ["t"]
    assert code(await alice.complete(task_id="t")) == (403, "NOT_CUSTODIAN")
    assert code(await alice.escalate("carol", task_id="t")) == (403, "NOT_CUSTODIAN")
    assert (await bob.complete(task_id="t", principal_ai="alice")).status_code == 201
    assert await bob.inbox() == []


@pytest.mark.invariant("EXT-12")
async def test_what_is_over_stays_over(gate: RunningLedger):
    """Accepting, completing or escalating a completed obligation is 409, and completing what nobody accepted too."""
    alice = gate.peer()
    assert code(await alice.complete(task_id="t")) == (409, "OBLIGATION_NOT_ACCEPTED")
    await alice.accepted(task_id="t")
    await alice.complete(task_id="t")
    assert code(await alice.complete(task_id="t")) == (409, "OBLIGATION_ALREADY_TERMINATED")
    assert code(await alice.accepted(task_id="t")) == (409, "OBLIGATION_ALREADY_TERMINATED")
    assert code(await alice.escalate("bob", task_id="t")) == (409, "OBLIGATION_ALREADY_TERMINATED")


@pytest.mark.invariant("INV-122", "INV-045")
@pytest.mark.parametrize("role", ["worker", "service", "component", "admin", "observer"])
async def test_only_principals_and_delegates_open_obligations(gate: RunningLedger, role: str):
    """Every other role is refused, and nothing is stored."""
    peer = gate.peer("eve", role)
    assert code(await peer.accepted(task_id="t")) == (403, "MAY_NOT_EMIT")
    assert (await peer.get("/receipts/task/t")).json()["items"] == []


@pytest.mark.invariant("INV-122")
async def test_a_delegate_opens_for_others_and_a_principal_only_for_itself(gate: RunningLedger):
    """`principal_ai` of a new obligation is the emitter's own, unless a delegate opens it."""
    assert code(await gate.peer("alice").accepted(task_id="a", principal_ai="bob")) == (403, "EMITTER_MISMATCH")
    assert (await gate.peer("planner", "delegate").accepted(task_id="b", principal_ai="bob")).status_code == 201


async def test_acceptance_of_an_open_obligation_is_its_custodians_acknowledgement(gate: RunningLedger):
    """It is stored and changes nothing (D-35); anybody else's is 403."""
    delegate, worker, other = gate.peer("planner", "delegate"), gate.peer("worker", "worker"), gate.peer("other")
    await delegate.accepted(task_id="t", principal_ai="alice", recipient_ai="worker")
    assert (await worker.accepted(task_id="t", principal_ai="alice")).status_code == 201
    assert code(await other.accepted(task_id="t", principal_ai="alice")) == (403, "NOT_CUSTODIAN")
    assert await worker.inbox() == ["t"]
    assert len((await worker.get("/receipts/task/t")).json()["items"]) == 2


async def test_a_receipt_must_name_the_obligations_own_task_and_principal(gate: RunningLedger):
    """Another task is 409, another owner 403; the obligation stays open."""
    alice = gate.peer()
    await alice.accepted(task_id="t", obligation_id="o")
    assert code(await alice.complete(task_id="u", obligation_id="o")) == (409, "TASK_MISMATCH")
    assert code(await alice.complete(task_id="t", obligation_id="o", principal_ai="bob")) == (403, "EMITTER_MISMATCH")
    assert await alice.inbox() == ["o"]


@pytest.mark.invariant("EXT-12", "INV-058")
async def test_of_a_hundred_completions_one_wins(gate: RunningLedger):
    """A hundred different receipts complete one obligation at once: one is stored, the others are 409."""
    alice = gate.peer()
    await alice.accepted(task_id="t")
    answers = await asyncio.gather(*(alice.complete(task_id="t") for _ in range(100)))
    assert Counter(map(code, answers)) == {(201, None): 1, (409, "OBLIGATION_ALREADY_TERMINATED"): 99}
    assert len((await alice.get("/receipts/task/t")).json()["items"]) == 2


@pytest.mark.invariant("INV-058")
async def test_of_a_hundred_openers_one_wins(gate: RunningLedger):
    """A hundred principals open one obligation at once: one has custody, the others are 403."""
    peers = [gate.peer(f"p{n}") for n in range(100)]
    answers = await asyncio.gather(*(peer.accepted(task_id="t", principal_ai=peer.name) for peer in peers))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 403: 99}


@pytest.mark.invariant("EXT-14")
async def test_of_a_hundred_escalations_one_moves_custody(gate: RunningLedger):
    """A hundred escalations to different targets: one is stored, and the others hear that custody has gone."""
    alice = gate.peer()
    await alice.accepted(task_id="t")
    answers = await asyncio.gather(*(alice.escalate(f"target{n}", task_id="t") for n in range(100)))
    assert Counter(map(code, answers)) == {(201, None): 1, (403, "NOT_CUSTODIAN"): 99}
    winner = next(n for n, answer in enumerate(answers) if answer.status_code == 201)
    assert await gate.peer(f"target{winner}").inbox() == ["t"]


@pytest.mark.invariant("INV-058")
async def test_completion_against_escalation_has_one_winner(gate: RunningLedger):
    """Fifty completions race fifty escalations: exactly one of the hundred is stored."""
    alice = gate.peer()
    await alice.accepted(task_id="t")
    answers = await asyncio.gather(
        *(alice.complete(task_id="t") if n % 2 else alice.escalate("bob", task_id="t") for n in range(100))
    )
    assert sum(answer.status_code == 201 for answer in answers) == 1


@pytest.mark.invariant("INV-049")
async def test_the_same_receipt_again_is_a_replay_however_many_send_it(gate: RunningLedger):
    """A hundred identical posts store one receipt; one hears 201, the others 200 with the same answer."""
    alice = gate.peer()
    body = accepted(task_id="t", principal_ai="alice")
    answers = await asyncio.gather(*(alice.post(body) for _ in range(100)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 99}
    assert len({answer.json()["stored_at"] for answer in answers}) == 1
    assert all(a.headers.get("idempotency-replayed") == "true" for a in answers if a.status_code == 200)


@pytest.mark.invariant("INV-049", "INV-058")
async def test_an_id_is_taken_once_whatever_else_the_bodies_say(gate: RunningLedger):
    """A hundred different receipts under one id, on different tasks: one is stored, the others are 409."""
    alice = gate.peer()
    receipt_id = new_id()
    answers = await asyncio.gather(*(alice.accepted(receipt_id=receipt_id, task_id=f"t{n}") for n in range(100)))
    assert Counter(map(code, answers)) == {(201, None): 1, (409, "RECEIPT_CONFLICT"): 99}
    winner = next(answer.json() for answer in answers if answer.status_code == 201)
    assert (await alice.get(f"/receipts/{receipt_id}")).json()["task_id"] == winner["task_id"]


async def test_a_dedupe_key_stands_for_one_receipt_of_its_emitter(gate: RunningLedger):
    """The same work under its key with a new id is a replay of the first; other work is 409; other emitters are free."""
    alice, bob = gate.peer("alice"), gate.peer("bob")
    first = await alice.accepted(task_id="t", dedupe_key="k")
    again = await alice.accepted(task_id="t", dedupe_key="k", created_at="2027-01-01T00:00:00Z")
    assert (again.status_code, again.json()["receipt_id"]) == (200, first.json()["receipt_id"])
    assert code(await alice.accepted(task_id="u", dedupe_key="k")) == (409, "DEDUPE_CONFLICT")
    assert (await bob.accepted(task_id="v", dedupe_key="k")).status_code == 201


async def test_a_dedupe_key_raced_by_a_hundred_has_one_receipt(gate: RunningLedger):
    """A hundred ids for the same work under one key: all hear of one receipt."""
    alice = gate.peer()
    answers = await asyncio.gather(*(alice.accepted(task_id="t", dedupe_key="k") for _ in range(100)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 99}
    assert len({answer.json()["receipt_id"] for answer in answers}) == 1


@pytest.mark.invariant("INV-058")
async def test_emitters_of_every_role_at_once_are_stored_once_and_in_one_order(gate: RunningLedger):
    """Many emitters on many tasks under one root: every receipt once, positions without a gap, time never going back."""
    delegate = gate.peer("planner", "delegate")
    await delegate.accepted(task_id="root", principal_ai="planner")
    await asyncio.gather(
        *(
            delegate.accepted(
                task_id=f"t{n % 10}",
                obligation_id=f"o{n}",
                parent_task_id="root",
                principal_ai="planner",
                recipient_ai=f"w{n % 7}",
            )
            for n in range(80)
        )
    )
    workers = [gate.peer(f"w{n % 7}", ("worker", "service", "component", "admin")[n % 4]) for n in range(80)]
    done = await asyncio.gather(
        *(
            worker.post(complete(task_id=f"t{n % 10}", obligation_id=f"o{n}", principal_ai="planner"))
            for n, worker in enumerate(workers)
        )
    )
    assert {answer.status_code for answer in done} == {201}
    items = []
    for n in range(10):
        page = (await delegate.get(f"/receipts/task/t{n}", limit=500)).json()["items"]
        keys = [(item["stored_at"], item["receipt_id"]) for item in page]
        assert keys == sorted(keys)
        items += page
    assert sorted(item["position"] for item in items) == list(range(2, 162))
    by_position = sorted(items, key=lambda item: item["position"])
    assert [item["stored_at"] for item in by_position] == sorted(item["stored_at"] for item in items)
