"""Tasks that a task begins: asked of a real InterroGate under a real lease, with the cause that a real ledger names."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.databases import Server
from tests.integration.interrogate.conftest import AdmissionDatabase, make_admissions
from tests.integration.interrogate.gate_fixture import GateClient, PublishedWorld, serving_interrogate
from tests.integration.interrogate.leases import issuing
from tests.integration.memorygate.conftest import new_id
from tests.integration.memorygate.ledger_fixture import free_port, ready

from legivellum.base.timestamps import rfc3339
from legivellum.gate.composition import serving
from legivellum_worker import Release, Work, WorkerSettings
from legivellum_worker.leased_work import WorkerLease, boot_clock
from legivellum_worker.spawning import SpawnDeniedError, SpawnedTask
from legivellum_worker.work import AsyncWork
from memorygate.gate import GATE as LEDGER
from memorygate.settings import Settings as LedgerSettings

SURFACE: dict[str, Any] = {"principals": ["*"], "capabilities": {"allow": ["doc.*"]}}
POLICY: dict[str, Any] = {
    "limits": {"maxSpawnDepth": 3},
    "invariants": {"leaseAuthority": "Required"},
    "surfaces": [
        {"surfaceId": "public", **SURFACE},
        {"surfaceId": "slow", **SURFACE, "rateLimit": {"requests": 1, "per": "90s", "burst": 1}},
        {"surfaceId": "away", **SURFACE, "targets": [{"name": "docs", "url": "http://127.0.0.1:9/"}]},
    ],
}


@dataclass(slots=True)
class SpawningWorker:
    """A worker with leases on a task that alice began."""

    gate: GateClient
    root: dict[str, Any]
    lease: Callable[[dict[str, Any]], Any]
    settings: WorkerSettings

    async def work(self, authority: dict[str, Any]) -> Work:
        lease = await self.lease(authority)
        task = {
            "task_id": self.root["task_id"],
            "tenant_id": str(self.gate.world.tenant),
            "principal_ai": "alice",
            "payload_pointer": "s3://jobs/1",
            "authority": authority,
        }
        content = {
            "lease_id": lease.lease_id,
            "number": lease.number,
            "issued_at": rfc3339(lease.issued_at),
            "expires_in_ms": 60_000,
            "root_task_id": self.root["root_task_id"],
            "task": task,
        }
        return Work(WorkerLease(content, boot_clock()), self.settings)

    async def spawn(self, work: Work, capability: str = "doc.read", **options: Any) -> SpawnedTask:
        return await asyncio.to_thread(lambda: work.spawn(capability, {"n": 1}, **options))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def spawning_database(postgres: Server) -> AsyncIterator[AdmissionDatabase]:
    made = await make_admissions(postgres)
    yield made
    await postgres.drop(made.database)


@pytest_asyncio.fixture(loop_scope="session")
async def spawner(spawning_database: AdmissionDatabase, tmp_path: Path) -> AsyncIterator[SpawningWorker]:
    world = PublishedWorld(spawning_database)
    alice, worker = world.principal("alice"), world.principal("worker", "worker")
    await world.publish(alice, worker, policies={"strict": POLICY})
    ledger = LedgerSettings(
        database_url=SecretStr(spawning_database.ledger.writer),
        identity_database_url=SecretStr(spawning_database.database.identity),
        port=free_port(),
        identity_poll_ms=20,
        rate_per_second=0,
    )
    (tmp_path / "key").write_text(worker.key)
    async with (
        issuing(spawning_database) as issuer,
        serving_interrogate(world) as gate,
        serving(LEDGER, ledger) as ledger_url,
    ):
        await ready(ledger_url)
        root = await (await gate.awaited(gate.requesting(alice))).evaluate()
        settings = WorkerSettings(
            url="http://127.0.0.1:9",
            ledger_url=ledger_url,
            interrogate_url=gate.url,
            policy_profile="strict",
            api_key_file=str(tmp_path / "key"),
            environ={},
        )

        async def lease(authority: dict[str, Any]) -> Any:
            return await issuer.issue(
                world.tenant, root.json()["task_id"], holder="worker", principal="alice", authority=authority
            )

        yield SpawningWorker(gate, root.json(), lease, settings)


GRANTED = {"spawn": {"max": 2}, "maxDepth": 2}


async def test_what_is_spawned_hangs_under_the_leased_task(spawner: SpawningWorker) -> None:
    """In the name of the task's principal, one deeper, caused by the receipt that opened the task."""
    work = await spawner.work(GRANTED)
    spawned = await spawner.spawn(work)
    [_, receipt] = await spawner.gate.receipts()
    assert receipt["receipt_id"] == spawned.receipt_id
    assert (receipt["principal_ai"], receipt["parent_task_id"]) == ("alice", work.task_id)
    assert receipt["caused_by_receipt_id"] == spawner.root["receipt_id"]
    assert spawned.decision["depth"] == 1
    assert spawned.task_id not in {"", work.task_id}


