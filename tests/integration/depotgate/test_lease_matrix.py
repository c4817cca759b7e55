"""Who may deposit what, and under which lease: role × type × lease over HTTP, with AsyncGate served beside (DP-04 to DP-06)."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
import pytest_asyncio
from tests.integration.asyncgate.gate_fixture import CLAIM, TaskGate, TaskTenant, serving_asyncgate
from tests.integration.depotgate.conftest import DepotDatabase
from tests.integration.depotgate.gate_fixture import Depot, serving_depotgate
from tests.integration.memorygate.conftest import new_id, rows

pytestmark = pytest.mark.asyncio(loop_scope="session")

TYPES = ("principal", "delegate", "worker", "service", "component", "observer", "admin")
ROLES = ("plan", "input", "output", "supporting")
WORKERS = ("worker", "service", "component")
FREE = {("delegate", "plan"), ("delegate", "input"), ("principal", "input")}
"""Type and role of what is deposited without any lease."""
LEASED = {(who, role) for who in WORKERS for role in ("output", "supporting")}
FULL = {"writeBeyondReceipts": True, "sinks": ["depotgate/output", "depotgate/supporting"]}
CEILING = """
- namespaces: ['team-*']
  authority: {writeBeyondReceipts: true, sinks: [depotgate/output, depotgate/supporting, depotgate/plan, depotgate/other, other/output]}
"""


@dataclass(slots=True)
class Gates:
    depot: Depot
    tasks: TaskGate

    async def leased(self, who: str = "worker", authority: dict[str, Any] | None = None) -> tuple[str, str]:
        """A task of its own mailbox, leased; its id and its lease's."""
        box = f"box-{new_id().lower()}"
        task_id = await self.tasks.park(capability=box, **({} if authority is None else {"authority": authority}))
        return task_id, (await self.tasks.lease(who, box))["lease_id"]

    async def deposit(
        self,
        lease_id: str | None = None,
        content: Any = b"work",
        who: str = "worker",
        role: str = "output",
        **query: str,
    ) -> httpx.Response:
        headers = {} if lease_id is None else {"legivellum-lease": lease_id}
        return await self.depot.deposit(content, who=who, role=role, headers=headers, **query)

    async def end(self, how: str, task_id: str, lease_id: str) -> None:
        if how == "expired":
            # As if the time of the lease were over: nobody renewed it.
            connection = await asyncpg.connect(self.depot.database.superuser)
            try:
                statement = "UPDATE asyncgate.task SET lease_until = clock_timestamp() - interval '1 second' WHERE lease_id = $1"
                assert await connection.execute(statement, lease_id) == "UPDATE 1"
            finally:
                await connection.close()
            return
        path, who, body = {
            "completed": ("/complete", "worker", {"lease_id": lease_id, **CLAIM}),
            "escalated": ("/escalate", "worker", {"lease_id": lease_id, "escalation_class": "other", "escalation_reason": "no"}),
            "released": ("/lease/release", "worker", {"lease_id": lease_id}),
            "lease revoked": (f"/tasks/{task_id}/revoke", "principal", {"what": "lease"}),
            "task revoked": (f"/tasks/{task_id}/revoke", "principal", {"reason": "not needed"}),
        }[how]  # fmt: skip
        answer = await self.tasks.post(who, path, body)
        assert answer.status_code in {200, 201}, answer.text

    async def kept(self) -> tuple[Any, ...]:
        """Everything that a refused deposit must leave as it was."""
        query = """SELECT (SELECT count(*) FROM memorygate.receipt WHERE tenant = $1 AND body LIKE '%svc:depotgate%'),
                          (SELECT count(*) FROM depotgate.artifact WHERE tenant = $1), (SELECT count(*) FROM depotgate.blob WHERE tenant = $1)"""
        [counts] = await rows(self.depot.database.superuser, query, self.depot.tenant.uid)
        return *counts, self.depot.files()


