"""From declared to served, and back into status: one suite on the scripted and on the real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.databases import Server
from tests.operator.fake_api_server import FakeApiServer
from tests.operator.machinery import Tenancy, until_second_after
from tests.operator.surfaces import DeclaredSurface, Real, ScriptedSurface, scripted_tenancy, until


@pytest_asyncio.fixture(loop_scope="session", params=["scripted", "real"])
async def world(request: pytest.FixtureRequest, postgres: Server, tmp_path: Path) -> AsyncIterator[DeclaredSurface]:
    """A world to declare in; on the real server with a namespace of its own."""
    database = await postgres.make()
    if request.param == "scripted":
        async with FakeApiServer().serving() as api:
            surface = ScriptedSurface(api, tmp_path)
            yield DeclaredSurface(surface, database, scripted_tenancy(None, database, surface.namespace))
    else:
        tenancy = await asyncio.to_thread(Tenancy.make, request.getfixturevalue("cluster"), database)
        yield DeclaredSurface(Real(tenancy), database, tenancy)
        await asyncio.to_thread(tenancy.remove)
    await postgres.drop(database)


@pytest.mark.invariant("INV-041")
async def test_declared_before_the_start_is_served_after_it(world: DeclaredSurface) -> None:
    """The first listing publishes everything, and every object says that it is served."""
    await world.declare()
    async with world.operator():
        packet = await world.packet()
        assert packet is not None
        assert packet["capabilities"] == {"index": True}
        for kind, name in (
            ("Principal", "indexer"),
            ("Profile", "worker"),
            ("Manifest", "prod"),
            ("PrincipalBinding", "indexer"),
        ):
            assert (await world.ready(kind, name))["reason"] == "Served"


async def test_a_change_is_served_and_its_status_follows(world: DeclaredSurface) -> None:
    """A Manifest that changes changes the packet, and the Binding's digest and revision with it."""
    await world.declare()
    async with world.operator():
        await world.ready("PrincipalBinding", "indexer")
        before = (await world.surface.body("PrincipalBinding", "indexer"))["status"]["snapshot"]
        await world.surface.put(
            "Manifest", "prod", {"deploymentKey": "default", "version": 2, "environment": {"tier": "other"}}
        )

        async def changed() -> bool:
            packet = await world.packet()
            return packet is not None and packet["environment"] == {"tier": "other"}

        await until(changed, seconds=5)

        async def told() -> bool:
            after = (await world.surface.body("PrincipalBinding", "indexer"))["status"]["snapshot"]
            return bool(after["digest"] != before["digest"] and after["revision"] > before["revision"])

        await until(told)


@pytest.mark.invariant("INV-031")
async def test_an_invalid_update_keeps_the_last_good_one_served(world: DeclaredSurface) -> None:
    """D-20: what is served stays, `snapshot.generation` falls behind, the reason and the path are told; a repair is served."""
    await world.declare()
    async with world.operator():
        await world.ready("PrincipalBinding", "indexer")
        good = await world.packet()
        await world.surface.put(
            "Manifest", "prod", {"deploymentKey": "default", "version": 2, "environment": {"a": [{"Work-Items": 1}]}}
        )
        accepted = await world.condition("Manifest", "prod", "Accepted")
        assert (accepted["status"], accepted["reason"]) == ("False", "ForbiddenKey")
        assert "spec.environment.a[0]" in accepted["message"]
        body = await world.surface.body("Manifest", "prod")
        assert body["status"]["snapshot"]["generation"] < body["metadata"]["generation"]
        assert (await world.condition("Manifest", "prod"))["status"] == "False"
        assert await world.packet() == good
        await world.surface.put("Manifest", "prod", {"deploymentKey": "default", "version": 3, "environment": {"a": 1}})
        await world.ready("Manifest", "prod")
        packet = await world.packet()
        assert packet is not None
        assert packet["environment"] == {"a": 1}


@pytest.mark.invariant("INV-041")
async def test_a_deleted_binding_is_revoked_at_once(world: DeclaredSurface) -> None:
    """Deletion is a revocation: the binding's row is gone within the bound of an event, not of a resync."""
    await world.declare()
    async with world.operator():
        await world.ready("PrincipalBinding", "indexer")
        await world.surface.delete("PrincipalBinding", "indexer")

        async def gone() -> bool:
            return await world.packet() is None

        await until(gone, seconds=3)


