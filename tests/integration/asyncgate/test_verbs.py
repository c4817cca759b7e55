"""What each verb stores: state and receipts in one commit, and nothing where it is refused."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from tests.integration.asyncgate.conftest import TaskDatabase, Tenant, append, receipt_body, task_of
from tests.integration.memorygate.conftest import new_id, rows

from asyncgate.task import EMITTER, LeaseTerms, TaskAdmission
from legivellum.receipts.receipt import Receipt, examine
from memorygate.verifying import verify


@pytest.mark.invariant("INV-062", "INV-069", "INV-073")
async def test_a_task_goes_through_its_life(tenant: Tenant):
    """Parked, leased, returned: each with its receipts, each caused by the one before; then it is archived and nobody gets it again."""
    task = task_of(tenant.uid)
    [parked] = await tenant.park(task)
    [lease] = await tenant.lease()
    assert (lease.task, lease.number, lease.task_id) == (task.document, 1, task.task_id)
    ended = await tenant.complete(lease.lease_id, outcome_kind="response_text", outcome_text="done", body={"score": 1})
    assert ended.name == "ENDED"
    accepted, _, issued, complete = receipts = await tenant.receipts()
    assert [receipt["phase"] for receipt in receipts] == ["accepted", "queued", "lease_issued", "complete"]
    assert accepted["body"] == json.loads(task.document)
    assert accepted["receipt_id"] == parked.accepted_receipt_id
    assert [receipt["caused_by_receipt_id"] for receipt in receipts[1:]] == [
        receipt["receipt_id"] for receipt in receipts[:-1]
    ]
    assert (issued["recipient_ai"], issued["attempt"]) == ("worker", 1)
    assert issued["body"] == {"lease_id": lease.lease_id, "evidence": [], "expires_at": issued["body"]["expires_at"]}
    assert (complete["outcome_text"], complete["status"]) == ("done", "success")
    assert complete["body"] == {"claimed_by": "worker", "lease_number": 1, "claim": {"score": 1}}
    assert ended.value is not None
    assert ended.value.receipt_id == complete["receipt_id"]
    assert await tenant.lease() == ()
    view = await tenant.database.task(tenant.uid, task.task_id)
    assert view is not None
    assert view.ended is not None
    assert (view.state, view.ended.how, view.ended.receipt_id) == ("ended", "returned", complete["receipt_id"])


@pytest.mark.invariant("INV-062")
async def test_the_same_task_again_is_a_replay_and_another_one_a_conflict(tenant: Tenant):
    """Also in the same statement, and after it has ended; no second receipt."""
    task, other = task_of(tenant.uid), task_of(tenant.uid)
    await tenant.mint(task, other)
    changed = task_of(tenant.uid, task.task_id, capability="another")
    assert [outcome.name for outcome in await tenant.enqueue(task, task, changed, other)] == [
        "PARKED",
        "REPLAYED",
        "TASK_CONFLICT",
        "PARKED",
    ]
    [first, again] = [*await tenant.enqueue(task), *await tenant.enqueue(changed)]
    assert (first.name, again.name) == ("REPLAYED", "TASK_CONFLICT")
    assert first.value is not None
    accepted = (await tenant.receipts(task.task_id))[0]
    assert first.value.accepted_receipt_id == accepted["receipt_id"]
    [lease, _] = await tenant.lease(most=2)
    assert (await tenant.complete(lease.lease_id)).name == "ENDED"
    [late] = await tenant.enqueue(task)
    assert late.name == "REPLAYED"
    assert late.value is not None
    assert (late.value.accepted_receipt_id, late.value.available_at) == (accepted["receipt_id"], None)
    assert await tenant.phases(task.task_id) == ["accepted", "queued", "lease_issued", "complete"]


async def test_each_refusal_of_parking_leaves_no_row_and_no_receipt(tenant: Tenant):
    mine, unknown, closed, elsewhere = (task_of(tenant.uid) for _ in range(4))
    await tenant.mint(mine, closed)
    await tenant.mint_elsewhere(elsewhere.task_id)
    await append(tenant.dsn, [receipt_body(tenant.uid, EMITTER, phase="complete", task_id=closed.task_id, principal_ai="alice", status="canceled",
                                           outcome_kind="none", completed_at="2027-01-01T00:00:00Z")], "custodian")  # fmt: skip
    tasks = {
        "OBLIGATION_NOT_ACCEPTED": unknown,
        "OBLIGATION_ALREADY_TERMINATED": closed,
        "NOT_CUSTODIAN": elsewhere,
        "EMITTER_MISMATCH": task_of(tenant.uid, mine.task_id, principal_ai="bob"),
        "TASK_MISMATCH": task_of(tenant.uid, obligation_id=mine.obligation_id),
    }
    before = await tenant.phases()
    assert [outcome.name for outcome in await tenant.enqueue(*tasks.values())] == list(tasks)
    [needing] = await tenant.enqueue(task_of(tenant.uid, mine.task_id, needs=("nobody-minted-it",)))
    assert (needing.name, needing.detail) == ("OBLIGATION_NOT_ACCEPTED", "nobody-minted-it")
    assert await tenant.phases() == before
    assert (await tenant.database.tasks(tenant.uid, capability=None, state=None, after=None, limit=10)).items == ()


async def test_all_or_none_parks_none_where_one_is_refused(tenant: Tenant):
    good, bad = task_of(tenant.uid), task_of(tenant.uid)
    await tenant.mint(good)
    assert [outcome.name for outcome in await tenant.enqueue(good, bad, all_or_none=True)] == [
        "GROUP_REFUSED",
        "OBLIGATION_NOT_ACCEPTED",
    ]
    assert await tenant.phases() == []
    assert [outcome.name for outcome in await tenant.enqueue(good, bad)] == ["PARKED", "OBLIGATION_NOT_ACCEPTED"]


async def test_an_admission_admits_one_task_and_says_how_deep_it_is(tenant: Tenant):
    """A child of a task that is here is one deeper; what has neither begins at 0."""
    admission = TaskAdmission(new_id(), 4)
    first, second, root = task_of(tenant.uid), task_of(tenant.uid), task_of(tenant.uid)
    child = task_of(tenant.uid, parent_task_id=first.task_id)
    grandchild = task_of(tenant.uid, parent_task_id=child.task_id)
    await tenant.park(first, admission=admission)
    await tenant.mint(second)
    assert [outcome.name for outcome in await tenant.enqueue(second, admission=admission)] == ["ADMISSION_USED"]
    await tenant.park(root, child, grandchild)
    depths = {lease.task_id: lease.depth for lease in await tenant.lease(most=9)}
    assert depths == {first.task_id: 4, root.task_id: 0, child.task_id: 5, grandchild.task_id: 6}


@pytest.mark.invariant("INV-070")
async def test_the_oldest_comes_first_and_what_comes_back_joins_at_the_end(tenant: Tenant):
    tasks = [task_of(tenant.uid) for _ in range(4)]
    await tenant.park(*tasks)
    [first] = await tenant.lease()
    assert first.task_id == tasks[0].task_id
    assert (await tenant.release(first.lease_id, reason="not now")).name == "RELEASED"
    [second] = await tenant.lease()
    await tenant.expire(second.lease_id)
    leases = [*await tenant.lease(most=2), *await tenant.lease(most=2)]
    assert [lease.task_id for lease in leases] == [
        tasks[2].task_id,
        tasks[3].task_id,
        tasks[0].task_id,
        tasks[1].task_id,
    ]
    queued = (await tenant.receipts(tasks[0].task_id))[3]
    assert (queued["phase"], queued["body"]["reason"]) == ("queued", "not now")


@pytest.mark.invariant("INV-065", "EXT-23")
async def test_what_is_not_yet_available_blocks_nobody(tenant: Tenant):
    """A task before its time, one with a need, one of another mailbox and another tenant's are not seen."""
    soon = datetime.now(UTC) + timedelta(seconds=0.6)
    later, needing = task_of(tenant.uid, not_before=soon), task_of(tenant.uid, needs=("n",))
    other, open_one = task_of(tenant.uid, capability="other"), task_of(tenant.uid)
    await tenant.mint_elsewhere("n")
    await tenant.park(later, needing, other, open_one)
    stranger = Tenant(tenant.database, tenant.dsn)
    await stranger.park(task_of(stranger.uid))
    assert [lease.task_id for lease in await tenant.lease(most=9)] == [open_one.task_id]
    async with asyncio.timeout(5):
        while not (leases := await tenant.lease(most=9)):
            await asyncio.sleep(0.02)
    assert datetime.now(UTC) >= soon
    assert [lease.task_id for lease in leases] == [later.task_id]


