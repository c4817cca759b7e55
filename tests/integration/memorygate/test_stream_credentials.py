"""An open stream rests on a credential like any request: what ends the one ends the other, within a second (D-67)."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.integration.memorygate.conftest import LedgerDatabase, accepted
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal, free_port, ledger_fixture, ready
from tests.integration.store.worlds import Change, row

from legivellum.gate.composition import serving
from legivellum.identity import api_keys
from memorygate.gate import GATE
from memorygate.settings import Settings
from metagate_store.publisher import Publisher

BOUND_SECONDS = 1.5
"""The second that is promised, and what a busy machine needs to notice."""

Withdraw = Callable[[Publisher, LedgerPrincipal], Awaitable[object]]


@pytest.fixture
def alice() -> LedgerPrincipal:
    return LedgerPrincipal(uuid4(), "alice")


@pytest_asyncio.fixture
async def client(fresh_ledger: LedgerDatabase, alice: LedgerPrincipal) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        database_url=SecretStr(fresh_ledger.writer),
        identity_database_url=SecretStr(fresh_ledger.database.identity),
        port=free_port(),
    )
    bob = LedgerPrincipal(alice.tenant, "bob", key=BOB.key)
    async with ledger_fixture(fresh_ledger, alice, bob), serving(GATE, settings) as url:
        await ready(url)
        async with httpx.AsyncClient(base_url=url, timeout=10) as client:
            yield client


BOB = api_keys.mint()


@pytest_asyncio.fixture
async def publisher(client: httpx.AsyncClient, fresh_ledger: LedgerDatabase) -> AsyncIterator[Publisher]:
    opened = await Publisher.open(fresh_ledger.database.publisher)
    await opened.load()
    yield opened
    await opened.close()


async def suspend(publisher: Publisher, alice: LedgerPrincipal) -> object:
    suspended = replace(alice, suspended=True)
    return await publisher.publish(Change(upserts={"principal": suspended.rows()["principal"]}))


async def delete(publisher: Publisher, alice: LedgerPrincipal) -> object:
    digest = api_keys.digest_of(alice.key)
    keys = {"principal": [(str(alice.tenant), alice.name)], "api_key": [(digest,)]}
    return await publisher.publish(Change(deletes=keys))


async def remove_key(publisher: Publisher, alice: LedgerPrincipal) -> object:
    return await publisher.publish(Change(deletes={"api_key": [(api_keys.digest_of(alice.key),)]}))


async def give_key_to_another(publisher: Publisher, alice: LedgerPrincipal) -> object:
    other = replace(alice, name="bob")
    return await publisher.publish(Change(upserts={"api_key": other.rows()["api_key"]}))


async def expire(publisher: Publisher, alice: LedgerPrincipal) -> object:
    """Publish that the key expires in a moment, and wait for that moment."""
    at = datetime.now(UTC) + timedelta(seconds=0.5)
    key = {**alice.rows()["api_key"][0], "expires_at": at.isoformat()}
    for generated in ("owner", "content"):
        key.pop(generated)
    await publisher.publish(Change(upserts={"api_key": [row(alice.uid, **key)]}))
    await asyncio.sleep((at - datetime.now(UTC)).total_seconds())
    return None


@pytest.mark.parametrize("withdraw", [suspend, delete, remove_key, give_key_to_another, expire])
async def test_a_withdrawn_credential_ends_its_streams(
    client: httpx.AsyncClient, publisher: Publisher, alice: LedgerPrincipal, withdraw: Withdraw
):
    """The stream ends whole within the bound, delivers nothing stored afterwards, and a request is refused like it."""
    async with client.stream("GET", "/receipts/stream", headers=alice.headers) as answer:
        assert answer.status_code == 200
        lines = answer.aiter_lines()
        assert await anext(lines) == ": memorygate"
        await withdraw(publisher, alice)
        began = time.monotonic()
        async with asyncio.timeout(10):
            rest = [line async for line in lines]
        assert time.monotonic() - began < BOUND_SECONDS
        assert not any(line.startswith("data:") for line in rest)
    bob = await client.get("/inbox", headers={"X-API-Key": BOB.key})
    assert bob.status_code == 200
    if withdraw is not give_key_to_another:
        assert (await client.get("/receipts/stream", headers=alice.headers)).status_code in {401, 403}


async def test_another_principals_stream_goes_on(
    client: httpx.AsyncClient, publisher: Publisher, alice: LedgerPrincipal
):
    """A suspension ends the streams of that principal alone."""
    headers = {"X-API-Key": BOB.key}
    async with client.stream("GET", "/receipts/stream", headers=headers) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == ": memorygate"
        async with client.stream("GET", "/receipts/stream", headers=alice.headers) as ended:
            await suspend(publisher, alice)
            async with asyncio.timeout(10):
                assert [line async for line in ended.aiter_lines() if line.startswith("data:")] == []
        stored = await client.post("/receipts", json=accepted(task_id="t", principal_ai="bob"), headers=headers)
        assert stored.status_code == 201, stored.text
        async with asyncio.timeout(10):
            while not (line := await anext(lines)).startswith("data:"):
                pass
        assert stored.json()["receipt_id"] in line
