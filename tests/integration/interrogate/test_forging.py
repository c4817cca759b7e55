"""Forged lineages at both gates: InterroGate's and the ledger's, which run beside each other on one database (IG-04)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.gate_fixture import (
    GateClient,
    PublishedWorld,
    Requesting,
    serving_interrogate,
)
from tests.integration.memorygate.conftest import accepted, complete, escalate, new_id
from tests.integration.memorygate.ledger_fixture import free_port, ready

from legivellum.gate.composition import serving
from memorygate.gate import GATE as LEDGER
from memorygate.settings import Settings as LedgerSettings

POLICY: dict[str, Any] = {
    "limits": {"maxSpawnDepth": 5},
    "budget": {"initial": 4},
    "surfaces": [{"surfaceId": "public", "principals": ["*"], "capabilities": {"allow": ["doc.*"]}}],
}
"""Only the custodian of a task adds to it, which is the default."""


@dataclass(slots=True)
class TwoGates:
    """InterroGate and the ledger, and principals of one tenant."""

    gate: GateClient
    ledger: httpx.AsyncClient
    alice: Requesting
    bob: Requesting
    worker: Requesting

    async def post_receipt(self, requesting: Requesting, receipt: dict[str, Any]) -> httpx.Response:
        principal = requesting.principal
        body = {"principal_ai": principal.name, **receipt}
        return await self.ledger.post("/receipts", json=body, headers=principal.headers)

    async def accept(self, requesting: Requesting, task_id: str, **fields: Any) -> str:
        """Opens the obligation of a task, of which the requester has custody then."""
        receipt = accepted(task_id=task_id, **fields)
        answer = await self.post_receipt(requesting, receipt)
        assert answer.status_code == 201, answer.text
        return str(receipt["receipt_id"])

    async def root(self, requesting: Requesting) -> dict[str, Any]:
        """A root that is admitted and then accepted."""
        answer = await requesting.evaluate()
        assert answer.status_code == 200, answer.text
        await self.accept(requesting, answer.json()["task_id"])
        return dict(answer.json())

    async def child(self, requesting: Requesting, parent: dict[str, Any], **changes: Any) -> dict[str, Any]:
        answer = await requesting.evaluate(requesting.child(parent, **changes))
        assert answer.status_code == 200, answer.text
        await self.accept(requesting, answer.json()["task_id"])
        return dict(answer.json())


@pytest_asyncio.fixture(loop_scope="session")
async def gates(admission_database: AdmissionDatabase) -> AsyncIterator[TwoGates]:
    world = PublishedWorld(admission_database)
    principals = [world.principal("alice"), world.principal("bob"), world.principal("worker", "worker")]
    await world.publish(*principals, policies={"strict": POLICY})
    settings = LedgerSettings(
        database_url=SecretStr(admission_database.ledger.writer),
        identity_database_url=SecretStr(admission_database.database.identity),
        port=free_port(),
        rate_per_second=0,
        identity_poll_ms=20,
    )
    async with serving_interrogate(world) as gate, serving(LEDGER, settings) as url:
        await ready(url)
        async with httpx.AsyncClient(base_url=url, timeout=30) as ledger:
            alice, bob, worker = (gate.requesting(principal) for principal in principals)
            await gate.awaited(alice)
            yield TwoGates(gate, ledger, alice, bob, worker)


async def is_mismatch(requesting: Requesting, envelope: dict[str, Any]) -> bool:
    """The refusal of a forgery is filed under its own id: it touches no tree."""
    answer = await requesting.evaluate(envelope)
    decision = answer.json()
    assert answer.status_code == 403, answer.text
    assert decision["root_task_id"] is None
    return bool(decision["reason_code"] == "CAUSALITY_MISMATCH")


async def test_the_custodian_of_a_task_adds_to_it(gates: TwoGates) -> None:
    """Depth and budget follow the tree; nobody is believed about them."""
    at = await gates.root(gates.alice)
    assert (at["depth"], at["budget_remaining"]) == (0, 3)
    for depth, budget in ((1, 2), (2, 1), (3, 0)):
        at = await gates.child(gates.alice, at, causality={"spawn_depth": None})
        assert (at["depth"], at["budget_remaining"]) == (depth, budget)
    answer = await gates.alice.evaluate(gates.alice.child(at))
    assert (answer.status_code, answer.json()["reason_code"]) == (403, "BUDGET_EXHAUSTED")


async def test_a_claim_that_disagrees_with_the_tree(gates: TwoGates) -> None:
    root = await gates.root(gates.alice)
    child = await gates.child(gates.alice, root)
    other = await gates.root(gates.alice)
    for claims in (
        {"spawn_depth": 1},
        {"recursion_budget_remaining": 3},
        {"root_task_id": other["root_task_id"]},
        {"caused_by_receipt_id": root["receipt_id"]},
        {"caused_by_receipt_id": new_id()},
        {"parent_task_id": new_id()},
        {"parent_task_id": root["task_id"]},
        {"task_id": child["task_id"]},
        {"task_id": other["task_id"]},
        {"parent_task_id": None},
    ):
        assert await is_mismatch(gates.alice, gates.alice.child(child, causality=claims)), claims
    assert (await gates.alice.evaluate(gates.alice.child(child))).status_code == 200


async def test_a_parent_that_is_not_the_callers(gates: TwoGates) -> None:
    """A shallower task would give back depth and budget: another's, one that was handed on, one that is closed."""
    root = await gates.root(gates.alice)
    child = await gates.child(gates.alice, root)
    assert await is_mismatch(gates.bob, gates.bob.child(root))
    handed_on = escalate("bob", task_id=child["task_id"])
    assert (await gates.post_receipt(gates.alice, handed_on)).status_code == 201
    assert await is_mismatch(gates.alice, gates.alice.child(child))
    assert (await gates.bob.evaluate(gates.bob.child(child))).status_code == 200
    closed = complete(task_id=root["task_id"])
    assert (await gates.post_receipt(gates.alice, closed)).status_code == 201
    assert await is_mismatch(gates.alice, gates.alice.child(root))


