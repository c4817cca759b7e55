"""Requests under a lease over HTTP (IG-05), with AsyncGate in the same database (leases.py)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.interrogate.conftest import AdmissionDatabase, make_admissions
from tests.integration.interrogate.gate_fixture import (
    GateClient,
    PublishedWorld,
    Requesting,
    serving_interrogate,
)
from tests.integration.interrogate.leases import LeaseIssuer, issuing
from tests.integration.memorygate.conftest import new_id

POLICY: dict[str, Any] = {
    "limits": {"maxSpawnDepth": 3},
    "invariants": {"leaseAuthority": "Required"},
    "surfaces": [{"surfaceId": "public", "principals": ["*"], "capabilities": {"allow": ["doc.*"]}}],
}
GRANTED = {"spawn": {"max": 2}, "maxDepth": 2}


@dataclass(slots=True)
class LeasedTask:
    """A root that alice began, and a worker to whom it may be leased."""

    gate: GateClient
    issuer: LeaseIssuer
    alice: Requesting
    worker: Requesting
    root: dict[str, Any]

    async def lease(self, authority: dict[str, Any], holder: str = "worker", task_id: str | None = None) -> str:
        """On the root, if no other task is named; the lease that the task had is over."""
        lease = await self.issuer.issue(
            self.gate.world.tenant, task_id or self.root["task_id"], holder=holder, principal="alice", authority=authority
        )  # fmt: skip
        return lease.lease_id

    async def child(self, lease_id: str | None, **changes: Any) -> dict[str, Any]:
        headers = {} if lease_id is None else {"Legivellum_Lease": lease_id}
        answer = await self.worker.evaluate(self.worker.child(self.root, **changes), **headers)
        return {"status": answer.status_code, **answer.json()}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leasing_database(postgres: Server) -> AsyncIterator[AdmissionDatabase]:
    made = await make_admissions(postgres)
    yield made
    await postgres.drop(made.database)


@pytest_asyncio.fixture(loop_scope="session")
async def task(leasing_database: AdmissionDatabase) -> AsyncIterator[LeasedTask]:
    world = PublishedWorld(leasing_database)
    principals = [world.principal("alice"), world.principal("worker", "worker")]
    await world.publish(*principals, policies={"strict": POLICY})
    async with issuing(leasing_database) as issuer, serving_interrogate(world) as gate:
        alice, worker = (gate.requesting(principal) for principal in principals)
        await gate.awaited(alice)
        root = await alice.evaluate()
        assert root.status_code == 200, root.text
        yield LeasedTask(gate, issuer, alice, worker, root.json())


async def test_a_worker_adds_to_the_task_that_is_leased_to_it(task: LeasedTask) -> None:
    """As often as the lease grants, and in the name of the principal of the task."""
    lease_id = await task.lease(GRANTED)
    answers = [await task.child(lease_id) for _ in range(3)]
    assert [answer["reason_code"] for answer in answers] == [None, None, "LEASE_AUTHORITY"]
    [_, first, *_] = await task.gate.receipts()
    assert (first["principal_ai"], first["body"]["caller"]["principal_key"]) == ("alice", "worker")
    assert first["body"]["lease"] == {
        "lease_id": lease_id, "task_id": task.root["task_id"], "number": 1, "authority": GRANTED,
    }  # fmt: skip
    # Another lease of the same task counts by itself.
    assert (await task.child(await task.lease(GRANTED)))["outcome"] == "ALLOW"


@pytest.mark.parametrize(
    "authority", [{}, {"spawn": {"max": 2}}, {"maxDepth": 2}, {"spawn": {"max": 2}, "maxDepth": 0}], ids=str
)
async def test_what_a_lease_does_not_grant_is_denied(task: LeasedTask, authority: dict[str, Any]) -> None:
    answer = await task.child(await task.lease(authority))
    assert (answer["status"], answer["reason_code"]) == (403, "LEASE_AUTHORITY")


@pytest.mark.invariant("INV-127")
@pytest.mark.parametrize(
    ("deepest", "code"), [(2, "LEASE_AUTHORITY"), (9, "DEPTH_EXCEEDED")], ids=["of its authority", "of the policy"]
)
async def test_a_worker_that_delegates_to_itself_stops(task: LeasedTask, deepest: int, code: str) -> None:
    """It leases each task that it made and makes the next below it: up to the depth, and the last answer has a receipt."""
    authority = {"spawn": {"max": 1}, "maxDepth": deepest}
    at, depths = task.root, []
    while at["outcome"] == "ALLOW":
        depths.append(at["depth"])
        lease_id = await task.lease(authority, task_id=at["task_id"])
        at = (await task.worker.evaluate(task.worker.child(at), Legivellum_Lease=lease_id)).json()
    assert (depths, at["reason_code"]) == ([*range(min(deepest, 3) + 1)], code)
    receipts = await task.gate.receipts()
    assert [receipt["phase"] for receipt in receipts] == ["accepted"] * len(depths) + ["rejected"]
    assert receipts[-1]["receipt_id"] == at["receipt_id"]


async def test_a_lease_that_is_not_the_callers_or_not_live_is_lost(task: LeasedTask) -> None:
    """The answer is the same for another's, an ended one, one that never was, and what is no id."""
    tenant = task.gate.world.tenant
    others, ended = await task.lease(GRANTED, holder="alice", task_id=new_id()), await task.lease(GRANTED)
    await task.issuer.expire(tenant, ended)
    details = set()
    for lease_id in (others, ended, new_id(), "", "no id"):
        answer = await task.child(lease_id)
        assert (answer["status"], answer["reason_code"]) == (403, "LEASE_LOST")
        assert answer["root_task_id"] is None
        details.add(answer["detail"])
    assert len(details) == 1
    lease_id = await task.lease(GRANTED)
    assert (await task.child(lease_id))["outcome"] == "ALLOW"
    await task.issuer.release(tenant, lease_id, "worker")
    assert (await task.child(lease_id))["reason_code"] == "LEASE_LOST"


async def test_a_lease_is_good_for_its_own_task_alone(task: LeasedTask) -> None:
    lease_id = await task.lease(GRANTED)
    other = (await task.alice.evaluate()).json()
    elsewhere = task.worker.child(other)
    answer = await task.worker.evaluate(elsewhere, Legivellum_Lease=lease_id)
    assert answer.json()["reason_code"] == "CAUSALITY_MISMATCH"


async def test_without_a_lease_a_worker_may_only_query(task: LeasedTask) -> None:
    """Where leases are required; a principal mints by its type."""
    free = task.worker.envelope(payload_kind="lease")
    query = task.worker.envelope(payload_kind="query")
    for envelope in (free, query):
        del envelope["causality"]
    assert (await task.worker.evaluate(free)).json()["reason_code"] == "LEASE_AUTHORITY"
    assert (await task.worker.evaluate(query)).status_code == 200
    assert (await task.alice.evaluate(free)).status_code == 200


async def test_explain_tells_of_a_lost_lease_what_was_decided(task: LeasedTask) -> None:
    """From the receipt alone, after the lease is long gone."""
    denial = await task.child("gone")
    answer = await task.worker.post("/v1/explain", {"receipt_id": denial["receipt_id"]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["same"] is True
    assert answer.json()["redecided"]["reason_code"] == "LEASE_LOST"
    [failed] = [rule for rule in answer.json()["rules"] if rule["passed"] is False]
    assert failed["rule"] == 12
