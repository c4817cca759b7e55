"""A gate that can keep few packets in memory."""

import asyncio
from uuid import uuid4

import httpx
import pytest
from tests.databases import Database
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture, settings_for, shared_body

from metagate_api.server import serving


@pytest.mark.invariant("INV-016", "INV-026")
async def test_a_packet_forgotten_on_its_way_is_served(gate: GateFixture, database: Database) -> None:
    """More packets at once than the cache holds: each is served what the statement opened its session with."""
    tenant = uuid4()
    people = [
        PrincipalFixture(tenant, f"pod-{n}", body=shared_body(environment={"world": f"{n}-" + "x" * 200_000}))
        for n in range(16)
    ]
    await gate.publish(*people)
    before = await gate.sessions()
    async with (
        serving(settings_for(database, cache_bytes=1_048_576, deadline_ms=20_000)) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        body = {"component_key": "indexer_1"}
        answers = await asyncio.gather(
            *[client.post("/v1/bootstrap", json=body, headers=person.by_key) for _ in range(4) for person in people]
        )
    assert {answer.status_code for answer in answers} == {200}, {answer.text[:200] for answer in answers}
    assert await gate.sessions() == before + len(answers)