async def test_a_parent_that_nobody_admitted(gates: TwoGates) -> None:
    """A task of the ledger, a request that was denied and the receipt of the denial are no admitted tasks."""
    task_id = new_id()
    cause = await gates.accept(gates.alice, task_id)
    unadmitted = {"root_task_id": task_id, "task_id": task_id, "receipt_id": cause, "depth": 0}
    assert await is_mismatch(gates.alice, gates.alice.child(unadmitted))

    refused_id = new_id()
    refused = gates.alice.envelope(causality={"root_task_id": refused_id, "capability_id": "mail.send"})
    denial = (await gates.alice.evaluate(refused)).json()
    assert denial["reason_code"] == "CAPABILITY_DENIED"
    await gates.accept(gates.alice, refused_id)
    for task in (refused_id, denial["receipt_id"]):
        below = {"root_task_id": task, "task_id": task, "receipt_id": denial["receipt_id"], "depth": 0}
        assert await is_mismatch(gates.alice, gates.alice.child(below))
    # The denial has not taken the name of the task: it can be begun in good order.
    assert (await gates.alice.evaluate(gates.alice.envelope(causality={"root_task_id": refused_id}))).status_code == 200


async def test_a_task_of_another_tenant(gates: TwoGates) -> None:
    """It is as unknown as one that never was; the same names may be used again."""
    world = gates.gate.world
    stranger = world.principal("alice", tenant=uuid4())
    await world.publish(stranger, policies={"strict": POLICY}, tenant=stranger.tenant)
    theirs = await gates.gate.awaited(gates.gate.requesting(stranger))
    root = await gates.root(gates.alice)
    unknown = {"root_task_id": new_id(), "task_id": new_id(), "receipt_id": new_id(), "depth": 0}
    details = set()
    for parent in (root, unknown):
        answer = await theirs.evaluate(theirs.child(parent))
        assert (answer.status_code, answer.json()["reason_code"]) == (403, "CAUSALITY_MISMATCH")
        details.add(answer.json()["detail"])
    assert len(details) == 1
    again = theirs.envelope(causality={"root_task_id": root["root_task_id"]})
    assert (await theirs.evaluate(again)).status_code == 200


