"""AsyncGate over HTTP: what each verb answers and which receipts it leaves, who may ask it, and what is refused."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from tests.integration.asyncgate.conftest import TaskDatabase, append, receipt_body
from tests.integration.asyncgate.gate_fixture import CLAIM, TYPES, TaskGate, TaskTenant, serving_asyncgate
from tests.integration.memorygate.conftest import new_id

from asyncgate.database import AsyncGateDatabase
from asyncgate.outcomes import ParkOutcome, VerbOutcome
from asyncgate.task import ParkedTask, ParkingBatch
from legivellum.base.canonical_json import canonical


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gate(task_database: TaskDatabase) -> AsyncIterator[TaskGate]:
    tenant = TaskTenant(task_database)
    await tenant.publish()
    async with serving_asyncgate(tenant) as served:
        yield served


@pytest.fixture
def mailbox() -> str:
    """A capability of the test's own."""
    return f"box-{new_id().lower()}"


@pytest.mark.invariant("INV-073", "INV-066")
async def test_the_way_of_a_task(gate: TaskGate, mailbox: str) -> None:
    """Parked, leased, renewed, released, leased by another, completed: what is answered, and one receipt for each event."""
    task_id = await gate.park(capability=mailbox)
    first = await gate.lease("worker", mailbox)
    assert (first["number"], first["task"]["task_id"], first["depth"]) == (1, task_id, 0)
    assert 55_000 < first["expires_in_ms"] <= 60_000
    renewed = await gate.post("worker", "/lease/renew", {"lease_id": first["lease_id"], "ttl_seconds": 120})
    assert renewed.json()["renewals_left"] == first["renewals_left"] - 1
    assert renewed.json()["expires_in_ms"] > 100_000
    released = await gate.post("worker", "/lease/release", {"lease_id": first["lease_id"], "reason": "no GPU"})
    assert released.json()["task_id"] == task_id
    second = await gate.lease("other", mailbox)
    assert second["number"] == 2
    assert second["lease_id"] != first["lease_id"]
    ended = await gate.post("other", "/complete", {"lease_id": second["lease_id"], **CLAIM})
    assert (ended.status_code, ended.json()["task_id"]) == (200, task_id)
    again = await gate.post("other", "/complete", {"lease_id": second["lease_id"], **CLAIM})
    assert (again.status_code, again.json(), again.headers["idempotency-replayed"]) == (200, ended.json(), "true")
    assert await gate.tenant.phases(task_id) == [
        "accepted", "accepted", "queued", "lease_issued", "queued", "lease_issued", "reassigned", "complete",
    ]  # fmt: skip
    receipt = (await gate.tenant.receipts(task_id))[-1]
    assert receipt["receipt_id"] == ended.json()["receipt_id"]
    assert (receipt["emitter"], receipt["status"], receipt["outcome_text"]) == ("svc:asyncgate", "success", "done")
    assert receipt["body"]["claimed_by"] == "other"
    shown = (await gate.get("observer", f"/tasks/{task_id}")).json()
    assert (shown["state"], shown["ended"]["how"], shown["lease"]) == ("ended", "returned", None)


@pytest.mark.invariant("INV-062")
@pytest.mark.parametrize("name", ["task_id", "principal_ai", "payload_pointer"])
async def test_what_a_task_must_have(gate: TaskGate, name: str) -> None:
    task = gate.task()
    del task[name]
    answer = await gate.post("principal", "/tasks", task)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
    assert name in answer.json()["detail"]


BAD: dict[str, dict[str, Any]] = {
    "payload": {"payload": "inline"},
    "priority": {"priority": 9},
    "data": {"payload_pointer": "data:text/plain,hello"},
    "long pointer": {"payload_pointer": "s3://" + "x" * 2_048},
    "capability": {"capability": "Not A Name"},
    "need of itself": {"task_id": "self", "needs": ["self"]},
    "ttl": {"lease": {"ttl_seconds": 901}},
    "renewals": {"lease": {"max_renewals": 11}},
    "lifetime": {"lease": {"max_lifetime_seconds": 7_201}},
    "leases": {"max_leases": 33},
    "not_before": {"not_before": "tomorrow"},
    "authority": {"authority": {"root": True}},
    "needs": {"needs": [f"o{n}" for n in range(65)]},
}


@pytest.mark.invariant("INV-064", "INV-070")
@pytest.mark.parametrize("name", BAD)
async def test_what_a_task_may_not_have(gate: TaskGate, name: str) -> None:
    """Payloads, priorities, members that are unknown, and whatever goes beyond a limit."""
    answer = await gate.post("principal", "/tasks", gate.task(**BAD[name]))
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST"), answer.text


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
async def test_a_time_that_utc_does_not_have(gate: TaskGate, mailbox: str, moment: str) -> None:
    """422 names the member, alone and in a batch, whose other task is parked."""
    early = gate.task(capability=mailbox, not_before=moment)
    other = gate.task(capability=mailbox, not_before=f"{moment[:19]}Z")
    await gate.tenant.mint(early["task_id"], other["task_id"])
    alone = await gate.post("principal", "/tasks", early)
    assert (alone.status_code, alone.json()["code"]) == (422, "INVALID_REQUEST"), alone.text
    assert "not_before" in alone.json()["detail"]
    batch = await gate.post("principal", "/tasks/batch", {"items": [{"task": early}, {"task": other}]})
    assert [item["status"] for item in batch.json()["items"]] == [422, 201]


