"""Calls of tools in the database: two receipts, one row, one outcome (GW-10, GW-12 to GW-15)."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from tests.integration.interrogate.calling import ANSWERED, CallingGate, calling, mail_policy, mail_problemata
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.leases import issuing
from tests.integration.memorygate.conftest import new_id, rows

from interrogate.call_recorder import CallRecorder, OutcomeUnrecorded
from interrogate.calls import CallFilter
from interrogate.decision import ReasonCode
from interrogate.observation import Requester
from interrogate.replaying import replay
from interrogate.sweeping import ForwardSweep
from interrogate.tool_call import CallOutcome
from interrogate.verifying import verify
from legivellum.base.json_digest import json_digest
from legivellum.http.problems import RequestRefused


@pytest_asyncio.fixture(loop_scope="session")
async def gate(admission_database: AdmissionDatabase) -> AsyncIterator[CallingGate]:
    async with calling(admission_database) as made:
        yield made


@pytest.mark.invariant("EXT-30", "INV-119")
async def test_a_call_is_two_receipts_of_one_task_and_one_row(gate: CallingGate) -> None:
    """Accepted with the tool before, complete with the outcome after; never an argument or a result."""
    admission, evaluation = await gate.decide(arguments={"to": "secret@example.org"})
    pending = await gate.recorder.outcome_of(gate.world.tenant, admission.receipt_id)
    assert pending is not None
    assert (pending.outcome, pending.outcome_receipt_id) == ("pending", None)
    row = await gate.settle(admission)
    (accepted, first), (complete, second) = await gate.receipts(admission.receipt_id)
    assert (accepted, complete) == ("accepted", "complete")
    receipt, outcome = json.loads(first), json.loads(second)
    pin = gate.request().tool_call
    assert pin is not None
    assert receipt["body"]["tool"] == {
        "problemata": "mail", "exposed_name": "mail.send_email", "target": "mailserver", "name": "send_email",
        "digest": pin.pin.digest, "timeout_ms": 2_000,
    }  # fmt: skip
    assert receipt["body"]["claimed"]["client"] == "agent 1.0"
    assert receipt["task_id"] == outcome["task_id"] == receipt["receipt_id"] == outcome["caused_by_receipt_id"]
    assert (outcome["status"], outcome["outcome_kind"], outcome["task_type"]) == ("success", "none", "tool_call")
    assert outcome["body"] == {
        "v": 1, "level": "tool", "code": None, "result_sha256": "a" * 64, "result_bytes": 12, "duration_us": 1_500,
        "protocol": "2026-07-28", "attempts": 1,
    }  # fmt: skip
    assert "secret@example.org" not in first + second
    assert (row.outcome, row.outcome_receipt_id, row.at) == (
        "success",
        outcome["receipt_id"],
        evaluation.stored.stored_at,
    )
    assert row.arguments_sha256 == json_digest({"to": "secret@example.org"})
    assert (row.principal_key, row.problemata, row.tool, row.duration_us) == ("alice", "mail", "send_email", 1_500)


@pytest.mark.parametrize(
    ("outcome", "phase", "status", "row_outcome"),
    [
        (replace(ANSWERED, state="tool_error"), "complete", "failure", "tool_error"),
        (replace(ANSWERED, state="protocol_error", code=-32602), "complete", "failure", "protocol_error"),
        (CallOutcome(duration_us=900, attempts=1, reason="BROKEN"), "escalate", "NA", "BROKEN"),
        (CallOutcome(duration_us=5, attempts=0, reason="TOOL_CHANGED"), "escalate", "NA", "TOOL_CHANGED"),
    ],
)
async def test_every_way_to_end_is_one_receipt(
    gate: CallingGate, outcome: CallOutcome, phase: str, status: str, row_outcome: str
) -> None:
    admission, _ = await gate.decide()
    row = await gate.settle(admission, outcome)
    assert row.outcome == row_outcome
    _, (stored_phase, body) = await gate.receipts(admission.receipt_id)
    receipt = json.loads(body)
    assert (stored_phase, receipt["status"]) == (phase, status)
    if phase == "escalate":
        assert receipt["recipient_ai"] == "alice"
        assert receipt["body"] == {
            "v": 1, "reason": outcome.reason, "duration_us": outcome.duration_us, "attempts": outcome.attempts,
        }  # fmt: skip
    else:
        assert receipt["body"]["level"] == ("protocol" if row_outcome == "protocol_error" else "tool")
    assert (await verify(gate.world.database.ledger.auditor)).bad is None


async def test_an_escalation_goes_to_whom_the_surface_names(gate: CallingGate) -> None:
    await gate.publish(policies={"front-desk": mail_policy(surface={"escalateTo": "operator-on-call"})})
    admission, _ = await gate.decide()
    await gate.settle(admission, CallOutcome(duration_us=1, attempts=1, reason="TIMEOUT"))
    _, (_, body) = await gate.receipts(admission.receipt_id)
    assert json.loads(body)["escalation_to"] == "operator-on-call"


async def test_a_call_has_one_outcome_however_many_come(gate: CallingGate) -> None:
    """The sweep of one process and the answer of another, at the same moment and later."""
    admission, _ = await gate.decide()
    lost = CallOutcome(duration_us=None, attempts=None, reason="OUTCOME_UNKNOWN")
    answers = await asyncio.gather(*(gate.settle(admission, lost if number % 2 else ANSWERED) for number in range(8)))
    answers.append(await gate.settle(admission, lost))
    assert len({(row.outcome, row.outcome_receipt_id) for row in answers}) == 1
    assert len(await gate.receipts(admission.receipt_id)) == 2


async def test_a_denied_call_has_a_row_and_no_outcome(gate: CallingGate) -> None:
    await gate.publish(policies={"front-desk": mail_policy(surface={"capabilities": {"allow": ["mail.read"]}})})
    admission, _ = await gate.decide()
    assert admission.decision.reason_code is ReasonCode.CAPABILITY_DENIED
    row = await gate.recorder.outcome_of(gate.world.tenant, admission.receipt_id)
    assert row is not None
    assert (row.outcome, row.reason_code, row.outcome_receipt_id) == ("denied", "CAPABILITY_DENIED", None)


async def test_the_same_key_calls_once_and_another_call_under_it_is_refused(gate: CallingGate) -> None:
    first, evaluation = await gate.decide(key="k-1")
    assert not evaluation.replayed
    await gate.settle(first)
    again, evaluation = await gate.decide(key="k-1")
    assert evaluation.replayed
    assert again.receipt_id == first.receipt_id
    row = await gate.recorder.outcome_of(gate.world.tenant, again.receipt_id)
    assert row is not None
    assert row.outcome == "success"
    assert again.tool == first.tool
    for other in ({"arguments": {"to": "eve"}}, {"capability": "mail.read"}):
        with pytest.raises(RequestRefused) as refused:
            await gate.decide(key="k-1", **other)
        assert refused.value.problem.code.name == "IDEMPOTENCY_CONFLICT"


async def test_the_same_key_for_the_same_tool_of_another_problemata_is_another_call(gate: CallingGate) -> None:
    await gate.publish(problematas={"post": mail_problemata()})
    await gate.decide(key="k-2")
    with pytest.raises(RequestRefused):
        await gate.decide(key="k-2", problemata="post")


async def test_integers_beyond_2_53_are_arguments_of_their_own(gate: CallingGate) -> None:
    digests = set()
    for number in (2**53, 2**53 + 1, 2**80):
        admission, _ = await gate.decide(arguments={"n": number, "x": 1.5, "ö": [None, True]})
        digests.add(admission.envelope.payload_sha256)
    assert len(digests) == 3


@pytest.mark.invariant("INV-106")
async def test_calls_of_a_tree_count_for_the_repeats_of_their_capability_and_for_nothing_else(
    gate: CallingGate,
) -> None:
    """ "At most three searches per root": depth, fuel and descendants are of tasks, and a call begins none."""
    await gate.publish(
        policies={
            "front-desk": mail_policy(
                limits={"maxSpawnDepth": 0, "maxTotalDescendants": 0, "maxRepeatsPerCapability": 3},
                budget={"required": True, "initial": 1},
            )
        }
    )
    root = new_id()
    await gate.begin_root(root)
    below = {"root_task_id": root, "parent_task_id": root}
    for _ in range(3):
        admission, _ = await gate.decide(causality=below)
        assert admission.decision.outcome == "ALLOW", admission.decision
        assert admission.task_id == root
    refused, _ = await gate.decide(causality=below)
    assert refused.decision.reason_code is ReasonCode.REPEATS_EXCEEDED
    other, _ = await gate.decide("mail.read", causality=below)
    assert other.decision.outcome == "ALLOW"
    # Outside of the tree nothing is counted.
    for _ in range(4):
        alone, _ = await gate.decide()
        assert alone.decision.outcome == "ALLOW"
        assert alone.task_id == alone.receipt_id
    assert (await verify(gate.world.database.ledger.auditor)).bad is None
    replayed = await replay(gate.world.database.ledger.auditor)
    assert (replayed.mismatch_count, replayed.mismatches) == (0, [])


async def test_thirty_calls_at_once_never_pass_the_limit_of_their_root(gate: CallingGate) -> None:
    await gate.publish(policies={"front-desk": mail_policy(limits={"maxSpawnDepth": 0, "maxRepeatsPerCapability": 7})})
    root = new_id()
    await gate.begin_root(root)
    below = {"root_task_id": root, "parent_task_id": root}
    decided = await asyncio.gather(*(gate.decide(causality=below) for _ in range(30)))
    assert sum(admission.decision.outcome == "ALLOW" for admission, _ in decided) == 7
    assert (await replay(gate.world.database.ledger.auditor)).mismatch_count == 0


async def test_a_rate_of_one_tool_stops_that_tool_alone(gate: CallingGate) -> None:
    rate = {"name": "sends", "capabilities": ["mail.send"], "requests": 2, "per": "1h"}
    await gate.publish(policies={"front-desk": mail_policy(surface={"rateLimits": [rate]})})
    outcomes = [(await gate.decide())[0].decision for _ in range(3)]
    assert [decision.reason_code for decision in outcomes] == [None, None, ReasonCode.RATE_LIMITED]
    assert (outcomes[2].retry_after_ms or 0) > 0
    reading, _ = await gate.decide("mail.read")
    assert reading.decision.outcome == "ALLOW"


async def test_a_call_under_a_lease_is_filed_and_counted_where_the_task_stands(gate: CallingGate) -> None:
    """Without a word about its place: the lease says it. Its globs decide which tools it grants."""
    await gate.publish(policies={"front-desk": mail_policy(limits={"maxSpawnDepth": 0, "maxRepeatsPerCapability": 2})})
    root = new_id()
    await gate.begin_root(root)
    async with issuing(gate.world.database) as issuer:
        authority = {"exposeTools": ["mail/send_*"]}
        lease = await issuer.issue(gate.world.tenant, root, holder="bob", principal="alice", authority=authority)
        bob = Requester("bob", "worker", lease_id=lease.lease_id)
        decisions = [await gate.decide(requester=bob) for _ in range(3)]
        assert [admission.decision.reason_code for admission, _ in decisions] == [
            None,
            None,
            ReasonCode.REPEATS_EXCEEDED,
        ]
        assert {admission.task_id for admission, _ in decisions} == {root}
        not_granted, _ = await gate.decide("mail.read", requester=bob)
        assert not_granted.decision.reason_code is ReasonCode.LEASE_AUTHORITY
        row = await gate.settle(decisions[0][0])
        assert row.task_id == root
        _, (_, body) = await gate.receipts(decisions[0][0].receipt_id)
        assert json.loads(body)["principal_ai"] == "alice"
        # A leased task that nobody admitted here is in no tree: filed under it, counted nowhere.
        stray = new_id()
        lease = await issuer.issue(gate.world.tenant, stray, holder="bob", principal="alice", authority=authority)
        for _ in range(3):
            admission, _ = await gate.decide(requester=Requester("bob", "worker", lease_id=lease.lease_id))
            assert (admission.decision.outcome, admission.task_id) == ("ALLOW", stray)
        await issuer.expire(gate.world.tenant, lease.lease_id)
        lost, _ = await gate.decide(requester=Requester("bob", "worker", lease_id=lease.lease_id))
        assert lost.decision.reason_code is ReasonCode.LEASE_LOST
        assert lost.task_id == lost.receipt_id
    assert (await verify(gate.world.database.ledger.auditor)).bad is None
    replayed = await replay(gate.world.database.ledger.auditor)
    assert (replayed.mismatch_count, replayed.mismatches) == (0, [])


@pytest.mark.invariant("INV-050")
async def test_the_table_is_derived_again_from_receipts(gate: CallingGate) -> None:
    for outcome in (ANSWERED, CallOutcome(duration_us=7, attempts=2, reason="UNREACHABLE"), None):
        admission, _ = await gate.decide()
        if outcome is not None:
            await gate.settle(admission, outcome)
    superuser, columns = gate.world.database.superuser, "SELECT * FROM interrogate.call ORDER BY admission_receipt_id"
    before = await rows(superuser, columns)
    await rows(superuser, "UPDATE interrogate.call SET outcome = 'tool_error' WHERE outcome = 'success' RETURNING 1")
    bad = (await verify(gate.world.database.ledger.auditor)).bad
    assert bad is not None
    assert "outcome" in str(bad)
    await rows(superuser, "DELETE FROM interrogate.call RETURNING 1")
    assert (await verify(superuser, rebuild=True)).bad is None
    assert await rows(superuser, columns) == before
    assert (await verify(gate.world.database.ledger.auditor)).bad is None


async def test_two_tenants_with_equal_names_share_no_row_no_key_and_no_limit(gate: CallingGate) -> None:
    other = uuid4()
    rate = {"name": "sends", "capabilities": ["mail.send"], "requests": 1, "per": "1h"}
    policy = mail_policy(surface={"rateLimits": [rate]})
    await gate.publish(policies={"front-desk": policy})
    await gate.publish(tenant=other, policies={"front-desk": policy}, problematas={"mail": mail_problemata()})
    mine, _ = await gate.decide(key="same")
    theirs, evaluation = await gate.decide(key="same", tenant=other)
    assert not evaluation.replayed
    assert [mine.decision.outcome, theirs.decision.outcome] == ["ALLOW", "ALLOW"]
    assert await gate.recorder.outcome_of(other, mine.receipt_id) is None
    await gate.settle(theirs, tenant=other)
    page = await gate.database.calls.page(gate.world.tenant, CallFilter(), 10)
    assert [row.admission_receipt_id for row in page.items] == [mine.receipt_id]
    assert page.items[0].outcome == "pending"


async def test_pages_end_where_they_say_and_filters_hold_on_every_page(gate: CallingGate) -> None:
    bob = Requester("bob", "worker")
    for number in range(9):
        admission, _ = await gate.decide(
            "mail.read" if number % 3 == 0 else "mail.send", requester=bob if number % 2 else Requester("alice", "principal")
        )  # fmt: skip
        if number < 6:
            await gate.settle(admission)
    table, tenant = gate.database.calls, gate.world.tenant

    async def walk(wanted: CallFilter, limit: int = 2) -> list[str]:
        ids, before = [], None
        while True:
            page = await table.page(tenant, replace(wanted, before=before), limit)
            assert len(page.items) <= limit
            ids += [row.admission_receipt_id for row in page.items]
            if (before := page.next) is None:
                return ids

    everything = await walk(CallFilter())
    assert len(everything) == len(set(everything)) == 9
    assert everything == await walk(CallFilter(), limit=100)
    times = [row.at for row in (await table.page(tenant, CallFilter(), 100)).items]
    assert times == sorted(times, reverse=True)
    assert len(await walk(CallFilter(principal="bob"))) == 4
    assert len(await walk(CallFilter(problemata="mail", tool="read mail"))) == 3
    assert len(await walk(CallFilter(outcome="pending"))) == 3
    assert len(await walk(CallFilter(principal="bob", tool="send_email", outcome="success"))) == 2
    assert len(await walk(CallFilter(since=times[3]))) == 4
    assert await walk(CallFilter(principal="nobody")) == []


async def executed(gate: CallingGate, statement: str) -> None:
    connection = await asyncpg.connect(gate.world.database.superuser)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        (
            "REVOKE EXECUTE ON FUNCTION interrogate.settle_calls FROM interrogate_writer",
            "GRANT EXECUTE ON FUNCTION interrogate.settle_calls TO interrogate_writer",
        ),
        (
            "ALTER TABLE memorygate.receipt ADD CONSTRAINT shut CHECK (phase <> 'complete') NOT VALID",
            "ALTER TABLE memorygate.receipt DROP CONSTRAINT shut",
        ),
    ],
    ids=["settle", "the ledger refuses the row"],
)
async def test_an_outcome_that_cannot_be_stored_is_unrecorded_in_time_and_escalated_later(
    admission_database: AdmissionDatabase, broken: str, mended: str
) -> None:
    """Between the commits the database goes away: nothing says that it ended, until the sweep says that nobody knows."""
    async with calling(admission_database, outcome_seconds=0.4) as gate:
        admission, _ = await gate.decide()
        await executed(gate, broken)
        try:
            async with asyncio.timeout(10):
                with pytest.raises(OutcomeUnrecorded):
                    await gate.settle(admission)
        finally:
            await executed(gate, mended)
        row = await gate.recorder.outcome_of(gate.world.tenant, admission.receipt_id)
        assert row is not None
        assert row.outcome == "pending"
        assert len(await gate.receipts(admission.receipt_id)) == 1
        recorder = CallRecorder(lambda: gate.database, gate.policies, outcome_seconds=10)
        early = ForwardSweep(lambda: gate.database, None, recorder, seconds=60)  # type: ignore[arg-type]
        await early.sweep()
        row = await gate.recorder.outcome_of(gate.world.tenant, admission.receipt_id)
        assert row is not None
        assert row.outcome == "pending", "its time and a minute are not over"
        # As the sweep finds it a minute and the two seconds of its target later.
        late = ForwardSweep(lambda: gate.database, None, recorder, seconds=60, abandoned_seconds=-60)  # type: ignore[arg-type]
        await late.sweep()
        row = await gate.recorder.outcome_of(gate.world.tenant, admission.receipt_id)
        assert row is not None
        assert (row.outcome, row.duration_us) == ("OUTCOME_UNKNOWN", None)
        _, (phase, _) = await gate.receipts(admission.receipt_id)
        assert phase == "escalate"
        # Whoever comes with the tool's answer after that hears what was stored.
        assert (await recorder.record(gate.world.tenant, admission, ANSWERED)).outcome == "OUTCOME_UNKNOWN"
    assert (await verify(admission_database.ledger.auditor)).bad is None


async def test_a_database_that_comes_back_in_time_takes_the_outcome_once(gate: CallingGate) -> None:
    """Its sessions are ended while outcomes are on their way: each is sent again with the same receipt."""
    decided = [await gate.decide() for _ in range(12)]
    settling = [asyncio.create_task(gate.settle(admission)) for admission, _ in decided]
    for _ in range(5):
        await executed(
            gate, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'interrogate_writer'"
        )
        await asyncio.sleep(0.02)
    settled = await asyncio.gather(*settling)
    assert {row.outcome for row in settled} == {"success"}
    for admission, _ in decided:
        assert len(await gate.receipts(admission.receipt_id)) == 2
    assert (await verify(gate.world.database.ledger.auditor)).bad is None