async def test_a_worker_begins_no_tree(gates: TwoGates) -> None:
    assert await is_mismatch(gates.worker, gates.worker.envelope())
    root = await gates.root(gates.alice)
    assert await is_mismatch(gates.worker, gates.worker.child(root, causality={"root_task_id": new_id()}))


async def test_a_task_is_admitted_once(gates: TwoGates) -> None:
    """By its own request again it is answered as before; by any other, and by any other principal, it is refused."""
    envelope = gates.alice.envelope()
    first = await gates.alice.evaluate(envelope)
    again = await gates.alice.evaluate(envelope)
    assert (again.status_code, again.headers.get("idempotency-replayed")) == (200, "true")
    assert again.json()["receipt_id"] == first.json()["receipt_id"]
    assert await is_mismatch(gates.alice, envelope | {"payload": {"text": "another"}})
    assert await is_mismatch(gates.bob, envelope)
    root = dict(first.json())
    await gates.accept(gates.alice, root["task_id"])
    assert await is_mismatch(gates.alice, gates.alice.child(root, causality={"task_id": root["task_id"]}))


async def test_a_task_that_was_posted_under_another_root_first(gates: TwoGates) -> None:
    """The ledger settles a root at first sight: whoever is first there cannot move a task into another tree."""
    root, other = await gates.root(gates.alice), await gates.root(gates.alice)
    elsewhere = new_id()
    await gates.accept(gates.alice, elsewhere, parent_task_id=other["task_id"])
    assert await is_mismatch(gates.alice, gates.alice.child(root, causality={"task_id": elsewhere}))
    assert await is_mismatch(gates.alice, gates.alice.envelope(causality={"root_task_id": elsewhere}))
    # In its own tree it is what it says.
    here = new_id()
    await gates.accept(gates.alice, here, parent_task_id=root["task_id"])
    answer = await gates.alice.evaluate(gates.alice.child(root, causality={"task_id": here}))
    assert (answer.status_code, answer.json()["task_id"]) == (200, here)


@pytest.mark.invariant("INV-099")
@pytest.mark.parametrize("phase", ["accepted", "rejected"])
@pytest.mark.parametrize("role", ["principal", "delegate", "worker", "service", "component", "admin"])
async def test_nobody_posts_an_admission(gates: TwoGates, role: str, phase: str) -> None:
    """Under no name: neither its own nor the gate's."""
    world = gates.gate.world
    forger = gates.gate.requesting(world.principal(f"forger-{role}", role))
    await world.publish(forger.principal)
    task_id = new_id()
    receipt = {"receipt_id": new_id(), "task_id": task_id, "kind": "admission", "phase": phase}
    for more in ({}, {"emitter": "svc:interrogate"}):
        answer = await gates.post_receipt(forger, receipt | more)
        while answer.status_code == 401:  # the ledger has not read of the forger yet
            answer = await gates.post_receipt(forger, receipt | more)
        assert answer.status_code == 403, answer.text
    below = {"root_task_id": task_id, "task_id": task_id, "receipt_id": receipt["receipt_id"], "depth": 0}
    assert await is_mismatch(gates.alice, gates.alice.child(below))


@pytest.mark.invariant("INV-097")
async def test_no_header_path_or_default_names_a_domain(gates: TwoGates) -> None:
    complete_envelope = gates.alice.envelope()
    for name in ("tenant_id", "surface_id", "policy_profile_id"):
        envelope = {member: value for member, value in complete_envelope.items() if member != name}
        value = complete_envelope[name]
        headers = {name: value, f"x_{name}": value, f"legivellum_{name.removesuffix('_id')}": value}
        for path in ("/v1/evaluate", f"/v1/evaluate?{name}={value}"):
            answer = await gates.alice.post(path, envelope, **headers)
            assert (answer.status_code, answer.json()["code"]) == (422, "NO_DOMAIN"), answer.text
    assert await gates.gate.receipts() == []