@pytest.mark.parametrize("summary", ["two\nlines", "\u20ac" * 2_048, "TBD", " "])
async def test_a_summary_that_no_receipt_has(gate: TaskGate, mailbox: str, summary: str) -> None:
    """It stands in the acknowledging receipt, so it is judged by the rules of one."""
    task = gate.task(capability=mailbox, task_summary=summary)
    await gate.tenant.mint(task["task_id"])
    answer = await gate.post("principal", "/tasks", task)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST"), answer.text
    assert "task_summary" in answer.json()["detail"]


@pytest.mark.invariant("INV-062")
async def test_the_same_task_is_one_task(gate: TaskGate, mailbox: str) -> None:
    """The same again is a replay, also when it has ended; another content under its id is refused."""
    task = gate.task(capability=mailbox)
    await gate.tenant.mint(task["task_id"])
    first = await gate.post("principal", "/tasks", task)
    again = await gate.post("principal", "/tasks", task)
    assert (first.status_code, again.status_code) == (201, 200)
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    other = await gate.post("principal", "/tasks", {**task, "payload_pointer": "s3://jobs/other"})
    assert (other.status_code, other.json()["code"]) == (409, "TASK_CONFLICT")
    lease = await gate.lease("worker", mailbox)
    await gate.post("worker", "/complete", {"lease_id": lease["lease_id"], **CLAIM})
    assert (await gate.post("principal", "/tasks", task)).status_code == 200
    assert await gate.leases("worker", mailbox) == []


async def refusal_of(gate: TaskGate, task: dict[str, Any], **headers: str) -> tuple[int, str]:
    """How POST /tasks refuses it; nothing of it is kept."""
    answer = await gate.post("principal", "/tasks", task, **headers)
    assert (await gate.get("observer", f"/tasks/{task['task_id']}")).status_code == 404
    return answer.status_code, answer.json()["code"]


async def test_an_obligation_that_is_not_asyncgates(gate: TaskGate, mailbox: str) -> None:
    """Given to somebody else; of another task; closed; opened by nobody."""
    task = gate.task(capability=mailbox)
    assert await refusal_of(gate, task) == (409, "OBLIGATION_NOT_ACCEPTED")
    await gate.tenant.mint(task["task_id"], recipient="observer")
    assert await refusal_of(gate, task) == (403, "NOT_CUSTODIAN")
    end = receipt_body(
        gate.tenant.uid, "observer", phase="complete", task_id=task["task_id"], principal_ai="principal", status="success",
        outcome_kind="none", completed_at="2027-01-01T00:00:00Z",
    )  # fmt: skip
    assert await append(gate.tenant.database.ledger.writer, [end], "custodian") == ["STORED"]
    assert await refusal_of(gate, task) == (409, "OBLIGATION_ALREADY_TERMINATED")
    other = new_id()
    await gate.tenant.mint(other)
    assert await refusal_of(gate, gate.task(capability=mailbox, obligation_id=other)) == (409, "TASK_MISMATCH")


async def test_no_more_than_1024_wait_for_one(gate: TaskGate, mailbox: str) -> None:
    """The next is refused, and taken when one of them waits no more."""
    needed = await gate.park(capability=mailbox)
    task = gate.task(capability=mailbox, needs=[needed])
    await gate.tenant.mint(task["task_id"])
    connection = await asyncpg.connect(gate.tenant.database.superuser)
    try:
        await connection.execute(
            "INSERT INTO asyncgate.need SELECT $1, $2, 'waiting-' || n, false FROM generate_series(1, 1024) AS n",
            gate.tenant.uid, needed,
        )  # fmt: skip
        assert await refusal_of(gate, task) == (409, "TOO_MANY_WAIT")
        await connection.execute("DELETE FROM asyncgate.need WHERE task_id = 'waiting-1'")
        assert (await gate.post("principal", "/tasks", task)).status_code == 201
        await connection.execute("DELETE FROM asyncgate.need WHERE task_id LIKE 'waiting-%'")
    finally:
        await connection.close()


async def test_another_tenant_is_not_named(gate: TaskGate, mailbox: str) -> None:
    """Neither in a task nor in a query; the own one is, by its id and by its namespace."""
    for tenant_id in (str(uuid4()), "team-other"):
        assert await refusal_of(gate, gate.task(tenant_id=tenant_id)) == (403, "TENANT_MISMATCH")
    for path in ("/tasks", "/tasks/nothing", "/queue/depth"):
        answer = await gate.get("observer", path, tenant=str(uuid4()))
        assert (answer.status_code, answer.json()["code"]) == (403, "TENANT_MISMATCH")
    for tenant_id in (str(gate.tenant.uid), gate.tenant.namespace):
        await gate.park(capability=mailbox, tenant_id=tenant_id)


