"""Announcing at a real MetaGate (GW-02): at start, again and again, at the end; and what stops nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from tests.integration.api.gate_fixture import GateFixture, gate_fixture
from tests.integration.interrogate.calling import mail_policy, mail_problemata
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.gate_fixture import PublishedWorld, serving_interrogate
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal, free_port

from interrogate.announcing import MetaGateAddress, ProblemataAnnouncer
from interrogate.problematas import ProblemataDatabase, ProblemataReplica
from legivellum.identity.api_keys import digest_of
from legivellum.identity.caller import AuthFailure, Caller, Credential

GATEWAY = "mail-gateway"


@dataclass(slots=True)
class AnnouncingWorld:
    """A MetaGate, and a tenant with the Problemata `mail` whose gateway is a principal with a key file."""

    metagate: GateFixture
    world: PublishedWorld
    gateway: LedgerPrincipal
    agent: LedgerPrincipal
    key_file: Path

    async def read(self, name: str = "mail") -> dict[str, Any]:
        answer = await self.metagate.client.get(f"/v1/problematas/{name}", headers=self.agent.headers)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def awaited(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while not wanted(document := await self.read()):
                await asyncio.sleep(0.02)
        return document

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "metagate_url": self.metagate.url,
            "metagate_key_file": str(self.key_file),
            "resource": "http://mail-gateway:8005",
        }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def metagate(admission_database: AdmissionDatabase) -> AsyncIterator[GateFixture]:
    async with gate_fixture(admission_database.database) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def announcing(admission_database: AdmissionDatabase, metagate: GateFixture, tmp_path: Path) -> AnnouncingWorld:
    world = PublishedWorld(admission_database)
    gateway, agent = world.principal(GATEWAY, "service"), world.principal("agent")
    revision = await world.publish(
        gateway, agent, policies={"front-desk": mail_policy()},
        problematas={"mail": mail_problemata(), "not-ours": mail_problemata(gateway={
            "policyProfileRef": {"name": "front-desk"}, "surfaceId": "mail", "principals": ["another"],
        })},
    )  # fmt: skip
    await metagate.wait_for_revision(revision)
    key_file = tmp_path / "gateway.key"
    key_file.write_text(gateway.headers["X-API-Key"] + "\n")
    return AnnouncingWorld(metagate, world, gateway, agent, key_file)


@pytest.mark.invariant("INV-119")
async def test_a_process_announces_itself_and_withdraws_when_it_stops(announcing: AnnouncingWorld) -> None:
    assert (await announcing.read())["available"] is False
    async with serving_interrogate(announcing.world, **announcing.settings):
        document = await announcing.awaited(lambda mail: bool(mail["available"]))
        (instance,) = document["instances"]
        assert (instance["endpoint"], instance["version"], instance["health"]) == (
            "http://mail-gateway:8005/mcp", "3", "ok",
        )  # fmt: skip
        assert (await announcing.read("not-ours"))["instances"] == []
    assert (await announcing.read())["instances"] == []


async def test_without_a_metagate_requests_are_answered_as_ever(announcing: AnnouncingWorld) -> None:
    """What nobody answers, and a key that nobody knows: neither makes the gate unready or slow."""
    (announcing.key_file.parent / "wrong.key").write_text("mgk_nobody\n")
    for settings in (
        {"metagate_url": f"http://127.0.0.1:{free_port()}"},
        {"metagate_key_file": str(announcing.key_file.parent / "wrong.key")},
        {"metagate_key_file": str(announcing.key_file.parent / "absent.key")},
    ):
        async with serving_interrogate(announcing.world, **{**announcing.settings, **settings}) as gate:
            answer = await gate.client.get("/v1/calls", headers=announcing.agent.headers)
            assert (answer.status_code, answer.json()["items"]) == (200, [])
        assert (await announcing.read())["instances"] == []


@pytest_asyncio.fixture(loop_scope="session")
async def replica(announcing: AnnouncingWorld) -> AsyncIterator[ProblemataReplica]:
    async def connect() -> ProblemataDatabase:
        identity = announcing.world.database.database.identity
        return await ProblemataDatabase.connect(identity, size=1, query_timeout=5)

    made = ProblemataReplica(connect, stale_seconds=600)
    await made.look()
    yield made
    await made.close()


def announcer_of(
    announcing: AnnouncingWorld,
    replica: ProblemataReplica,
    instance: str,
    *,
    url: str | None = None,
    degraded: bool = False,
) -> ProblemataAnnouncer:
    """Many times a second."""

    async def whoami(credential: bytes) -> Caller | AuthFailure:
        return Caller(
            tenant=announcing.world.tenant, namespace=announcing.world.namespace, principal_key=GATEWAY, type="service",
            scope="Namespace", rights=frozenset(), suspended=False, pod=None, expires_at=None,
            credential=Credential("key", "", digest_of(credential), None),
        )  # fmt: skip

    return ProblemataAnnouncer(
        MetaGateAddress(url or announcing.metagate.url, announcing.key_file), replica, whoami,
        endpoint="http://mail-gateway:8005/mcp", is_served=lambda _problemata: True,
        is_degraded=lambda _problemata: degraded, instance=instance, seconds=0.05,
    )  # fmt: skip


async def test_a_changed_tool_makes_its_instance_degraded_and_no_other(
    announcing: AnnouncingWorld, replica: ProblemataReplica
) -> None:
    async with announcer_of(announcing, replica, "pod-0", degraded=True).running():
        document = await announcing.awaited(lambda mail: bool(mail["instances"]))
        assert document["instances"][0]["health"] == "degraded"
        assert document["available"] is False
        async with announcer_of(announcing, replica, "pod-1").running():
            document = await announcing.awaited(lambda mail: len(mail["instances"]) == 2)
            assert document["available"] is True
        document = await announcing.read()
        assert [instance["instance"] for instance in document["instances"]] == ["pod-0"]


async def test_a_version_that_is_announced_is_the_one_that_this_process_serves(
    announcing: AnnouncingWorld, replica: ProblemataReplica
) -> None:
    """A process that lags behind is refused (409), goes on, and is taken again when it has read the new version."""
    announcer = announcer_of(announcing, replica, "pod-0")
    assert await announcer.announce() == 1
    revision = await announcing.world.publish(problematas={"mail": mail_problemata(version="4")})
    await announcing.metagate.wait_for_revision(revision)
    assert await announcer.announce() == 0
    assert (await announcing.read())["available"] is False
    await replica.look()
    assert await announcer.announce() == 1
    assert (await announcing.read())["instances"][0]["version"] == "4"
    await announcer.withdraw()
    await announcer.close()
    assert (await announcing.read())["instances"] == []


async def test_a_metagate_that_comes_late_hears_of_it(announcing: AnnouncingWorld, replica: ProblemataReplica) -> None:
    port = free_port()
    announcer = announcer_of(announcing, replica, "pod-0", url=f"http://127.0.0.1:{port}")
    with pytest.raises(httpx2.ConnectError):
        await announcer.announce()
    async with announcer.running(), gate_fixture(announcing.world.database.database, port=port):
        await announcing.awaited(lambda mail: bool(mail["available"]))
        # It stops before the MetaGate does, and says so.
        await announcer.withdraw()
