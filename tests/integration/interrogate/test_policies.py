"""Which rules are in force: never older ones after newer ones were used, and none at all when nobody knows (IG-06)."""

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from tests.databases import Server
from tests.integration.interrogate.conftest import AdmissionDatabase, make_admissions
from tests.integration.interrogate.gate_fixture import (
    OPEN_POLICY,
    PublishedWorld,
    Requesting,
    serving_interrogate,
)
from tests.integration.memorygate.conftest import rows
from tests.unit.cli.running import metagate

from interrogate.policies import PoliciesUnknown, PolicyDatabase, PolicyReplica


def allowing(*capabilities: str) -> dict[str, Any]:
    policy = copy.deepcopy(OPEN_POLICY)
    policy["surfaces"][0]["capabilities"] = {"allow": list(capabilities)}
    return policy


@asynccontextmanager
async def identity_away(database: AdmissionDatabase) -> AsyncIterator[None]:
    """MetaGate's database refuses the role that gates follow it with, as far as they can see."""
    connection = await asyncpg.connect(database.superuser)
    try:
        await connection.execute("REVOKE EXECUTE ON FUNCTION metagate.state() FROM metagate_identity")
        yield
        await connection.execute("GRANT EXECUTE ON FUNCTION metagate.state() TO metagate_identity")
    finally:
        await connection.close()


@pytest.mark.invariant("INV-107")
async def test_two_replicas_never_go_back_to_older_rules(admission_database: AdmissionDatabase) -> None:
    """One of them does not poll. It reads policies when the database says that newer ones were used, and decides anew."""
    world = PublishedWorld(admission_database)
    principal = world.principal("alice")
    await world.publish(principal, policies={"strict": allowing("doc.write")})
    async with serving_interrogate(world) as quick, serving_interrogate(world, identity_poll_ms=600_000) as slow:
        first, second = await quick.awaited(quick.requesting(principal)), await slow.awaited(slow.requesting(principal))
        requests = [first, second]
        assert {(await requesting.evaluate()).status_code for requesting in requests} == {200}
        await world.publish(policies={"strict": allowing("doc.read")})
        async with asyncio.timeout(20):
            while (await first.evaluate()).status_code == 200:
                await asyncio.sleep(0.01)
        answers = await asyncio.gather(*(second.evaluate() for _ in range(20)))
        assert {answer.json()["reason_code"] for answer in answers} == {"CAPABILITY_DENIED"}
        receipts = await quick.receipts()
    hashes = [receipt["body"]["policy_hash"] for receipt in receipts]
    assert hashes == sorted(hashes, key=lambda text: text != hashes[0]), "an older policy after a newer one"
    assert len(set(hashes)) == 2


async def test_a_removed_policy_denies_at_once_also_at_a_lagging_replica(
    admission_database: AdmissionDatabase,
) -> None:
    world = PublishedWorld(admission_database)
    principal = world.principal("alice")
    await world.publish(principal, policies={"strict": OPEN_POLICY})
    async with serving_interrogate(world) as quick, serving_interrogate(world, identity_poll_ms=600_000) as slow:
        first, second = await quick.awaited(quick.requesting(principal)), await slow.awaited(slow.requesting(principal))
        assert (await second.evaluate()).status_code == 200
        await world.publish(gone=("strict",))
        async with asyncio.timeout(20):
            while (await first.evaluate()).status_code == 200:
                await asyncio.sleep(0.01)
        assert (await second.evaluate()).json()["reason_code"] == "POLICY_NOT_FOUND"
        # Declared again it is in force again.
        await world.publish(policies={"strict": OPEN_POLICY})
        async with asyncio.timeout(20):
            while (await first.evaluate()).status_code == 403:
                await asyncio.sleep(0.01)
        assert (await second.evaluate()).status_code == 200


@pytest.mark.invariant("INV-116")
async def test_without_news_of_identity_and_policy_nothing_is_decided(admission_database: AdmissionDatabase) -> None:
    """503 once what is known is too old, and not a row; decisions again as soon as MetaGate's database answers."""
    world = PublishedWorld(admission_database)
    principal = world.principal("alice")
    await world.publish(principal, policies={"strict": OPEN_POLICY})
    async with serving_interrogate(world, identity_stale_seconds=1.0) as gate:
        alice = await gate.awaited(gate.requesting(principal))
        async with identity_away(admission_database):
            async with asyncio.timeout(20):
                while (answer := await alice.evaluate()).status_code == 200:
                    await asyncio.sleep(0.05)
            assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
            assert "retry-after" in answer.headers
            before = await _all_rows(admission_database)
            answers = await asyncio.gather(*(alice.evaluate() for _ in range(5)))
            assert {answer.status_code for answer in answers} == {503}
            assert await _all_rows(admission_database) == before
            metrics = (await gate.client.get("/metrics")).text
            assert 'interrogate_fail_closed_total{cause="identity"}' in metrics
        async with asyncio.timeout(20):
            while (await alice.evaluate()).status_code != 200:
                await asyncio.sleep(0.05)


async def _all_rows(database: AdmissionDatabase) -> list[tuple[Any, ...]]:
    query = "SELECT (SELECT count(*) FROM memorygate.receipt), (SELECT count(*) FROM interrogate.request)"
    return await rows(database.superuser, query)