ENDS = ("completed", "escalated", "released", "lease revoked", "task revoked", "expired")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gates(depot_database: DepotDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gates]:
    tenant = TaskTenant(depot_database.tasks)
    await tenant.publish()
    directory = tmp_path_factory.mktemp("depot")
    ceilings = directory / "ceilings.yaml"
    ceilings.write_text(CEILING, encoding="utf-8")
    async with (
        serving_asyncgate(tenant, ceilings_file=str(ceilings)) as tasks,
        serving_depotgate(tenant, depot_database, directory / "blobs") as depot,
    ):
        yield Gates(depot, tasks)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def optional(gates: Gates, depot_database: DepotDatabase) -> AsyncIterator[Gates]:
    """The same tenant and store at a gate that asks for no lease."""
    tenant, directory = gates.depot.tenant, gates.depot.directory
    async with serving_depotgate(tenant, depot_database, directory, leases="optional") as depot:
        yield Gates(depot, gates.tasks)


def refused(answer: httpx.Response) -> str | None:
    """The code of a refusal; None: it was stored."""
    if answer.status_code == 201:
        return None
    code: str = answer.json()["code"]
    assert answer.status_code == {"LEASE_LOST": 409, "ARTIFACT_CONFLICT": 409}.get(code, 403), answer.text
    return code


@pytest.mark.invariant("INV-080", "INV-093")
@pytest.mark.parametrize("who", TYPES)
@pytest.mark.parametrize("role", ROLES)
async def test_type_by_role_without_a_lease(gates: Gates, optional: Gates, who: str, role: str) -> None:
    """Where leases are optional, only what needs one without is let in as well."""
    needs_lease = (who, role) in LEASED
    expected = None if (who, role) in FREE else "LEASE_REQUIRED" if needs_lease else "ROLE_NOT_PERMITTED"
    before = await gates.kept()
    assert refused(await gates.deposit(who=who, role=role, content=new_id().encode())) == expected
    assert (await gates.kept() == before) == (expected is not None)
    without = refused(await optional.deposit(who=who, role=role, content=new_id().encode()))
    assert without == (None if needs_lease else expected)


@pytest.mark.invariant("INV-080")
@pytest.mark.parametrize("who", TYPES)
@pytest.mark.parametrize("role", ROLES)
async def test_type_by_role_under_a_lease(gates: Gates, who: str, role: str) -> None:
    """A lease lets its holder deposit work, never a plan or an input, and nobody else anything."""
    _, lease_id = await gates.leased(who if who in WORKERS else "worker", FULL)
    otherwise = "LEASE_AUTHORITY" if (who, role) in FREE else "ROLE_NOT_PERMITTED"
    expected = None if (who, role) in LEASED else otherwise
    before = await gates.kept()
    assert refused(await gates.deposit(lease_id, who=who, role=role, content=new_id().encode())) == expected
    assert (await gates.kept() == before) == (expected is not None)


@pytest.mark.invariant("INV-074")
@pytest.mark.parametrize(
    ("authority", "permitted"),
    [
        (None, ()),
        ({}, ()),
        ({"writeBeyondReceipts": True}, ()),
        ({"sinks": FULL["sinks"]}, ()),
        ({"writeBeyondReceipts": False, "sinks": FULL["sinks"]}, ()),
        ({"writeBeyondReceipts": True, "sinks": ["depotgate/plan"]}, ()),
        ({"writeBeyondReceipts": True, "sinks": ["other/output", "depotgate/other"]}, ()),
        ({"writeBeyondReceipts": True, "sinks": ["depotgate/output"]}, ("output",)),
        ({"writeBeyondReceipts": True, "sinks": ["depotgate/supporting"]}, ("supporting",)),
        (FULL, ("output", "supporting")),
    ],
)
async def test_what_the_authority_of_a_task_lets_its_worker_deposit(
    gates: Gates, authority: dict[str, Any] | None, permitted: tuple[str, ...]
) -> None:
    """Absent is denied; what goes beyond is refused, also where the gate asks for no lease."""
    _, lease_id = await gates.leased(authority=authority)
    for role in ("output", "supporting"):
        before = await gates.kept()
        expected = None if role in permitted else "LEASE_AUTHORITY"
        assert refused(await gates.deposit(lease_id, role=role, content=new_id().encode())) == expected
        assert (await gates.kept() == before) == (expected is not None)


async def test_a_gate_without_required_leases_believes_no_wrong_one(optional: Gates) -> None:
    _, lease_id = await optional.leased()
    before = await optional.kept()
    assert refused(await optional.deposit(lease_id)) == "LEASE_AUTHORITY"
    assert refused(await optional.deposit(new_id())) == "LEASE_LOST"
    assert await optional.kept() == before