async def test_a_lease_that_cannot_be_renewed_any_more(gate: TaskGate, mailbox: str) -> None:
    """By the number of renewals and by its longest life; it lives on until it expires."""
    for terms in ({"max_renewals": 1}, {"ttl_seconds": 60, "max_lifetime_seconds": 60}):
        await gate.park(capability=mailbox, lease=terms)
        lease_id = (await gate.lease("worker", mailbox))["lease_id"]
        answers = [await gate.post("worker", "/lease/renew", {"lease_id": lease_id}) for _ in range(2)]
        assert (answers[-1].status_code, answers[-1].json()["code"]) == (409, "LEASE_EXHAUSTED"), terms
        assert answers[0].status_code == (200 if "max_renewals" in terms else 409)
        ended = await gate.post("worker", "/complete", {"lease_id": lease_id, **CLAIM})
        assert ended.status_code == 200


@pytest.mark.invariant("INV-063", "INV-087")
@pytest.mark.parametrize("who", TYPES)
async def test_who_may_enqueue(gate: TaskGate, who: str, mailbox: str) -> None:
    """A principal for itself, a delegate for any; nobody else."""
    task = gate.task(capability=mailbox)
    await gate.tenant.mint(task["task_id"])
    answer = await gate.post(who, "/tasks", task)
    if who in {"principal", "delegate"}:
        assert answer.status_code == 201
    else:
        assert (answer.status_code, answer.json()["code"]) == (403, "ROLE_REQUIRED")
    foreign = await gate.post("principal", "/tasks", gate.task(principal_ai="delegate"))
    assert (foreign.status_code, foreign.json()["code"]) == (403, "EMITTER_MISMATCH")


@pytest.mark.parametrize("who", TYPES)
async def test_who_may_lease(gate: TaskGate, who: str, mailbox: str) -> None:
    """Those who work; every verb under a lease refuses the others by their type, whatever lease they show."""
    await gate.park(capability=mailbox)
    answer = await gate.post(who, "/lease", {"capabilities": [mailbox]})
    if who in {"worker", "service", "component"}:
        assert len(answer.json()["leases"]) == 1
        return
    assert (answer.status_code, answer.json()["code"]) == (403, "ROLE_REQUIRED")
    lease = await gate.lease("worker", mailbox)
    for path, body in VERBS.items():
        refused = await gate.post(who, path, {"lease_id": lease["lease_id"], **body})
        assert (refused.status_code, refused.json()["code"]) == (403, "ROLE_REQUIRED")


VERBS: dict[str, dict[str, Any]] = {
    "/lease/renew": {},
    "/lease/release": {},
    "/complete": CLAIM,
    "/escalate": {"escalation_class": "other", "escalation_reason": "help"},
}


@pytest.mark.invariant("INV-068", "INV-074")
@pytest.mark.parametrize("path", VERBS)
@pytest.mark.parametrize("how", ["unknown", "another's", "released", "revoked", "ended", "expired"])
async def test_a_lease_that_is_none(gate: TaskGate, mailbox: str, path: str, how: str) -> None:
    """Every verb: 409 LEASE_LOST, no receipt, and the successor's lease is as it was."""
    task_id = await gate.park(capability=mailbox, lease={"ttl_seconds": 5})
    lease = await gate.lease("worker", mailbox)
    who, lease_id = "worker", lease["lease_id"]
    if how == "unknown":
        lease_id = new_id()
    elif how == "another's":
        who = "other"
    elif how == "released":
        await gate.post("worker", "/lease/release", {"lease_id": lease_id})
    elif how == "revoked":
        await gate.post("principal", f"/tasks/{task_id}/revoke", {"what": "lease"})
    elif how == "ended":
        other = {**CLAIM, "outcome_text": "another claim"}
        await gate.post("worker", "/complete", {"lease_id": lease_id, **other})
    else:
        await overdue(gate, task_id)
    over = how in {"released", "revoked", "expired"}
    successor = await gate.lease("other", mailbox, wait_seconds=10) if over else None
    before = await gate.tenant.phases(task_id)
    answer = await gate.post(who, path, {"lease_id": lease_id, **VERBS[path]})
    assert (answer.status_code, answer.json()["code"]) == (409, "LEASE_LOST"), answer.text
    assert await gate.tenant.phases(task_id) == before
    if successor is not None:
        kept = await gate.post("other", "/lease/renew", {"lease_id": successor["lease_id"]})
        assert kept.status_code == 200


async def overdue(gate: TaskGate, task_id: str) -> None:
    """The time of the task's lease is over, as if it had passed.

    The pass may be at its row when a worker asks, who then gets nothing at once: let the worker wait.
    """
    connection = await asyncpg.connect(gate.tenant.database.superuser)
    try:
        await connection.execute(
            "UPDATE asyncgate.task SET lease_until = clock_timestamp() - interval '1 s' WHERE task_id = $1", task_id
        )
    finally:
        await connection.close()