async def test_a_worker_of_many_mailboxes_gets_the_oldest_of_all(tenant: Tenant):
    tasks = [task_of(tenant.uid, capability=name) for name in ("b", "a", "c", "a")]
    await tenant.park(*tasks)
    leases = await tenant.lease("worker", "a", "b", "a", most=3)
    assert [lease.task_id for lease in leases] == [tasks[0].task_id, tasks[1].task_id, tasks[3].task_id]


@pytest.mark.invariant("INV-066", "INV-073")
async def test_an_overdue_lease_is_taken_over_with_the_receipts_of_all_that_happened(tenant: Tenant):
    task = task_of(tenant.uid)
    await tenant.park(task)
    [old] = await tenant.lease("first")
    await tenant.expire(old.lease_id)
    [new] = await tenant.lease("second")
    assert (new.number, new.lease_id != old.lease_id) == (2, True)
    *_, issued, expired, reissued, reassigned = await tenant.receipts()
    assert [item["phase"] for item in (issued, expired, reissued, reassigned)] == [
        "lease_issued",
        "expired",
        "lease_issued",
        "reassigned",
    ]
    assert expired["caused_by_receipt_id"] == issued["receipt_id"]
    assert expired["body"] == {"holder": "first", "lease_id": old.lease_id}
    assert reissued["caused_by_receipt_id"] == expired["receipt_id"]
    assert reassigned["body"] == {"from": "first", "to": "second"}
    assert (await tenant.complete(new.lease_id, "second")).name == "ENDED"