async def test_whose_lease_it_is(gates: Gates) -> None:
    task_id, lease_id = await gates.leased(authority=FULL)
    other_task, other_lease = await gates.leased("other", FULL)
    stranger = TaskTenant(gates.depot.database.tasks)
    await stranger.publish()
    theirs = Depot(stranger, gates.depot.database, gates.depot.client, gates.depot.url, gates.depot.directory)
    await theirs.until_known()
    before = await gates.kept()
    assert refused(await gates.deposit(other_lease)) == "LEASE_LOST"
    assert refused(await gates.deposit(lease_id, who="other")) == "LEASE_LOST"
    assert refused(await gates.deposit(new_id())) == "LEASE_LOST"
    assert refused(await theirs.deposit(b"x", who="worker", role="output", headers={"legivellum-lease": lease_id})) == "LEASE_LOST"  # fmt: skip
    assert refused(await gates.deposit(lease_id, task_id=other_task)) == "LEASE_AUTHORITY"
    assert await gates.kept() == before
    named, unnamed = await gates.deposit(lease_id, task_id=task_id), await gates.deposit(lease_id)
    assert [answer.json()["task_id"] for answer in (named, unnamed)] == [task_id, task_id]


@pytest.mark.invariant("INV-094")
async def test_the_receipt_of_work_is_about_the_obligation_and_closes_nothing(gates: Gates) -> None:
    """DP-06: its principal, its task, caused by what issued the lease; the task goes on and is completed as ever."""
    task_id, lease_id = await gates.leased(authority=FULL)
    deposited = (await gates.deposit(lease_id, name="out.txt")).json()
    *_, issued, stored = await gates.depot.tenant.receipts(task_id)
    assert (stored["receipt_id"], stored["phase"]) == (deposited["receipt_id"], "stored")
    assert (stored["principal_ai"], stored["task_id"], stored["obligation_id"]) == ("principal", task_id, task_id)
    assert (issued["phase"], stored["caused_by_receipt_id"]) == ("lease_issued", issued["receipt_id"])
    body = {name: stored["body"][name] for name in ("role", "name", "depositor", "lease_number")}
    assert body == {"role": "output", "name": "out.txt", "depositor": "worker", "lease_number": 1}
    manifest = (await gates.depot.get(f"/artifacts/{deposited['pointer']}/manifest")).json()
    assert (manifest["lease_number"], manifest["depositor"]) == (1, "worker")
    await gates.end("completed", task_id, lease_id)
    assert (await gates.depot.tenant.phases(task_id))[-2:] == ["stored", "complete"]


def _asked(gates: Gates, lease_id: str) -> bytes:
    """The first line that a client hears which waits for `100 Continue` before it sends anything."""
    where = urlsplit(gates.depot.url)
    lines = [
        "POST /artifacts?role=output HTTP/1.1", "Host: depot", f"X-API-Key: {gates.depot.tenant.principals['worker'].key}",
        f"Legivellum-Lease: {lease_id}", "Expect: 100-continue", "Content-Length: 1000000", "", "",
    ]  # fmt: skip
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as connection:
        connection.sendall("\r\n".join(lines).encode())
        return connection.recv(65_536).partition(b"\r\n")[0]


@pytest.mark.invariant("INV-074")
@pytest.mark.parametrize("how", ENDS)
async def test_a_lease_that_ended_before_is_refused_before_the_body(gates: Gates, how: str) -> None:
    task_id, lease_id = await gates.leased(authority=FULL)
    assert await asyncio.to_thread(_asked, gates, lease_id) == b"HTTP/1.1 100 Continue"
    await gates.end(how, task_id, lease_id)
    before = await gates.kept()
    assert b" 409 " in await asyncio.to_thread(_asked, gates, lease_id)
    assert refused(await gates.deposit(lease_id)) == "LEASE_LOST"
    assert await gates.kept() == before


