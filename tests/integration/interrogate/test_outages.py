"""What InterroGate does without what it stands on: nothing, at once and honestly (INV-116, IG-01)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr
from tests.databases import Server
from tests.integration.interrogate.conftest import AdmissionDatabase, make_admissions
from tests.integration.interrogate.gate_fixture import (
    OPEN_POLICY,
    GateClient,
    PublishedWorld,
    Requesting,
    serving_interrogate,
)
from tests.integration.memorygate.conftest import rows


@asynccontextmanager
async def requesting_gate(database: AdmissionDatabase, **settings: Any) -> AsyncIterator[tuple[GateClient, Requesting]]:
    world = PublishedWorld(database)
    principal = world.principal("alice")
    await world.publish(principal, policies={"strict": OPEN_POLICY})
    async with serving_interrogate(world, **settings) as gate:
        yield gate, await gate.awaited(gate.requesting(principal))


async def executed(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        (
            "REVOKE EXECUTE ON FUNCTION interrogate.observe FROM interrogate_writer",
            "GRANT EXECUTE ON FUNCTION interrogate.observe TO interrogate_writer",
        ),
        (
            "REVOKE EXECUTE ON FUNCTION interrogate.record FROM interrogate_writer",
            "GRANT EXECUTE ON FUNCTION interrogate.record TO interrogate_writer",
        ),
        (
            "ALTER TABLE memorygate.receipt ADD CONSTRAINT shut CHECK (kind <> 'admission') NOT VALID",
            "ALTER TABLE memorygate.receipt DROP CONSTRAINT shut",
        ),
    ],
    ids=["observe", "record", "the ledger refuses the row"],
)
async def test_what_cannot_be_stored_is_not_decided(
    admission_database: AdmissionDatabase, broken: str, mended: str
) -> None:
    """503 with Retry-After, not a row; the same request with the same key is decided once it can be."""
    async with requesting_gate(admission_database) as (gate, alice):
        body = alice.envelope()
        await executed(admission_database.superuser, broken)
        try:
            answer = await alice.evaluate(body, idempotency_key="kept")
            assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE"), answer.text
            assert "retry-after" in answer.headers
            assert await gate.receipts() == []
            assert 'interrogate_fail_closed_total{cause="database"}' in (await gate.client.get("/metrics")).text
        finally:
            await executed(admission_database.superuser, mended)
        answer = await alice.evaluate(body, idempotency_key="kept")
        assert (answer.status_code, answer.headers.get("idempotency-replayed")) == (200, None)
        assert len(await gate.receipts()) == 1


async def test_a_frozen_database_is_told_within_the_deadline(admission_database: AdmissionDatabase) -> None:
    """Somebody holds the rows: 503 in time, and afterwards one decision at most."""
    async with requesting_gate(admission_database, deadline_ms=500) as (gate, alice):
        root = (await alice.evaluate()).json()
        holder = await asyncpg.connect(admission_database.superuser)
        try:
            transaction = holder.transaction()
            await transaction.start()
            await holder.execute("LOCK TABLE interrogate.root IN ACCESS EXCLUSIVE MODE")
            started = asyncio.get_running_loop().time()
            answer = await alice.evaluate(alice.child(root))
            assert answer.status_code == 503
            assert asyncio.get_running_loop().time() - started < 5
            await transaction.rollback()
        finally:
            await holder.close()
        async with asyncio.timeout(20):
            while (await alice.evaluate(alice.child(root))).status_code != 200:
                await asyncio.sleep(0.05)
        assert {receipt["phase"] for receipt in await gate.receipts()} == {"accepted"}


async def test_metagate_in_another_database(postgres: Server, admission_database: AdmissionDatabase) -> None:
    """Identity and policies from one database, decisions in another: the same receipts as in one."""
    other = await make_admissions(postgres)
    try:
        world = PublishedWorld(other)
        principal = world.principal("alice")
        await world.publish(principal, policies={"strict": OPEN_POLICY})
        apart = replace(world, database=other)
        settings = {
            "database_url": SecretStr(admission_database.writer),
            "identity_database_url": SecretStr(other.database.identity),
        }
        async with serving_interrogate(apart, **settings) as gate:
            alice = await gate.awaited(gate.requesting(principal))
            decision = (await alice.evaluate()).json()
        stored = "SELECT receipt_id FROM memorygate.receipt WHERE tenant = $1"
        assert await rows(admission_database.superuser, stored, world.tenant) == [(decision["receipt_id"],)]
        assert await rows(other.superuser, stored, world.tenant) == []
    finally:
        await postgres.drop(other.database)
