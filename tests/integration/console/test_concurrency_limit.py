"""Whoever looks does not keep anybody from booting."""

import asyncio

import asyncpg
from tests.databases import Database
from tests.integration.api.gate_fixture import GateFixture, settings_for
from tests.integration.console.visiting import Visitor, page_text

from metagate_api.server import serving

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'metagate.change'::regclass"


async def test_pages_leave_connections_to_those_who_boot(database: Database, gate: GateFixture) -> None:
    """Many pages that wait for the database have two of its connections; the rest is told 503, and boots go on."""
    admin = await gate.principal("admin", type="admin")
    principal = await gate.principal("indexer", tenant=admin.tenant)
    lock = await asyncpg.connect(database.superuser)
    async with serving(settings_for(database, console=True, deadline_ms=1_000)) as url, Visitor(url) as visitor:
        await visitor.inside(admin.key)
        async with lock.transaction():
            await lock.execute("LOCK TABLE metagate.change IN ACCESS EXCLUSIVE MODE")
            pages = [asyncio.create_task(visitor.see("/console/history")) for _ in range(40)]
            while not await lock.fetchval(WAITING):
                await asyncio.sleep(0.02)
            body = {"component_key": "indexer_1"}
            waiting = 0
            for _ in range(10):
                booted = await visitor.client.post("/v1/bootstrap", json=body, headers=principal.by_key)
                assert booted.status_code == 200
                waiting = max(waiting, await lock.fetchval(WAITING))
            assert waiting <= 2
            answers = await asyncio.gather(*pages)
        assert {answer.status_code for answer in answers} == {503}
        refused = [answer for answer in answers if "Too many pages are being drawn at once" in page_text(answer)]
        assert len(refused) >= 5, "the others had their turn and met the lock"
        assert all("retry-after" in answer.headers for answer in refused)
        assert (await visitor.see("/console/history")).status_code == 200, "a turn that ended badly is free again"
    await lock.close()
