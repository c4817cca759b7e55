"""Gateways that die around a call: whatever was admitted is answered, escalated or pending, and in the end never pending.

`make test-calls KILLS=200` kills two hundred of them at moments of chance.
"""

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.interrogate.conftest import AdmissionDatabase, make_admissions
from tests.integration.interrogate.forked_gates import GateForks, gate_forks
from tests.integration.interrogate.gate_fixture import PublishedWorld
from tests.integration.interrogate.mcp.gateway_fixture import MODERN, VERSION_META, desk_policy, desk_problemata
from tests.integration.memorygate.conftest import new_id, rows
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal
from tests.unit.interrogate.mcp.sdk_upstream import SdkUpstream, sdk_upstream

from interrogate.call_recorder import CallRecorder
from interrogate.database import InterrogateDatabase
from interrogate.policies import PolicyDatabase, PolicyReplica
from interrogate.replaying import replay
from interrogate.sweeping import ForwardSweep
from interrogate.verifying import verify
from memorygate.verifying import verify as verify_ledger

KILLS = int(os.environ.get("CALL_KILLS", "3"))  # noqa: TID251 - `make test-calls` asks for many
EVERYTHING = -60.0
"""As the sweep would find it a minute later."""


@dataclass(slots=True)
class DyingGateways:
    """Where gateways are forked, the server whose tools they call, and what the ledger says of it."""

    database: AdmissionDatabase
    forks: GateForks
    world: PublishedWorld
    upstream: SdkUpstream
    alice: LedgerPrincipal
    answered: list[str] = field(default_factory=list)
    """The texts that were answered to a client as the tool's result."""

    async def call(self, url: str, text: str) -> dict[str, Any] | None:
        """The result of the tool `echo`; None: the gateway died."""
        meta = {VERSION_META: MODERN, "io.modelcontextprotocol/clientCapabilities": {}, KEY: text}
        params = {"name": "desk.echo", "arguments": {"text": text}, "_meta": meta}
        headers = {
            "accept": "application/json, text/event-stream", "mcp-protocol-version": MODERN, "mcp-method": "tools/call",
            "mcp-name": "desk.echo", **self.alice.headers,
        }  # fmt: skip
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        try:
            async with httpx.AsyncClient(timeout=30) as client:
                answer = await client.post(f"{url}/mcp", json=body, headers=headers)
        except httpx.HTTPError:
            return None
        text_of = answer.text.partition("data:")[2] if "event-stream" in answer.headers["content-type"] else answer.text
        result: dict[str, Any] = json.loads(text_of)["result"]
        if result.get("structuredContent") == {"text": text} and not result.get("isError"):
            self.answered.append(text)
        return result

    async def counts(self) -> Counter[str]:
        """Receipts of this tenant's calls by phase, and pending rows."""
        counted = await rows(
            self.database.superuser,
            """SELECT phase, count(*) FROM memorygate.receipt WHERE tenant = $1 AND kind = 'admission' GROUP BY 1
               UNION ALL SELECT 'pending', count(*) FROM interrogate.call WHERE tenant = $1 AND outcome = 'pending'""",
            self.world.tenant,
        )  # fmt: skip
        return Counter({str(phase): int(number) for phase, number in counted})  # type: ignore[call-overload]

    async def sweep(self) -> None:
        database = await InterrogateDatabase.connect(self.database.writer, size=1, query_timeout=10)

        async def connect() -> PolicyDatabase:
            return await PolicyDatabase.connect(self.database.database.identity, size=1, query_timeout=5)

        policies = PolicyReplica(connect, stale_seconds=600)
        recorder = CallRecorder(lambda: database, policies, outcome_seconds=10)
        sweep = ForwardSweep(lambda: database, None, recorder, seconds=60, abandoned_seconds=EVERYTHING)  # type: ignore[arg-type]
        while (await self.counts())["pending"]:
            await sweep.sweep()
        await policies.close()
        await database.close()