async def test_policies_too_old_are_not_believed(admission_database: AdmissionDatabase) -> None:
    """By the clock of the process, before the first read and after the last one is too long ago."""
    now = [0.0]

    async def connect() -> PolicyDatabase:
        return await PolicyDatabase.connect(admission_database.database.identity, size=1, query_timeout=10)

    world = PublishedWorld(admission_database)
    await world.publish(world.principal("alice"), policies={"strict": OPEN_POLICY})
    replica = PolicyReplica(connect, stale_seconds=60, clock=lambda: now[0])
    try:
        with pytest.raises(PoliciesUnknown):
            replica.find(world.tenant, "strict")
        await replica.look()
        now[0] = 60.0
        assert replica.find(world.tenant, "strict") is not None
        assert replica.find(world.tenant, "other") is None
        assert replica.find(uuid4(), "strict") is None
        now[0] = 60.1
        with pytest.raises(PoliciesUnknown):
            replica.find(world.tenant, "strict")
        await replica.look()
        assert replica.find(world.tenant, "strict") is not None
    finally:
        await replica.close()


async def test_bodies_are_shared_and_shadows_follow_their_profile(admission_database: AdmissionDatabase) -> None:
    """Two names for one body are two rulesets; a shadow is the profile of that name as it is now."""

    async def connect() -> PolicyDatabase:
        return await PolicyDatabase.connect(admission_database.database.identity, size=1, query_timeout=10)

    world = PublishedWorld(admission_database)
    watching = {**OPEN_POLICY, "shadow": {"policyProfileRef": {"name": "next"}}}
    await world.publish(
        world.principal("alice"), policies={"one": watching, "two": watching, "next": allowing("doc.read")}
    )
    replica = PolicyReplica(connect, stale_seconds=60)
    try:
        await replica.look()
        one, two = replica.find(world.tenant, "one"), replica.find(world.tenant, "two")
        assert one is not None
        assert two is not None
        assert (one.profile, two.profile, one.policy_hash) == ("one", "two", two.policy_hash)
        assert one.shadow is not None
        before = one.shadow.policy_hash
        await world.publish(policies={"next": allowing("doc.write")})
        await replica.look()
        changed = replica.find(world.tenant, "one")
        assert changed is not None
        assert changed.shadow is not None
        assert changed.shadow.policy_hash != before
        await world.publish(gone=("next",))
        await replica.look()
        bare = replica.find(world.tenant, "one")
        assert bare is not None
        assert bare.shadow is None
    finally:
        await replica.close()


async def test_a_shadow_is_recorded_and_never_enforced(admission_database: AdmissionDatabase) -> None:
    world = PublishedWorld(admission_database)
    principal = world.principal("alice")
    watching = {**OPEN_POLICY, "shadow": {"policyProfileRef": {"name": "next"}}}
    await world.publish(principal, policies={"strict": watching, "next": allowing("doc.read")})
    async with serving_interrogate(world) as gate:
        alice: Requesting = await gate.awaited(gate.requesting(principal))
        assert (await alice.evaluate()).status_code == 200
        [receipt] = await gate.receipts()
        shadow = receipt["body"]["shadow"]
        assert (shadow["outcome"], shadow["reason_code"]) == ("DENY", "CAPABILITY_DENIED")
        assert "interrogate_shadow_disagreements_total" in (await gate.client.get("/metrics")).text


async def _forget_newest(dsn: str, revision: int) -> None:
    """What a backup from before `revision` does not hold; the policy in it is the same, and older."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SET session_replication_role = replica")  # histories cannot be shortened otherwise
        for table in ("change", "revision"):
            await connection.execute(f"DELETE FROM metagate.{table} WHERE revision >= $1", revision)
        await connection.execute("UPDATE metagate.policy_profile SET revision = $1", revision - 1)
    finally:
        await connection.close()


@pytest.mark.invariant("INV-107", "INV-116")
async def test_a_restored_metagate_closes_the_gate_until_it_publishes_anew(postgres: Server) -> None:
    """503 that says so, with cause `policy` and no receipt; still after `migrate --restored`, and no longer once the
    writer has published the profiles, although what they say is the same."""
    database = await make_admissions(postgres)
    world = PublishedWorld(database)
    principal = world.principal("alice")
    await world.publish(principal, policies={"strict": OPEN_POLICY})
    await world.publish(policies={"strict": allowing("doc.read")})
    used = await world.publish(policies={"strict": OPEN_POLICY})
    async with serving_interrogate(world, deadline_ms=500) as gate:
        alice = await gate.awaited(gate.requesting(principal))
        assert (await alice.evaluate()).status_code == 200
        await _forget_newest(database.superuser, used)
        for restored in (False, True):
            if restored:
                done = await asyncio.to_thread(metagate, "migrate", "--restored", DATABASE_URL=database.database.owner)
                assert done.returncode == 0, done.stderr
            async with asyncio.timeout(20):
                while (answer := await alice.evaluate()).status_code == 200:
                    await asyncio.sleep(0.02)
            assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
            assert "an older policy than one that was used already" in answer.json()["detail"]
        receipts = await gate.receipts()
        assert 'interrogate_fail_closed_total{cause="policy"}' in (await gate.client.get("/metrics")).text
        await world.publish(policies={"strict": OPEN_POLICY})
        async with asyncio.timeout(20):
            while (answer := await alice.evaluate()).status_code != 200:
                await asyncio.sleep(0.02)
        assert len(await gate.receipts()) == len(receipts) + 1
        assert answer.json()["policy"]["revision"] > used
    await postgres.drop(database.database)