@pytest.mark.invariant("INV-066")
async def test_a_hundred_workers_and_one_task(gate: TaskGate, mailbox: str) -> None:
    """At the same time: one lease."""
    await gate.park(capability=mailbox)
    answers = await asyncio.gather(*(gate.leases(("worker", "other", "third")[n % 3], mailbox) for n in range(100)))
    assert sum(map(len, answers)) == 1


@pytest.mark.invariant("INV-067")
async def test_an_expired_lease_is_leased_again(gate: TaskGate, mailbox: str) -> None:
    """With a new lease; the expiry has its receipt."""
    task_id = await gate.park(capability=mailbox)
    first = await gate.lease("worker", mailbox)
    await overdue(gate, task_id)
    second = await gate.lease("other", mailbox, wait_seconds=10)
    assert (second["number"], second["lease_id"] != first["lease_id"]) == (2, True)
    assert (await gate.tenant.phases(task_id)).count("expired") == 1


@pytest.mark.invariant("INV-071")
async def test_only_parking_makes_a_task(gate: TaskGate, mailbox: str) -> None:
    """Returned, escalated, released, expired, revoked, and after rounds of the pass: as many tasks as were posted."""
    for _ in range(5):
        await gate.park(capability=mailbox)
    before = await numbers(gate)
    first, second, third, fourth, fifth = await gate.leases("worker", mailbox, most=5)
    assert (await gate.post("worker", "/complete", {"lease_id": first["lease_id"], **CLAIM})).status_code == 200
    escalation = {"lease_id": second["lease_id"], "escalation_class": "other", "escalation_reason": "help"}
    assert (await gate.post("worker", "/escalate", escalation)).status_code == 200
    assert (await gate.post("worker", "/lease/release", {"lease_id": third["lease_id"]})).status_code == 200
    await overdue(gate, fourth["task"]["task_id"])
    assert (await gate.post("principal", f"/tasks/{fifth['task']['task_id']}/revoke")).status_code == 200
    async with asyncio.timeout(20):
        while "expired" not in await gate.tenant.phases(fourth["task"]["task_id"]):
            await asyncio.sleep(0.05)
    assert await numbers(gate) == before


async def numbers(gate: TaskGate) -> tuple[int, int]:
    """Of tasks, here or over; of obligations that were ever opened."""
    connection = await asyncpg.connect(gate.tenant.database.superuser)
    try:
        tasks = await connection.fetchval(
            "SELECT (SELECT count(*) FROM asyncgate.task) + (SELECT count(*) FROM asyncgate.archive)"
        )
        opened = await connection.fetchval(
            "SELECT count(DISTINCT (tenant, obligation_id)) FROM memorygate.receipt WHERE phase = 'accepted'"
        )
        return tasks, opened
    finally:
        await connection.close()


@pytest.mark.invariant("INV-065")
async def test_not_before(gate: TaskGate, mailbox: str) -> None:
    """Held back until its time, shown as that, and never in the way of another."""
    await gate.park(capability=mailbox, not_before="2999-01-01T00:00:00Z")
    later = await gate.park(capability=mailbox)
    assert [lease["task"]["task_id"] for lease in await gate.leases("worker", mailbox, most=32)] == [later]
    [depth] = (await gate.get("observer", "/queue/depth", capability=mailbox)).json()["items"]
    assert (depth["waiting"], depth["held_back"], depth["leased"]) == (0, 1, 1)


async def test_a_key_gives_the_same_leases(gate: TaskGate, mailbox: str) -> None:
    """An answer that was lost is given again, and nothing more is leased."""
    for _ in range(3):
        await gate.park(capability=mailbox)
    body = {"capabilities": [mailbox], "most": 2}
    first = await gate.post("worker", "/lease", body, Idempotency_Key="once")
    again = await gate.post("worker", "/lease", body, Idempotency_Key="once")
    ids = [[lease["lease_id"] for lease in answer.json()["leases"]] for answer in (first, again)]
    assert len(ids[0]) == 2
    assert sorted(ids[0]) == sorted(ids[1])


async def test_a_worker_waits_for_a_task(gate: TaskGate, mailbox: str) -> None:
    """It is answered when a task comes, long before its time is over; with nothing when none comes."""
    waiting = asyncio.create_task(gate.leases("worker", mailbox, wait_seconds=20))
    while (await gate.client.get("/metrics")).text.count("asyncgate_waiters 0"):
        await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        task_id = await gate.park(capability=mailbox)
        [lease] = await waiting
    assert lease["task"]["task_id"] == task_id
    assert await gate.leases("worker", mailbox, wait_seconds=0.3) == []


