"""InterroGate stands on the ledger's tables and on what MetaGate publishes, not on their processes, and not on both being
in one database (D-57, §7.11).
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from tests.databases import Server
from tests.integration.interrogate.conftest import AdmissionDatabase, make_admissions
from tests.integration.interrogate.gate_fixture import PublishedWorld, Requesting, serving_interrogate
from tests.integration.interrogate.test_forwards import with_targets
from tests.integration.memorygate.conftest import rows
from tests.integration.memorygate.ledger_fixture import free_port, ledger_process, ready

ULID = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b")
UUID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
TIME = re.compile(r"\d{4}-\d{2}-\d{2}T[0-9:.]+Z")
TIMES = frozenset({"at", "rate_tat", "retry_after_ms"})
DIGESTS_OF_IDS = frozenset({"envelope_sha256"})


@asynccontextmanager
async def requesting_gate(
    world: PublishedWorld, database: AdmissionDatabase, **settings: Any
) -> AsyncIterator[Requesting]:
    """A gate that decides in one database and follows another one's world, or the same one's."""
    principal = world.principal("alice")
    policy = with_targets({"name": "nobody", "url": "http://127.0.0.1:1/", "forward": True})
    limited = with_targets(rateLimits=[{"name": "slow", "capabilities": ["doc.*"], "requests": 1, "per": "100h"}])
    await world.publish(principal, policies={"strict": with_targets(), "failing": policy, "limited": limited})
    databases = {
        "database_url": SecretStr(database.writer),
        "identity_database_url": SecretStr(world.database.database.identity),
        "target_hosts": "127.0.0.1",
    }
    async with serving_interrogate(world, **databases, **settings) as gate:
        yield await gate.awaited(gate.requesting(principal))


async def play(alice: Requesting) -> list[int]:
    """Everything that leaves a receipt: a tree, denials, a limit, a target that cannot be reached; and replays."""
    root = alice.envelope()
    first = await alice.evaluate(root, idempotency_key="once")
    statuses = [first.status_code, (await alice.evaluate(root, idempotency_key="once")).status_code]
    child = await alice.evaluate(alice.child(first.json()))
    statuses += [child.status_code, (await alice.evaluate(alice.child(child.json()))).status_code]
    unknown_parent = {"parent_task_id": root["causality"]["root_task_id"], "spawn_depth": 7}
    for envelope in (
        alice.envelope(causality={"capability_id": "mail.send"}),
        alice.envelope(causality=unknown_parent),
        alice.envelope(policy_profile_id="unheard-of"),
        alice.envelope(policy_profile_id="failing"),
        alice.envelope(policy_profile_id="limited"),
        alice.envelope(policy_profile_id="limited"),
    ):
        statuses.append((await alice.evaluate(envelope)).status_code)
    return statuses


async def stored(database: AdmissionDatabase, world: PublishedWorld) -> list[Any]:
    """The receipts in their order, each id and time replaced by its place among those that were seen."""
    receipts = await _receipts(database, world)
    names: dict[str, str] = {}

    def normal(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: normal(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [normal(item, key) for item in value]
        if key in TIMES and value is not None:
            return "a time"
        if key in DIGESTS_OF_IDS:
            return "a digest of ids"
        if not isinstance(value, str):
            return value
        value = TIME.sub("a time", value)
        for pattern in (ULID, UUID):
            value = pattern.sub(lambda match: names.setdefault(match[0], f"id {len(names)}"), value)
        return value

    return [normal(receipt) for receipt in receipts]


async def _receipts(database: AdmissionDatabase, world: PublishedWorld) -> list[dict[str, Any]]:

    query = "SELECT body FROM memorygate.receipt WHERE tenant = $1 ORDER BY stored_at, receipt_id"
    return [json.loads(body) for (body,) in await rows(database.superuser, query, world.tenant)]


async def test_databases_apart_or_together_store_the_same(postgres: Server) -> None:
    """The same requests against one database and against two: equal answers, and receipts that are equal but for ids and times."""
    outcomes = []
    for apart in (False, True):
        deciding = await make_admissions(postgres)
        published = await make_admissions(postgres) if apart else deciding
        world = PublishedWorld(published)
        async with requesting_gate(world, deciding) as alice:
            statuses = await play(alice)
        outcomes.append((statuses, await stored(deciding, world)))
        if apart:
            assert await stored(published, world) == []
            await postgres.drop(published.database)
        await postgres.drop(deciding.database)
    together, separate = outcomes
    assert together == separate
    statuses, receipts = together
    assert statuses == [200, 200, 200, 200, 403, 403, 403, 502, 200, 429]
    assert [receipt["phase"] for receipt in receipts] == [
        *["accepted"] * 3,
        *["rejected"] * 3,
        "accepted",
        "escalate",
        "accepted",
        "rejected",
    ]


async def test_the_ledgers_process_is_not_needed(admission_database: AdmissionDatabase, tmp_path: Path) -> None:
    """kill -9 of MemoryGate: requests are decided as before, and it shows all of them once it is back."""
    world = PublishedWorld(admission_database)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    ledger = ledger_process(admission_database.ledger, port, tmp_path / "ledger.log")
    await ledger.start()
    try:
        async with requesting_gate(world, admission_database) as alice, httpx.AsyncClient(base_url=url) as client:
            await ready(url)
            before = await alice.evaluate()
            await ledger.kill()
            with pytest.raises(httpx.ConnectError):
                await client.get("/readyz")
            answers = await asyncio.gather(*(alice.evaluate() for _ in range(10)))
            child = await alice.evaluate(alice.child(before.json()))
            assert {answer.status_code for answer in (before, child, *answers)} == {200}
            await ledger.start()
            await ready(url)
            for answer in (before, child, *answers):
                path = f"/receipts/{answer.json()['receipt_id']}"
                shown = await client.get(path, headers=alice.principal.headers)
                assert shown.status_code == 200, shown.text
    finally:
        await ledger.kill()
