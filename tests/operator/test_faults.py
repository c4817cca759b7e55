"""What happens to the writer, and what nobody who is served notices of it (F27, F29–F33)."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio
from tests.databases import Database, Server
from tests.integration.api.processes import process as gate
from tests.operator.fake_api_server import FakeApiServer
from tests.operator.machinery import Tenancy
from tests.operator.surfaces import DeclaredSurface, ScriptedSurface, scripted_tenancy, until

from legivellum.identity.api_keys import mint

LEVELS = 9_000
FAILPOINTS = ("after_packets", "after_declared", "after_tables", "before_commit", "after_commit")


@pytest_asyncio.fixture(loop_scope="session")
async def scripted(fresh_database: Database, tmp_path: Path) -> AsyncIterator[DeclaredSurface]:
    async with FakeApiServer().serving() as api:
        surface = ScriptedSurface(api, tmp_path)
        yield DeclaredSurface(surface, fresh_database, scripted_tenancy(None, fresh_database, surface.namespace))


def api_of(world: DeclaredSurface) -> FakeApiServer:
    assert isinstance(world.surface, ScriptedSurface)
    return world.surface.api


async def environment(world: DeclaredSurface) -> object:
    packet = await world.packet()
    return None if packet is None else packet["environment"]


async def changed(world: DeclaredSurface, value: int) -> None:
    await world.surface.put(
        "Manifest", "prod", {"deploymentKey": "default", "version": 2, "environment": {"round": value}}
    )


async def served(world: DeclaredSurface, value: int, *, seconds: float = 15) -> None:
    async def is_served() -> bool:
        return await environment(world) == {"round": value}

    await until(is_served, seconds=seconds)


@pytest.mark.parametrize("step", FAILPOINTS)
async def test_f27_killed_in_the_middle_of_a_publish(scripted: DeclaredSurface, step: str) -> None:
    """kill -9 at each step: what was served before is served, whole, and the restart finishes the change."""
    await scripted.declare()
    async with scripted.operator():
        await changed(scripted, 1)
        await served(scripted, 1)
    revision = await scripted.revision()
    async with scripted.operator("--no-lease", wait=False, METAGATE_FAIL=step) as operator:
        await changed(scripted, 2)
        assert await asyncio.to_thread(operator.wait) == -signal.SIGKILL
    done = step == "after_commit"
    assert await environment(scripted) == {"round": 2 if done else 1}
    assert await scripted.revision() == revision + done
    async with scripted.operator("--no-lease"):
        await served(scripted, 2)
    assert await scripted.revision() == revision + 1


async def test_f29_a_silent_watch_is_noticed_by_age_and_healed(scripted: DeclaredSurface) -> None:
    """Nothing comes through the open watch: the resync finds the change within its period."""
    await scripted.declare()
    async with scripted.operator(METAGATE_RESYNC_SECONDS="2") as operator:
        await scripted.ready("PrincipalBinding", "indexer")
        api_of(scripted).silent = True
        await changed(scripted, 1)
        await served(scripted, 1, seconds=6)
        assert await asyncio.to_thread(operator.metric, "metagate_pass_success_age_seconds") < 3


async def test_f30_gone_in_the_middle_of_a_watch_changes_nothing(scripted: DeclaredSurface) -> None:
    """410: a new listing, the deletion that was lost is found, nothing else is deleted, and the same content is no new revision."""
    await scripted.declare()
    await scripted.surface.put("Profile", "unused", {"capabilities": {}})
    async with scripted.operator():
        await scripted.ready("PrincipalBinding", "indexer")
        await scripted.ready("Profile", "unused")
        revision = await scripted.revision()
        listed = api_of(scripted).requests["list profiles"]
        api_of(scripted).expire_watches()

        async def listed_again() -> bool:
            return api_of(scripted).requests["list profiles"] > listed

        await until(listed_again)
        assert await scripted.revision() == revision
        api_of(scripted).delete("Profile", scripted.surface.namespace, "unused", quietly=True)
        api_of(scripted).expire_watches()

        async def gone() -> bool:
            return not await scripted.rows("SELECT 1 FROM metagate.profile WHERE name = 'unused'")

        await until(gone, seconds=10)
        assert await scripted.packet() is not None
        assert await scripted.revision() == revision + 1


async def test_f32_lost_shuffled_and_replayed_events_converge(scripted: DeclaredSurface) -> None:
    """Events that are lost or come twice and late: the resync arrives at what is declared, and nothing flips on the way."""
    await scripted.declare()
    old = api_of(scripted).put(
        "Manifest",
        scripted.surface.namespace,
        "prod",
        {"deploymentKey": "default", "version": 1, "environment": {"round": 0}},
    )
    async with scripted.operator(METAGATE_RESYNC_SECONDS="2"):
        await scripted.ready("PrincipalBinding", "indexer")
        await changed(scripted, 1)
        await served(scripted, 1)
        for event in ("MODIFIED", "DELETED", "ADDED"):
            api_of(scripted).replay("Manifest", old, event)
        api_of(scripted).put(
            "Manifest",
            scripted.surface.namespace,
            "prod",
            {"deploymentKey": "default", "version": 3, "environment": {"round": 2}},
            quietly=True,
        )
        names = set()
        deadline = time.monotonic() + 6
        while time.monotonic() < deadline and names != {1, 2}:
            result = await environment(scripted)
            assert isinstance(result, dict)
            names.add(result["round"])
            await asyncio.sleep(0.02)
        assert names == {1, 2}


async def test_a_mass_disappearance_waits_for_a_second_listing(scripted: DeclaredSurface) -> None:
    """D-40: half of a kind is missing from a listing and back in the next: nothing was revoked; missing in both: gone."""
    await scripted.declare()
    for number in range(30):
        await scripted.surface.put("Profile", f"p{number}", {"capabilities": {"n": number}})
    async with scripted.operator(METAGATE_RESYNC_SECONDS="1", METAGATE_BRAKE_SECONDS="5") as operator:
        await scripted.ready("Profile", "p29")
        api = api_of(scripted)
        lost = {key: api.objects.pop(key) for key in list(api.objects) if key[0] == "profiles" and key[2] != "worker"}

        async def held() -> bool:
            return await asyncio.to_thread(operator.metric, "metagate_brake_held") == len(lost)

        await until(held)

        async def profiles() -> int:
            return int((await scripted.rows("SELECT count(*) AS n FROM metagate.profile"))[0]["n"])

        assert await profiles() == 31
        api.objects.update(lost)
        await asyncio.to_thread(operator.until_passes)
        assert await asyncio.to_thread(operator.metric, "metagate_brake_held") == 0
        assert await profiles() == 31
        for key in lost:
            api.objects.pop(key)

        async def gone() -> bool:
            return await profiles() == 1

        await until(gone, seconds=30)


async def test_kinds_that_vanish_revoke_nothing(scripted: DeclaredSurface) -> None:
    """A CRD that is not served any more makes every pass fail and changes nothing; once it is back, work goes on."""
    await scripted.declare()
    async with scripted.operator(METAGATE_RESYNC_SECONDS="1") as operator:
        await scripted.ready("PrincipalBinding", "indexer")
        api_of(scripted).vanished.add("manifests")
        api_of(scripted).hang_up()

        async def failed() -> bool:
            return await asyncio.to_thread(operator.metric, "metagate_pass_failures_total") >= 2

        await until(failed)
        assert await scripted.packet() is not None
        assert (await asyncio.to_thread(operator.probe, "/livez"))[0] == 200
        api_of(scripted).vanished.clear()
        await changed(scripted, 7)
        await served(scripted, 7)


@pytest.mark.invariant("INV-025")
async def test_f31_the_api_serves_while_the_api_server_is_away(scripted: DeclaredSurface) -> None:
    """Bootstraps succeed, all of them, while the operator can reach nothing; its age grows, and it catches up by itself."""
    key = mint()
    await scripted.declare()
    await scripted.surface.put(
        "Principal", "indexer", {"type": "component", "apiKeys": [{"id": key.id, "sha256": key.sha256}]}
    )
    with gate(scripted.database) as (host, port):
        async with (
            scripted.operator(METAGATE_RESYNC_SECONDS="1") as operator,
            httpx.AsyncClient(base_url=f"http://{host}:{port}") as client,
        ):
            await scripted.ready("PrincipalBinding", "indexer")

            async def boot() -> int:
                answer = await client.post(
                    "/v1/bootstrap", json={"component_key": "indexer_1"}, headers={"X-API-Key": key.key}
                )
                return answer.status_code

            async def boots() -> bool:
                return await boot() == 200

            await until(boots)
            api_of(scripted).down = True
            api_of(scripted).hang_up()
            statuses = []
            async with asyncio.timeout(30):
                while await asyncio.to_thread(operator.metric, "metagate_pass_success_age_seconds") < 4:
                    statuses.append(await boot())
            assert set(statuses) == {200}
            assert operator.popen.poll() is None
            api_of(scripted).down = False
            await changed(scripted, 9)
            await served(scripted, 9, seconds=30)


async def test_without_its_database_status_says_so_and_it_catches_up(
    scripted: DeclaredSurface, postgres: Server
) -> None:
    """The database away: the change waits, its object says why, nothing crashes; back again, it is served and says that."""
    await scripted.declare()
    async with scripted.operator(METAGATE_BACKOFF_MAX_SECONDS="1") as operator:
        await scripted.ready("PrincipalBinding", "indexer")
        name = scripted.database.name
        await sql(postgres, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await sql(postgres, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        await changed(scripted, 3)
        waiting = await scripted.ready("Manifest", "prod", "False")
        assert waiting["reason"] == "DatabaseUnavailable"
        assert (await scripted.ready("PrincipalBinding", "indexer"))["reason"] == "Served"
        assert operator.popen.poll() is None
        await sql(postgres, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await served(scripted, 3)
        assert (await scripted.ready("Manifest", "prod"))["reason"] == "Served"


async def test_a_replaced_database_is_told_of_anew(scripted: DeclaredSurface, postgres: Server) -> None:
    """An empty database in the place of the old one: no status goes on naming a revision that only the old one had."""
    await scripted.declare()
    async with scripted.operator():
        for value in range(2):
            await changed(scripted, value)
            await served(scripted, value)

        async def said() -> int:
            body = await scripted.surface.body("Manifest", "prod")
            return int(body["status"]["snapshot"]["revision"])

        async def newest_said() -> bool:
            return await said() == await scripted.revision()

        await until(newest_said)
        before = await said()
    empty = await postgres.make()
    replaced = DeclaredSurface(scripted.surface, empty, scripted_tenancy(None, empty, scripted.surface.namespace))
    try:
        async with replaced.operator():
            newest = await replaced.revision()
            assert 0 < newest < before

            async def told() -> bool:
                return await said() <= newest

            await until(told)
            assert await environment(replaced) == {"round": 1}
    finally:
        await postgres.drop(empty)


async def sql(server: Server, statement: str) -> None:
    connection = await asyncpg.connect(server.superuser)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_f33_a_thousand_invalid_objects_hurt_nobody(scripted: DeclaredSurface) -> None:
    """1,000 invalid Manifests and one valid world: it is served, each of the others says what is wrong, memory stays bounded."""
    for number in range(1000):
        spec = {"deploymentKey": "d", "version": 1, "environment": {"a": {"tasks": number}, "b": ["x" * 200] * 20}}
        await scripted.surface.put("Manifest", f"bad{number}", spec)
    await scripted.declare()
    async with scripted.operator() as operator:
        await scripted.ready("PrincipalBinding", "indexer")
        for number in (0, 500, 999):
            accepted = await scripted.condition("Manifest", f"bad{number}", "Accepted")
            assert (accepted["status"], accepted["reason"]) == ("False", "ForbiddenKey")
        await changed(scripted, 1)
        await served(scripted, 1, seconds=3)
        assert operator.rss_megabytes < 250
        assert len(operator.log) < 200_000


async def test_what_nobody_would_write(tenancy: Tenancy, operator: object) -> None:
    """A megabyte, 200 and 9,000 levels, control characters, the longest name, another namespace's Principal: a condition for each."""
    base = {"deploymentKey": "d", "version": 1}
    tenancy.apply(*tenancy.world())
    tenancy.wait_ready("pb/indexer")
    good = await tenancy.packet()
    cases = {
        "large": {**base, "environment": {"a": ["x" * 1000] * 1000}},
        "deep": {**base, "environment": nested(200)},
        "control": {**base, "environment": {"a\u0007b": 1}},
        "n" * 253: base,
    }
    for name, spec in cases.items():
        done = tenancy.kubectl.run("create", "-f", "-", stdin=json.dumps(tenancy.resource("Manifest", name, spec)))
        assert "created" in done.stdout, name
    for name in ("large", "deep", "control"):
        assert tenancy.condition("Manifest", name, "Ready")["status"] == "False", name
    assert tenancy.condition("Manifest", "n" * 253, "Ready")["status"] == "True"
    raw = (
        f'{{"apiVersion":"metagate.legivellum.io/v1alpha1","kind":"Manifest","metadata":{{"name":"abyss","namespace":"{tenancy.namespace}"}},"spec":{{"deploymentKey":"d","version":1,"environment":{"{" + chr(34) + "a" + chr(34) + ":"}'
        + '{"a":' * LEVELS
        + "1"
        + "}" * (LEVELS + 1)
        + "}}"
    )
    tenancy.kubectl.run(
        "create",
        "--raw",
        f"/apis/metagate.legivellum.io/v1alpha1/namespaces/{tenancy.namespace}/manifests",
        "-f",
        "-",
        stdin=raw,
    )
    reason = '{.status.conditions[?(@.type=="Accepted")].reason}'
    tenancy.wait_ready("manifest/abyss", condition=f"jsonpath={reason}=TooDeep")
    foreign = tenancy.binding("foreign", principal="indexer")
    foreign["spec"]["principalRef"]["namespace"] = "elsewhere"
    refused = tenancy.kubectl.run("create", "-f", "-", stdin=foreign, check=False)
    assert refused.returncode != 0
    assert "namespace" in refused.stderr
    assert await tenancy.packet() == good
    tenancy.apply(tenancy.resource("Manifest", "prod", {**base, "environment": {"after": True}}))
    tenancy.wait_ready("manifest/prod", condition="jsonpath={.status.snapshot.generation}=2")


def nested(levels: int) -> dict:
    value: object = 1
    for _ in range(levels):
        value = {"a": value}
    assert isinstance(value, dict)
    return value