@pytest.mark.invariant("INV-073")
async def test_the_same_worker_again_is_no_reassignment(tenant: Tenant):
    await tenant.park(task_of(tenant.uid))
    [lease] = await tenant.lease()
    await tenant.expire(lease.lease_id)
    await tenant.lease()
    assert await tenant.phases() == ["accepted", "queued", "lease_issued", "expired", "lease_issued"]


async def test_a_key_again_answers_the_leases_that_are_live_and_issues_none(tenant: Tenant):
    await tenant.park(*(task_of(tenant.uid) for _ in range(4)))
    leases = await tenant.lease(most=2, idempotency_key="k")
    assert [lease.lease_id for lease in await tenant.lease(most=2, idempotency_key="k")] == [
        lease.lease_id for lease in leases
    ]
    await tenant.complete(leases[0].lease_id)
    assert [lease.lease_id for lease in await tenant.lease(most=2, idempotency_key="k")] == [leases[1].lease_id]
    assert len(await tenant.lease("other", most=1, idempotency_key="k")) == 1
    assert (await tenant.phases()).count("lease_issued") == 3


async def test_time_is_clipped_to_what_the_task_allows(tenant: Tenant):
    """Renewals leave no receipt, are counted, end at the latest expiry and never shorten a lease."""
    terms = LeaseTerms(ttl_seconds=30, max_ttl_seconds=100, max_renewals=3, max_lifetime_seconds=150)
    await tenant.park(task_of(tenant.uid, terms=terms))
    [lease] = await tenant.lease(ttl_seconds=900)
    assert 99_000 < lease.expires_in_ms <= 100_000
    assert lease.latest_expiry - lease.issued_at == timedelta(seconds=150)
    short = await tenant.renew(lease.lease_id, ttl_seconds=5)
    assert (short.name, short.value.expires_at, short.value.renewals_left) == ("RENEWED", lease.expires_at, 2)
    await tenant.execute(
        "UPDATE asyncgate.task SET latest_expiry = clock_timestamp() + interval '100.1 s' WHERE tenant = $1", tenant.uid
    )
    await asyncio.sleep(0.15)
    last = await tenant.renew(lease.lease_id, ttl_seconds=100)
    assert 99_800 < last.value.expires_in_ms < 100_000
    assert (await tenant.renew(lease.lease_id)).name == "LEASE_EXHAUSTED"
    assert (await tenant.phases())[-1] == "lease_issued"


