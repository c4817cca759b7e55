"""A gate on a database whose schema is missing or older than it needs."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
import pytest_asyncio
from tests.databases import Database, Server
from tests.integration.api.gate_fixture import settings_for

from legivellum.identity import api_keys
from metagate_api.server import serving
from metagate_store.migrating import migrate


@pytest_asyncio.fixture
async def empty_database(postgres: Server) -> AsyncIterator[Database]:
    made = await postgres.make(migrated=False)
    yield made
    await postgres.drop(made)


async def ready(client: httpx.AsyncClient) -> bool:
    """Whether it becomes ready within two seconds."""
    for _ in range(100):
        if (await client.get("/readyz")).status_code == 200:
            return True
        await asyncio.sleep(0.02)
    return False


async def refuses(client: httpx.AsyncClient) -> None:
    response = await client.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "NOT_READY")
    headers = {"x-api-key": api_keys.mint().key}
    answer = await client.post("/v1/bootstrap", json={"component_key": "a"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE"), "nobody's key is called bad unseen"
    assert (await client.get("/health")).status_code == 200


@pytest.mark.invariant("EXT-19")
async def test_without_a_schema_nothing_is_served_until_it_is_there(empty_database: Database) -> None:
    """Not ready, 503 to every question; once somebody has migrated it serves, without being started again (D-52)."""
    async with serving(settings_for(empty_database)) as url, httpx.AsyncClient(base_url=url, timeout=10) as client:
        await refuses(client)
        await migrate(empty_database.owner)
        assert await ready(client)


@pytest.mark.invariant("EXT-19")
async def test_an_older_schema_is_not_served_from(fresh_database: Database) -> None:
    """A database that misses the newest migration is not one to read from (D-54)."""
    connection = await asyncpg.connect(fresh_database.superuser)
    try:
        newest = await connection.fetchrow(
            "DELETE FROM metagate.migration WHERE version = (SELECT max(version) FROM metagate.migration) RETURNING *"
        )
        async with serving(settings_for(fresh_database)) as url, httpx.AsyncClient(base_url=url, timeout=10) as client:
            await refuses(client)
            await connection.execute("INSERT INTO metagate.migration VALUES ($1, $2, $3, $4)", *newest.values())
            assert await ready(client)
    finally:
        await connection.close()