async def test_who_has_left_gets_no_lease(gate: TaskGate, mailbox: str) -> None:
    """Workers that wait and go: one task comes, and one lease is issued, to the one that stayed."""
    host, port = gate.url.removeprefix("http://").split(":")
    content = json.dumps({"capabilities": [mailbox], "wait_seconds": 20}).encode()
    [(name, key)] = gate.tenant.principals["worker"].headers.items()
    head = f"POST /lease HTTP/1.1\r\nHost: x\r\n{name}: {key}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
    for _, writer in connections:
        writer.write(head.encode() + content)
    while "asyncgate_waiters 20" not in (await gate.client.get("/metrics")).text:
        await asyncio.sleep(0.01)
    for _, writer in connections:
        writer.close()
    staying = asyncio.create_task(gate.leases("other", mailbox, wait_seconds=20))
    async with asyncio.timeout(15):
        task_id = await gate.park(capability=mailbox)
        [lease] = await staying
    assert (lease["number"], lease["task"]["task_id"]) == (1, task_id)
    assert (await gate.tenant.phases(task_id)).count("lease_issued") == 1


async def test_one_tenant_may_not_hold_every_place(gate: TaskGate, task_database: TaskDatabase, mailbox: str) -> None:
    """A quarter of the places of a process; who comes then is told to come again."""
    async with serving_asyncgate(gate.tenant, waiters=8) as small:
        body = {"capabilities": [mailbox], "wait_seconds": 2}
        answers = await asyncio.gather(*(small.post("worker", "/lease", body) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429]
    [refused] = [answer for answer in answers if answer.status_code == 429]
    assert refused.json()["code"] == "RATE_LIMITED"
    assert refused.headers["retry-after"] in {"1", "2", "3"}


async def test_needs(gate: TaskGate, mailbox: str) -> None:
    """A task waits for its needs, whatever they end as, and its lease names what met them."""
    first = await gate.park(capability=mailbox)
    parked = gate.task(capability=mailbox, needs=[first])
    await gate.tenant.mint(parked["task_id"])
    answer = (await gate.post("principal", "/tasks", parked)).json()
    assert (answer["waits_for"], answer["available_at"]) == ([first], None)
    shown = (await gate.get("observer", f"/tasks/{parked['task_id']}")).json()
    assert (shown["state"], shown["waits_for"]) == ("held_back", [first])
    lease = await gate.lease("worker", mailbox)
    failure = {"lease_id": lease["lease_id"], "status": "failure", "outcome_kind": "none"}
    ended = (await gate.post("worker", "/complete", failure)).json()
    second = await gate.lease("worker", mailbox)
    assert (second["task"]["task_id"], second["evidence"]) == (parked["task_id"], [ended["receipt_id"]])


async def test_escalate(gate: TaskGate, mailbox: str) -> None:
    """To whom the task names, and to nobody else; custody moves with the receipt."""
    task_id = await gate.park(capability=mailbox, escalation_to=["admin", "observer"])
    lease = await gate.lease("worker", mailbox)
    body = {"lease_id": lease["lease_id"], "escalation_class": "trust", "escalation_reason": "a person must see it"}
    refused = await gate.post("worker", "/escalate", {**body, "escalation_to": "delegate"})
    assert (refused.status_code, refused.json()["code"]) == (403, "ESCALATION_NOT_PERMITTED")
    ended = await gate.post("worker", "/escalate", {**body, "escalation_to": "observer"})
    assert ended.status_code == 200, ended.text
    again = await gate.post("worker", "/escalate", {**body, "escalation_to": "observer"})
    assert (again.json(), again.headers["idempotency-replayed"]) == (ended.json(), "true")
    receipt = (await gate.tenant.receipts(task_id))[-1]
    assert (receipt["phase"], receipt["recipient_ai"]) == ("escalate", "observer")
    none = await gate.park(capability=mailbox, escalation_to=[])
    lease = await gate.lease("worker", mailbox)
    refused = await gate.post("worker", "/escalate", {**body, "lease_id": lease["lease_id"]})
    assert (lease["task"]["task_id"], refused.json()["code"]) == (none, "ESCALATION_NOT_PERMITTED")
    unknown = await gate.post("principal", "/tasks", gate.task(escalation_to=["nobody"]))
    assert (unknown.status_code, unknown.json()["code"]) == (422, "RECIPIENT_UNKNOWN")


@pytest.mark.parametrize("who", TYPES)
async def test_who_may_revoke(gate: TaskGate, mailbox: str, who: str) -> None:
    """Its principal, who enqueued it, and an admin; again it is the same."""
    task_id = await gate.park(capability=mailbox)
    lease = await gate.lease("worker", mailbox)
    answer = await gate.post(who, f"/tasks/{task_id}/revoke", {"reason": "not needed"})
    if who not in {"principal", "admin"}:
        assert (answer.status_code, answer.json()["code"]) == (403, "ROLE_REQUIRED")
        return
    assert answer.json() == {"task_id": task_id, "lease_ended": True}
    assert (await gate.post(who, f"/tasks/{task_id}/revoke")).status_code == 200
    lost = await gate.post("worker", "/complete", {"lease_id": lease["lease_id"], **CLAIM})
    assert lost.json()["code"] == "LEASE_LOST"
    receipt = (await gate.tenant.receipts(task_id))[-1]
    assert (receipt["phase"], receipt["status"]) == ("complete", "canceled")
    ended = await gate.park(capability=mailbox)
    lease = await gate.lease("worker", mailbox)
    await gate.post("worker", "/complete", {"lease_id": lease["lease_id"], **CLAIM})
    late = await gate.post(who, f"/tasks/{ended}/revoke")
    assert (late.status_code, late.json()["code"]) == (409, "TASK_ENDED")
    assert (await gate.post(who, "/tasks/nothing/revoke")).status_code == 404


async def test_batches(gate: TaskGate, mailbox: str) -> None:
    """An answer for each; all or none; `check` stores nothing."""
    tasks = [gate.task(capability=mailbox) for _ in range(3)]
    await gate.tenant.mint(*(task["task_id"] for task in tasks[:2]))
    items = [{"task": task} for task in tasks]
    none = await gate.post("principal", "/tasks/batch", {"items": items, "all_or_none": True})
    assert [item["status"] for item in none.json()["items"]] == [409, 409, 409]
    assert none.json()["items"][2]["code"] == "OBLIGATION_NOT_ACCEPTED"
    checked = await gate.post("principal", "/tasks/batch", {"items": [*items, {"task": {}}], "check": True})
    assert [item["status"] for item in checked.json()["items"]] == [200, 200, 200, 422]
    assert await gate.leases("worker", mailbox) == []
    some = await gate.post("principal", "/tasks/batch", {"items": items})
    assert [item["status"] for item in some.json()["items"]] == [201, 201, 409]
    leases = await gate.leases("worker", mailbox, most=2)
    claims = [{"lease_id": lease["lease_id"], **CLAIM} for lease in leases]
    ended = await gate.post("worker", "/complete/batch", {"items": [*claims, {**claims[0], "status": "failure"}]})
    assert sorted(item["status"] for item in ended.json()["items"]) == [200, 200, 409]


async def test_a_batch_of_claims_of_which_one_fails(gate: TaskGate, mailbox: str) -> None:
    """Its row is held by somebody: 503 for the item, and the others hear that they ended. All of them: 503."""
    for _ in range(3):
        await gate.park(capability=mailbox)
    leases = await gate.leases("worker", mailbox, most=3)
    claims = [{"lease_id": lease["lease_id"], **CLAIM} for lease in leases]
    connection = await asyncpg.connect(gate.tenant.database.superuser)
    try:
        async with connection.transaction():
            await connection.execute(
                "SELECT FROM asyncgate.task WHERE task_id = $1 FOR UPDATE", leases[1]["task"]["task_id"]
            )
            some = await gate.post("worker", "/complete/batch", {"items": claims})
            alone = await gate.post("worker", "/complete/batch", {"items": [claims[1]]})
    finally:
        await connection.close()
    assert some.status_code == 200, some.text
    items = some.json()["items"]
    assert [(item["status"], item.get("code")) for item in items] == [(200, None), (503, "UNAVAILABLE"), (200, None)]
    assert (alone.status_code, alone.json()["code"]) == (503, "UNAVAILABLE")
    again = await gate.post("worker", "/complete/batch", {"items": claims})
    assert [item["status"] for item in again.json()["items"]] == [200, 200, 200]


async def test_a_batch_of_claims_of_which_the_ledger_refuses_one(gate: TaskGate, mailbox: str) -> None:
    """A defect: 500 for the item, and the other hears that it ended."""
    for _ in range(2):
        await gate.park(capability=mailbox)
    leases = await gate.leases("worker", mailbox, most=2)
    connection = await asyncpg.connect(gate.tenant.database.superuser)
    try:
        await connection.execute(
            "UPDATE asyncgate.task SET obligation_id = $1 WHERE task_id = $2", new_id(), leases[0]["task"]["task_id"]
        )
    finally:
        await connection.close()
    claims = [{"lease_id": lease["lease_id"], **CLAIM} for lease in leases]
    some = await gate.post("worker", "/complete/batch", {"items": claims})
    assert some.status_code == 200, some.text
    items = some.json()["items"]
    assert [(item["status"], item.get("code")) for item in items] == [(500, "INTERNAL_ERROR"), (200, None)]
    alone = await gate.post("worker", "/complete/batch", {"items": claims[:1]})
    assert alone.status_code == 500


async def test_a_batch_of_tasks_of_which_the_ledger_refuses_one(
    gate: TaskGate, mailbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect: 500 for the item, and the other hears that it is parked."""
    tasks = [gate.task(capability=mailbox) for _ in range(2)]
    await gate.tenant.mint(*(task["task_id"] for task in tasks))
    enqueue = AsyncGateDatabase.enqueue

    async def enqueue_all_but_the_last(
        database: AsyncGateDatabase, batches: Sequence[ParkingBatch]
    ) -> list[list[VerbOutcome[ParkOutcome, ParkedTask]]]:
        [outcomes] = await enqueue(database, [ParkingBatch(batch.items[:-1]) for batch in batches])
        return [[*outcomes, VerbOutcome("REFUSED", detail="NOT_SIGNED")]]

    monkeypatch.setattr(AsyncGateDatabase, "enqueue", enqueue_all_but_the_last)
    some = await gate.post("principal", "/tasks/batch", {"items": [{"task": task} for task in tasks]})
    assert some.status_code == 200, some.text
    items = some.json()["items"]
    assert [(item["status"], item.get("code")) for item in items] == [(201, None), (500, "INTERNAL_ERROR")]


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ({"status": "success", "outcome_kind": "response_text"}, "outcome_text"),
        ({"status": "success", "outcome_kind": "artifact_pointer", "artifact_pointer": "s3://x"}, "artifact_location"),
        ({"status": "done", "outcome_kind": "none"}, "status"),
    ],
)
async def test_a_claim_that_makes_no_receipt(gate: TaskGate, mailbox: str, claim: dict[str, str], words: str) -> None:
    """422 INVALID_RECEIPT names the field; the lease goes on."""
    await gate.park(capability=mailbox)
    lease = await gate.lease("worker", mailbox)
    answer = await gate.post("worker", "/complete", {"lease_id": lease["lease_id"], **claim})
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_RECEIPT"), answer.text
    assert words in answer.json()["detail"]
    assert (await gate.post("worker", "/complete", {"lease_id": lease["lease_id"], **CLAIM})).status_code == 200


@pytest.mark.invariant("INV-124")
async def test_authority_needs_a_ceiling(
    gate: TaskGate, task_database: TaskDatabase, mailbox: str, tmp_path: Any
) -> None:
    """Without one no task carries any; with one, up to it."""
    task = gate.task(capability=mailbox, authority={"maxDepth": 2})
    refused = await gate.post("principal", "/tasks", task)
    assert (refused.status_code, refused.json()["code"]) == (403, "AUTHORITY_EXCEEDED")
    file = tmp_path / "ceilings.yaml"
    file.write_text("- {namespaces: ['team-*'], authority: {maxDepth: 2}}\n")
    async with serving_asyncgate(gate.tenant, ceilings_file=str(file)) as with_ceiling:
        await with_ceiling.park(capability=mailbox, authority={"maxDepth": 2})
        beyond = await with_ceiling.post("principal", "/tasks", gate.task(authority={"maxDepth": 3}))
        assert beyond.json()["code"] == "AUTHORITY_EXCEEDED"
        lease = await with_ceiling.lease("worker", mailbox)
        assert lease["task"]["authority"] == {"maxDepth": 2}


async def test_an_admission_that_is_required(gate: TaskGate) -> None:
    """Of the namespaces that the setting names."""
    async with serving_asyncgate(gate.tenant, require_admission="team-*") as strict:
        answer = await strict.post("principal", "/tasks", gate.task())
        assert (answer.status_code, answer.json()["code"]) == (403, "ADMISSION_REQUIRED")


async def test_pages(gate: TaskGate, mailbox: str) -> None:
    """A list pages by its cursor, and holds what is not over; the archive is a state of its own."""
    ids = sorted([await gate.park(capability=mailbox) for _ in range(5)])
    page = (await gate.get("observer", "/tasks", capability=mailbox, limit="3")).json()
    rest = (await gate.get("observer", "/tasks", capability=mailbox, limit="3", cursor=page["next_cursor"])).json()
    assert [item["task_id"] for item in (*page["items"], *rest["items"])] == ids
    assert rest["next_cursor"] is None
    lease = await gate.lease("worker", mailbox)
    await gate.post("worker", "/complete", {"lease_id": lease["lease_id"], **CLAIM})
    ended = (await gate.get("observer", "/tasks", capability=mailbox, state="ended")).json()["items"]
    assert [item["task_id"] for item in ended] == [lease["task"]["task_id"]]
    assert len((await gate.get("observer", "/tasks", capability=mailbox)).json()["items"]) == 4


async def test_another_tenant_sees_and_takes_nothing(gate: TaskGate, task_database: TaskDatabase, mailbox: str) -> None:
    """Neither the task, nor its lease, nor its mailbox."""
    stranger = TaskTenant(task_database)
    await stranger.publish()
    other = await TaskGate(stranger, gate.client, gate.url).until_known()
    task_id = await gate.park(capability=mailbox)
    assert await other.leases("worker", mailbox) == []
    lease = await gate.lease("worker", mailbox)
    for path, body in VERBS.items():
        answer = await other.post("worker", path, {"lease_id": lease["lease_id"], **body})
        assert answer.json()["code"] == "LEASE_LOST"
    assert (await other.get("observer", f"/tasks/{task_id}")).status_code == 404
    assert (await other.post("admin", f"/tasks/{task_id}/revoke")).status_code == 404
    assert (await other.get("observer", "/queue/depth")).json()["items"] == []


async def test_interview(gate: TaskGate, mailbox: str) -> None:
    await gate.park(capability=mailbox)
    answer = (await gate.get("worker", "/v1/interview")).json()
    assert answer["gate"] == "asyncgate"
    assert answer["counts"]["tasks_waiting"] >= 1
    assert answer["oldest"]["tasks_waiting"] is not None


def admission_of(gate: TaskGate, task: dict[str, Any], **changes: Any) -> str:
    """The receipt that InterroGate writes for a task, but for what the test changes."""
    body = {
        "targets": ["asyncgate"],
        "payload_sha256": hashlib.sha256(canonical(task)).hexdigest(),
        "derived": {"depth": 3},
        **changes.pop("body", {}),
    }
    fields = {
        "kind": "admission",
        "phase": "accepted",
        "task_id": task["task_id"],
        "principal_ai": "principal",
        **changes,
    }
    return receipt_body(gate.tenant.uid, "svc:interrogate", body=body, **fields)


async def emitted(gate: TaskGate, body: str) -> str:
    """Stored as InterroGate stores it; its id."""
    connection = await asyncpg.connect(gate.tenant.database.superuser)
    try:
        await connection.execute("SET ROLE interrogate_owner")
        await connection.fetch("SELECT * FROM memorygate.emit_interrogate($1, $2)", [body], [1])
    finally:
        await connection.close()
    return str(json.loads(body)["receipt_id"])


ADMISSIONS: dict[str, dict[str, Any]] = {
    "another target": {"body": {"targets": ["delegate"]}},
    "other bytes": {"body": {"payload_sha256": "0" * 64}},
    "another task": {"task_id": "another"},
    "a refusal": {"phase": "rejected"},
}


async def test_an_admission_admits_one_task(gate: TaskGate, mailbox: str) -> None:
    """Exactly these bytes, once; the depth of the tree comes with it."""
    task = gate.task(capability=mailbox)
    receipt_id = await emitted(gate, admission_of(gate, task))
    await gate.tenant.mint(task["task_id"])
    parked = await gate.post("principal", "/tasks", task, Legivellum_Admission=receipt_id)
    assert parked.status_code == 201, parked.text
    lease = await gate.lease("worker", mailbox)
    assert lease["depth"] == 3
    other = gate.task(task["task_id"] + "x", capability=mailbox)
    again = await emitted(gate, admission_of(gate, other))
    await gate.tenant.mint(other["task_id"])
    unknown = await gate.post("principal", "/tasks", other, Legivellum_Admission=new_id())
    assert (unknown.status_code, unknown.json()["code"]) == (403, "ADMISSION_REFUSED")
    assert (await gate.post("principal", "/tasks", other, Legivellum_Admission=again)).status_code == 201


async def test_an_admission_is_used_once(gate: TaskGate, mailbox: str) -> None:
    """Also where the row of the task that it admitted is gone, by whatever accident."""
    task = gate.task(capability=mailbox)
    receipt_id = await emitted(gate, admission_of(gate, task))
    await gate.tenant.mint(task["task_id"])
    assert (await gate.post("principal", "/tasks", task, Legivellum_Admission=receipt_id)).status_code == 201
    connection = await asyncpg.connect(gate.tenant.database.superuser)
    try:
        await connection.execute("DELETE FROM asyncgate.task WHERE task_id = $1", task["task_id"])
    finally:
        await connection.close()
    assert await refusal_of(gate, task, Legivellum_Admission=receipt_id) == (409, "ADMISSION_USED")


async def test_the_tasks_of_a_batch_have_an_admission_each(gate: TaskGate, mailbox: str) -> None:
    """Each is judged for itself: one that is good, one that nobody knows, one of another task, one without."""
    tasks = [gate.task(capability=mailbox) for _ in range(4)]
    await gate.tenant.mint(*(task["task_id"] for task in tasks))
    good, of_another = (
        await emitted(gate, admission_of(gate, tasks[0])),
        await emitted(gate, admission_of(gate, tasks[3])),
    )
    admissions: list[dict[str, str]] = [{"admission": good}, {"admission": new_id()}, {"admission": of_another}, {}]
    items = [{"task": task, **admission} for task, admission in zip(tasks, admissions, strict=True)]
    answer = await gate.post("principal", "/tasks/batch", {"items": items})
    told = [(item["status"], item.get("code")) for item in answer.json()["items"]]
    assert told == [(201, None), (403, "ADMISSION_REFUSED"), (403, "ADMISSION_REFUSED"), (201, None)]
    assert [lease["depth"] for lease in await gate.leases("worker", mailbox, most=4)] == [3, 0]


@pytest.mark.parametrize("name", ADMISSIONS)
async def test_an_admission_of_something_else(gate: TaskGate, mailbox: str, name: str) -> None:
    task = gate.task(capability=mailbox)
    receipt_id = await emitted(gate, admission_of(gate, task, **ADMISSIONS[name]))
    answer = await gate.post("principal", "/tasks", task, Legivellum_Admission=receipt_id)
    assert (answer.status_code, answer.json()["code"]) == (403, "ADMISSION_REFUSED"), answer.text