async def test_spawning_from_an_async_handler(spawner: SpawningWorker) -> None:
    spawned = await AsyncWork(await spawner.work(GRANTED)).spawn("doc.read", {})
    assert spawned.decision["outcome"] == "ALLOW"


async def test_each_call_is_a_request_and_a_key_names_one(spawner: SpawningWorker) -> None:
    """With a key a later lease of the task finds what an earlier one began."""
    work = await spawner.work({"spawn": {"max": 9}, "maxDepth": 2})
    first, second = await spawner.spawn(work), await spawner.spawn(work)
    keyed = await spawner.spawn(work, key="report")
    again = await spawner.spawn(await spawner.work({"spawn": {"max": 9}, "maxDepth": 2}), key="report")
    assert len({first.task_id, second.task_id, keyed.task_id}) == 3
    assert again.task_id == keyed.task_id


@pytest.mark.parametrize("authority", [{}, {"spawn": {"max": 1}}, {"maxDepth": 2}], ids=str)
async def test_what_the_lease_does_not_grant_is_denied(spawner: SpawningWorker, authority: dict[str, Any]) -> None:
    """Not caught, it ends the task with the reason as its code."""
    work = await spawner.work(authority)
    with pytest.raises(SpawnDeniedError) as denied:
        await spawner.spawn(work)
    assert denied.value.code == "LEASE_AUTHORITY"
    assert denied.value.claim()["metadata"] == {"reason": "LEASE_AUTHORITY"}


async def test_a_rate_limit_gives_the_task_back(spawner: SpawningWorker) -> None:
    """For as long as InterroGate says: the limit says nothing about the task."""
    work = await spawner.work(GRANTED)
    await spawner.spawn(work, surface="slow")
    with pytest.raises(Release) as release:
        await spawner.spawn(work, surface="slow")
    assert 60 < release.value.after <= 90


async def test_what_no_target_took_is_a_failure(spawner: SpawningWorker) -> None:
    """The request was admitted; InterroGate does not forward it again."""
    work = await spawner.work(GRANTED)
    with pytest.raises(SpawnDeniedError) as undelivered:
        await spawner.spawn(work, surface="away")
    assert undelivered.value.code == "SPAWN_UNDELIVERED"
    assert undelivered.value.decision["outcome"] == "ALLOW"


async def test_a_lease_that_is_over_spawns_nothing(spawner: SpawningWorker) -> None:
    old = await spawner.work(GRANTED)
    await spawner.lease(GRANTED)
    with pytest.raises(SpawnDeniedError) as denied:
        await spawner.spawn(old)
    assert denied.value.code == "LEASE_LOST"


def test_without_interrogate_nothing_is_asked(tmp_path: Path) -> None:
    settings = WorkerSettings(url="http://127.0.0.1:9", api_key_file=str(tmp_path / "key"), environ={})
    lease = {"lease_id": new_id(), "number": 1, "expires_in_ms": 1, "task": {"task_id": "t", "payload_pointer": "x"}}
    with pytest.raises(Exception, match="set METAGATE_INTERROGATE_URL"):
        Work(WorkerLease(lease, boot_clock()), settings).spawn("doc.read", {})