async def test_renewals_are_counted(tenant: Tenant):
    terms = LeaseTerms(ttl_seconds=30, max_ttl_seconds=100, max_renewals=2, max_lifetime_seconds=150)
    await tenant.park(task_of(tenant.uid, terms=terms))
    [lease] = await tenant.lease()
    assert [(await tenant.renew(lease.lease_id)).name for _ in range(3)] == ["RENEWED", "RENEWED", "LEASE_EXHAUSTED"]


async def test_a_released_task_comes_again_when_its_worker_said(tenant: Tenant):
    await tenant.park(task_of(tenant.uid))
    [lease] = await tenant.lease()
    released = await tenant.release(lease.lease_id, again_after_seconds=0.4)
    assert await tenant.lease() == ()
    async with asyncio.timeout(5):
        while not await tenant.lease():
            await asyncio.sleep(0.02)
    assert datetime.now(UTC) >= released.value.available_at


@pytest.mark.invariant("INV-075", "INV-069")
async def test_a_failure_ends_a_task_like_a_success_and_the_same_claim_again_is_answered_alike(tenant: Tenant):
    for status in ("success", "failure", "canceled"):
        await tenant.park(task_of(tenant.uid))
        [lease] = await tenant.lease()
        first = await tenant.complete(lease.lease_id, status=status)
        again = await tenant.complete(lease.lease_id, status=status)
        assert (first.name, again.name, again.value) == ("ENDED", "REPLAYED", first.value)
        assert (
            await tenant.complete(lease.lease_id, status=status, outcome_kind="response_text", outcome_text="other")
        ).name == "LEASE_LOST"
    assert [
        view.ended.how
        for view in (await tenant.database.tasks(tenant.uid, capability=None, state="ended", after=None, limit=9)).items
        if view.ended
    ] == ["returned"] * 3
    columns = await rows(
        tenant.dsn, "SELECT column_name::text FROM information_schema.columns WHERE table_schema = 'asyncgate'"
    )
    assert not {"outcome", "status", "progress", "result", "payload"} & {name for (name,) in columns}


async def test_escalating_gives_custody_to_whom_the_task_permits(tenant: Tenant):
    task = task_of(tenant.uid, escalation_to=("alice", "bob"))
    await tenant.park(task)
    [lease] = await tenant.lease()
    assert (await tenant.escalate(lease.lease_id, "mallory")).name == "ESCALATION_NOT_PERMITTED"
    held = await tenant.database.held_lease(tenant.uid, "worker", lease.lease_id)
    assert held is not None
    assert held.escalation_to == ("alice", "bob")
    first, again = await tenant.escalate(lease.lease_id, "bob"), await tenant.escalate(lease.lease_id, "bob")
    assert (first.name, again.name, again.value) == ("ENDED", "REPLAYED", first.value)
    custodians = await rows(
        tenant.dsn, "SELECT custodian, state FROM memorygate.obligation WHERE tenant = $1", tenant.uid
    )
    assert custodians == [("bob", "open")]
    assert (await tenant.receipts())[-1]["escalation_class"] == "capability"
    await tenant.park(task_of(tenant.uid, escalation_to=()))
    [lease] = await tenant.lease()
    assert (await tenant.escalate(lease.lease_id, "alice")).name == "ESCALATION_NOT_PERMITTED"