@pytest.mark.invariant("INV-009")
async def test_of_two_active_bindings_the_oldest_is_served(world: DeclaredSurface) -> None:
    """D-21: the younger one is Conflicted and names the winner; when the winner goes, it is served."""
    await world.declare()
    async with world.operator():
        await world.ready("PrincipalBinding", "indexer")
        until_second_after(await world.surface.body("PrincipalBinding", "indexer"))
        await world.surface.put(
            "PrincipalBinding",
            "a-younger",
            world.binding("a-younger", principal="indexer", overrides={"environment": {"x": 1}}),
        )
        conflicted = await world.condition("PrincipalBinding", "a-younger", "Conflicted")
        assert conflicted["status"] == "True"
        assert "indexer" in conflicted["message"]
        packet = await world.packet()
        assert packet is not None
        assert "x" not in packet["environment"]
        await world.surface.delete("PrincipalBinding", "indexer")
        await world.ready("PrincipalBinding", "a-younger")
        packet = await world.packet()
        assert packet is not None
        assert packet["environment"]["x"] == 1


async def test_references_may_come_in_any_order(world: DeclaredSurface) -> None:
    """A Binding before what it refers to says what is missing, and is served when the last of it arrives."""
    await world.surface.put("PrincipalBinding", "indexer", world.binding("indexer"))
    async with world.operator():
        resolved = await world.condition("PrincipalBinding", "indexer", "ResolvedRefs")
        assert resolved["status"] == "False"
        await world.declare()
        await world.ready("PrincipalBinding", "indexer")
        assert await world.packet() is not None


async def test_a_restart_finds_nothing_to_do(world: DeclaredSurface) -> None:
    """Started again over an unchanged world: no revision, no status write."""
    await world.declare()
    async with world.operator():
        await world.ready("PrincipalBinding", "indexer")
        await world.ready("Manifest", "prod")
        await world.ready("Principal", "indexer")
        await world.ready("Profile", "worker")
        revision = await world.revision()
    versions = [
        (await world.surface.body(kind, name))["metadata"]["resourceVersion"]
        for kind, name in (("PrincipalBinding", "indexer"), ("Manifest", "prod"))
    ]
    async with world.operator(METAGATE_RESYNC_SECONDS="1") as operator:

        async def passed() -> bool:
            return await asyncio.to_thread(operator.metric, "metagate_passes_total") >= 3

        await until(passed)
        assert await asyncio.to_thread(operator.metric, "metagate_status_writes_total") == 0
    assert await world.revision() == revision
    after = [
        (await world.surface.body(kind, name))["metadata"]["resourceVersion"]
        for kind, name in (("PrincipalBinding", "indexer"), ("Manifest", "prod"))
    ]
    assert after == versions


async def test_changes_while_nobody_watches_are_found_at_the_start(world: DeclaredSurface) -> None:
    """What was changed and deleted while the operator was away is served and revoked when it is back."""
    await world.declare()
    await world.declare("second")
    async with world.operator():
        await world.ready("PrincipalBinding", "second")
    await world.surface.put(
        "Manifest", "prod", {"deploymentKey": "default", "version": 2, "environment": {"tier": "later"}}
    )
    await world.surface.delete("PrincipalBinding", "second")
    async with world.operator():
        packet = await world.packet()
        assert packet is not None
        assert packet["environment"] == {"tier": "later"}
        assert await world.packet("second") is None


async def test_uses_are_counted(world: DeclaredSurface) -> None:
    """A Manifest and a Profile say how many Bindings use them."""
    await world.declare()
    await world.declare("second")
    async with world.operator():

        async def counted() -> bool:
            result = [
                (await world.surface.body(kind, name)).get("status", {}).get("uses")
                for kind, name in (("Manifest", "prod"), ("Profile", "worker"))
            ]
            return result == [2, 2]

        await until(counted)
        await world.surface.delete("PrincipalBinding", "second")

        async def recounted() -> bool:
            return (await world.surface.body("Manifest", "prod"))["status"]["uses"] == 1

        await until(recounted)


async def test_many_changes_at_once_all_arrive(world: DeclaredSurface) -> None:
    """A burst of a hundred objects is served whole, and every one of them says so."""
    await world.declare()
    async with world.operator():
        names = [f"n{number}" for number in range(50)]
        for name in names:
            await world.surface.put("Principal", name, {"type": "component"})
            await world.surface.put("PrincipalBinding", name, world.binding(name))

        async def served() -> bool:
            return len(await world.rows("SELECT 1 FROM metagate.binding WHERE digest IS NOT NULL")) == 51

        await until(served)
        for name in names:
            await world.ready("PrincipalBinding", name)