KEY = "legivellum.io/idempotency_key"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateways(postgres: Server) -> AsyncIterator[DyingGateways]:
    database = await make_admissions(postgres)
    async with gate_forks() as forks, sdk_upstream(json_response=True) as upstream:
        world = PublishedWorld(database)
        alice = world.principal("alice")
        await world.publish(
            alice, policies={"front-desk": desk_policy("http://127.0.0.1:9/", upstream.url)},
            problematas={"desk": desk_problemata()},
        )  # fmt: skip
        yield DyingGateways(database, forks, world, upstream, alice)
    await postgres.drop(database.database)


@pytest.mark.timeout(300)
@pytest.mark.invariant("EXT-30", "INV-108")
@pytest.mark.parametrize(
    ("point", "stored", "called"),
    [
        ("before record", {}, 0),
        ("after record", {"accepted": 1, "pending": 1}, 0),
        ("before call", {"accepted": 1, "pending": 1}, 0),
        ("after call", {"accepted": 1, "pending": 1}, 1),
        ("before outcome", {"accepted": 1, "pending": 1}, 1),
        ("after outcome", {"accepted": 1, "complete": 1}, 1),
    ],
)
async def test_a_gateway_that_dies_at_a_step_leaves_what_was_stored_before_it(
    gateways: DyingGateways, point: str, stored: dict[str, int], called: int
) -> None:
    """And another one does not call the tool a second time for the same key."""
    before, text = await gateways.counts(), new_id()
    settings = {"target_hosts": "127.0.0.1"}
    async with gateways.forks.serving(gateways.world, point, **settings) as gate:
        assert await gateways.call(gate.gate.url, text) is None
        await gate.ended()
    assert +((await gateways.counts()) - before) == stored
    assert gateways.upstream.calls.count(("echo", {"text": text})) == called
    async with gateways.forks.serving(gateways.world, **settings) as gate:
        result = await gateways.call(gate.gate.url, text)
    assert result is not None
    assert gateways.upstream.calls.count(("echo", {"text": text})) == (1 if point == "before record" else called)
    if point != "before record":
        assert result["isError"], result
        assert "RESULT_NOT_KEPT" in json.dumps(result)
    await gateways.sweep()
    after = await gateways.counts()
    assert after["accepted"] == after["complete"] + after["escalate"]
    assert (await verify(gateways.database.ledger.auditor)).bad is None


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.invariant("EXT-30", "INV-108")
async def test_killed_at_any_moment_each_call_is_answered_escalated_or_pending(gateways: DyingGateways) -> None:
    """Eight clients of each process; whoever was answered finds the outcome in the ledger; no tool ran twice for one call."""
    asked: list[str] = []
    chance = random.Random(1)
    for _ in range(KILLS):
        async with gateways.forks.serving(gateways.world, target_hosts="127.0.0.1") as gate:

            async def client(url: str) -> None:
                while True:
                    asked.append(text := new_id())
                    if await gateways.call(url, text) is None:
                        return

            clients = [asyncio.create_task(client(gate.gate.url)) for _ in range(8)]
            first = len(gateways.answered)
            async with asyncio.timeout(30):
                while len(gateways.answered) == first:
                    await asyncio.sleep(0.002)
            await asyncio.sleep(chance.random() * 0.5)
            gate.kill()
            await asyncio.gather(*clients)
    counts = await gateways.counts()
    assert counts["accepted"] == counts["complete"] + counts["escalate"] + counts["pending"]
    assert counts["pending"] > 0 or KILLS < 50, "no process died within a call"
    calls = Counter(arguments["text"] for name, arguments in gateways.upstream.calls if name == "echo")
    assert max(calls.values()) == 1
    assert set(gateways.answered) <= set(calls)
    await gateways.sweep()
    swept = await gateways.counts()
    assert swept["pending"] == 0
    assert swept["accepted"] == counts["accepted"] == swept["complete"] + swept["escalate"]
    assert swept["complete"] >= len(gateways.answered)
    auditor = gateways.database.ledger.auditor
    assert (await verify(auditor)).bad is None
    assert (await verify_ledger(auditor)).bad is None
    assert (await replay(auditor)).mismatch_count == 0
    before = await rows(gateways.database.superuser, "SELECT * FROM interrogate.call ORDER BY admission_receipt_id")
    await verify(gateways.database.superuser, rebuild=True)
    after = await rows(gateways.database.superuser, "SELECT * FROM interrogate.call ORDER BY admission_receipt_id")
    assert before == after