@pytest.mark.invariant("EXT-21")
@pytest.mark.parametrize("by", ["pass", "stale call", "release", "revoke"])
async def test_a_task_that_was_leased_as_often_as_it_may_be_is_escalated(tenant: Tenant, by: str):
    """By whoever ends the last lease: with the receipt of that, and an escalation to the principal."""
    task = task_of(tenant.uid, max_leases=2, escalation_to=())
    await tenant.park(task)
    [first] = await tenant.lease()
    await tenant.expire(first.lease_id)
    [last] = await tenant.lease()
    if by == "release":
        assert (await tenant.release(last.lease_id)).value.available_at is None
    elif by == "revoke":
        [revoked] = await tenant.database.revoke([tenant.revocation(task.task_id, whole_task=False)])
        assert (revoked.name, revoked.value is not None and revoked.value.lease_ended) == ("REVOKED", True)
    else:
        await tenant.expire(last.lease_id)
        assert await tenant.lease() == ()
        if by == "pass":
            assert await tenant.keep_books() is not None
        else:
            assert (await tenant.complete(last.lease_id)).name == "LEASE_LOST"
    *_, before, escalated = await tenant.receipts()
    assert before["phase"] == {"release": "queued", "revoke": "revoked"}.get(by, "expired")
    assert (escalated["phase"], escalated["escalation_class"], escalated["recipient_ai"]) == (
        "escalate",
        "other",
        "alice",
    )
    assert escalated["caused_by_receipt_id"] == before["receipt_id"]
    assert await tenant.lease() == ()


async def test_bodies_are_receipts_byte_for_byte(tenant: Tenant, task_database: TaskDatabase):
    """With names that need escapes in JSON, and text that a database or a regular expression would take for its own."""
    names = {"alice": 'q"uote\\back', "worker": "Ünïcode \u00e4\U0001f600 {T}", "minter": "$1 \\1 %s"}
    task = task_of(
        tenant.uid, f'task "{new_id()}" \\n', principal_ai=names["alice"], escalation_to=(names["alice"],), task_summary='summary " \\u001eT', max_leases=2,
        task_type="ty\\pe", authority='{"spawn":{"max":1}}',
    )  # fmt: skip
    await tenant.park(task, minter=names["minter"])
    [lease] = await tenant.lease(names["worker"])
    await tenant.release(lease.lease_id, names["worker"], reason='line\nbreak \u2028 \x1eT \u0007 "q"')
    [lease] = await tenant.lease(names["worker"] + "2")
    text = "a \u2028 b \x1eI \x1eT \\x1e \U0001f600"
    claim = {
        "body": {"\u2028": [text, {"\x1eC": 1.5}]},
        "metadata": {"x": text},
        "outcome_kind": "response_text",
        "outcome_text": text,
    }
    assert (await tenant.complete(lease.lease_id, names["worker"] + "2", **claim)).name == "ENDED"
    poison = task_of(tenant.uid, principal_ai=names["alice"], escalation_to=(), max_leases=1)
    await tenant.park(poison)
    [lease] = await tenant.lease()
    await tenant.expire(lease.lease_id)
    await tenant.keep_books()
    revoked = task_of(tenant.uid, principal_ai=names["alice"])
    await tenant.park(revoked)
    await tenant.database.revoke([tenant.revocation(revoked.task_id, by=names["worker"], reason=text)])
    stored = await rows(
        tenant.dsn, "SELECT body FROM memorygate.receipt WHERE tenant = $1 AND body LIKE '%svc:asyncgate%'", tenant.uid
    )
    phases = set()
    for (body,) in stored:
        sent = json.loads(body)
        if sent["emitter"] != EMITTER:
            continue
        phases.add(sent["phase"])
        receipt = examine(sent, tenant=str(tenant.uid), emitter=EMITTER)
        assert isinstance(receipt, Receipt), (sent, receipt)
        assert receipt.form.decode() == body
    assert phases == {"accepted", "queued", "lease_issued", "reassigned", "expired", "revoked", "complete", "escalate"}
    assert (await verify(task_database.ledger.auditor)).bad is None
    completes = [receipt for receipt in await tenant.receipts(task.task_id) if receipt["phase"] == "complete"]
    assert completes[0]["body"]["claim"] == claim["body"]
    assert completes[0]["outcome_text"] == text