@pytest.mark.parametrize("how", ["completed", "expired"])
async def test_who_lost_the_answer_asks_again_though_the_lease_is_over(gates: Gates, how: str) -> None:
    """`artifact_id` makes a retry safe: the same content is a replay, another one a conflict, and of somebody else nothing."""
    task_id, lease_id = await gates.leased(authority=FULL)
    artifact_id = new_id()
    first = await gates.deposit(lease_id, artifact_id=artifact_id)
    assert first.status_code == 201, first.text
    await gates.end(how, task_id, lease_id)
    before = await gates.kept()
    for task in ({}, {"task_id": task_id}):
        again = await gates.deposit(lease_id, artifact_id=artifact_id, **task)
        assert (again.status_code, again.json()) == (200, first.json())
    assert refused(await gates.deposit(lease_id, content=b"other", artifact_id=artifact_id)) == "ARTIFACT_CONFLICT"
    assert refused(await gates.deposit(lease_id, artifact_id=artifact_id, who="other")) == "LEASE_LOST"
    assert refused(await gates.deposit(lease_id, artifact_id=new_id())) == "LEASE_LOST"
    assert await gates.kept() == before


class SlowBody:
    """A body whose second half is sent when the test says so."""

    def __init__(self, size: int) -> None:
        self._half = bytes(size // 2)
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._half
        self.begun.set()
        await self.go_on.wait()
        yield self._half + new_id().encode()


@pytest.mark.invariant("INV-074")
@pytest.mark.parametrize("size", [2_000, 20 * 2**20])
@pytest.mark.parametrize("how", ENDS)
async def test_a_lease_that_ends_during_the_upload_leaves_nothing(gates: Gates, how: str, size: int) -> None:
    """Promise 8, for what is one write to the store and for what is many."""
    task_id, lease_id = await gates.leased(authority=FULL)
    before = await gates.kept()
    body = SlowBody(size)
    upload = asyncio.create_task(gates.deposit(lease_id, content=body))
    async with asyncio.timeout(20):
        await body.begun.wait()
        while "depotgate_uploads 1.0" not in (await gates.depot.get("/metrics")).text:
            await asyncio.sleep(0.02)
    await gates.end(how, task_id, lease_id)
    body.go_on.set()
    assert refused(await upload) == "LEASE_LOST"
    assert await gates.kept() == before


async def test_a_lease_that_is_renewed_during_the_upload_holds(gates: Gates) -> None:
    """The renewal counts, not the time that the lease had when the body began."""
    _, lease_id = await gates.leased(authority=FULL)
    body = SlowBody(2_000)
    upload = asyncio.create_task(gates.deposit(lease_id, content=body))
    await asyncio.wait_for(body.begun.wait(), 20)
    renewed = await gates.tasks.post("worker", "/lease/renew", {"lease_id": lease_id})
    assert renewed.status_code == 200, renewed.text
    body.go_on.set()
    assert refused(await upload) is None


@pytest.mark.invariant("INV-074")
@pytest.mark.parametrize("how", ["completed", "lease revoked"])
async def test_no_artifact_is_stored_after_its_lease_ended(gates: Gates, how: str) -> None:
    """Promise 8: deposits race the end of their lease. The ledger has every one that was answered 201 before the end, and no other."""
    outcomes: set[str | None] = set()
    rounds = 0
    while rounds < 12 or outcomes != {None, "LEASE_LOST"}:
        # The end comes a little later each round: before, among and after the commits of the deposits.
        pause, rounds = rounds % 12, rounds + 1
        task_id, lease_id = await gates.leased(authority=FULL)

        async def end_it(task_id: str = task_id, lease_id: str = lease_id, pause: int = pause) -> None:
            await asyncio.sleep(pause / 1_000)
            await gates.end(how, task_id, lease_id)

        racing = [gates.deposit(lease_id, content=new_id().encode()) for _ in range(6)]
        *answers, _ = await asyncio.gather(*racing, end_it())
        results = [refused(answer) for answer in answers]
        outcomes |= set(results)
        receipts = await gates.depot.tenant.receipts(task_id)
        phases = [receipt["phase"] for receipt in receipts]
        end = phases.index("complete" if how == "completed" else "revoked")
        assert "stored" not in phases[end:], phases
        stored = {receipt["receipt_id"] for receipt in receipts if receipt["phase"] == "stored"}
        assert stored == {answer.json()["receipt_id"] for answer in answers if answer.status_code == 201}
    files, blobs = gates.depot.files(), (await gates.kept())[2]
    assert len(files) == blobs
    _, lease_id = await gates.leased(authority=FULL)
    assert refused(await gates.deposit(lease_id)) is None