async def test_depth_counts_each_mailbox_that_is_not_empty(tenant: Tenant):
    await tenant.mint_elsewhere("n")
    await tenant.park(
        *(task_of(tenant.uid, capability="a") for _ in range(3)), task_of(tenant.uid, capability="a", needs=("n",)),
        task_of(tenant.uid, capability="b", not_before=datetime.now(UTC) + timedelta(hours=1)), task_of(tenant.uid, capability="c"),
    )  # fmt: skip
    [lease] = await tenant.lease("worker", "c")
    [overdue] = await tenant.lease("worker", "a")
    await tenant.expire(overdue.lease_id)
    depths, as_of = await tenant.database.depth(tenant.uid)
    assert [(d.capability, d.waiting, d.held_back, d.leased) for d in depths] == [
        ("a", 3, 1, 0),
        ("b", 0, 1, 0),
        ("c", 0, 0, 1),
    ]
    assert depths[0].oldest_available_at is not None
    assert depths[0].oldest_available_at < as_of
    assert depths[1].oldest_available_at is None
    [only], _ = await tenant.database.depth(tenant.uid, "b")
    assert only == depths[1]
    assert (await tenant.database.depth(tenant.uid, "nothing"))[0] == ()
    await tenant.complete(lease.lease_id)


async def test_a_page_of_tasks_goes_on_where_the_last_one_ended(tenant: Tenant):
    tasks = [task_of(tenant.uid, capability="x" if number % 2 else "y") for number in range(7)]
    await tenant.park(*tasks)
    [lease] = await tenant.lease("worker", "y")
    seen, after = [], None
    while True:
        page = await tenant.database.tasks(tenant.uid, capability=None, state=None, after=after, limit=3)
        seen += [item.task_id for item in page.items]
        if (after := page.next_after) is None:
            break
    assert seen == sorted(task.task_id for task in tasks)
    leased = await tenant.database.tasks(tenant.uid, capability="y", state="leased", after=None, limit=9)
    assert [(item.task_id, item.lease and (item.lease.holder, item.lease.number)) for item in leased.items] == [
        (lease.task_id, ("worker", 1))
    ]


@pytest.mark.parametrize("looked_at", [1, 4, 100])
async def test_pages_of_one_state_hold_all_of_it(tenant: Tenant, monkeypatch: pytest.MonkeyPatch, looked_at: int):
    """Where a page looks at a few tasks only it may hold none and go on; together they are the tasks of that state."""
    monkeypatch.setattr("asyncgate.database.LOOKED_AT", looked_at)
    tasks = [task_of(tenant.uid, capability=f"box-{number % 3}") for number in range(24)]
    later = [task_of(tenant.uid, not_before=datetime.now(UTC) + timedelta(days=1)) for _ in range(5)]
    await tenant.park(*tasks, *later)
    leases = await tenant.lease("worker", "box-1", most=6)
    truth = {
        "leased": {lease.task_id for lease in leases},
        "waiting": {task.task_id for task in tasks} - {lease.task_id for lease in leases},
        "held_back": {task.task_id for task in later},
    }
    for state, task_ids in truth.items():
        for capability in (None, "box-1"):
            seen: list[str] = []
            after = None
            while True:
                page = await tenant.database.tasks(tenant.uid, capability=capability, state=state, after=after, limit=2)
                assert len(page.items) <= 2
                assert {item.state for item in page.items} <= {state}
                seen += [item.task_id for item in page.items]
                if (after := page.next_after) is None:
                    break
            boxes = {task.task_id for task in tasks if task.capability == "box-1"}
            assert seen == sorted(task_ids if capability is None else task_ids & boxes)


async def test_an_admission_is_shown_while_it_is_young(tenant: Tenant):
    """Ten minutes; and no other receipt, and no other tenant's."""
    body = receipt_body(
        tenant.uid, "svc:interrogate", kind="admission", phase="accepted", task_id="t", principal_ai="alice"
    )
    assert await append(tenant.dsn, [body], "emit") == ["STORED"]
    receipt_id = json.loads(body)["receipt_id"]
    [parked] = await tenant.park(task_of(tenant.uid))
    asked = ["nobody's", receipt_id, parked.accepted_receipt_id, receipt_id]
    assert await tenant.database.admissions(tenant.uid, asked) == [None, body, None, body]
    assert await tenant.database.admissions(Tenant(tenant.database, tenant.dsn).uid, [receipt_id]) == [None]
    await tenant.execute(
        "UPDATE memorygate.receipt SET stored_at = stored_at - interval '11 minutes' WHERE receipt_id = $1", receipt_id
    )
    assert await tenant.database.admissions(tenant.uid, [receipt_id]) == [None]
