"""The ledger without MetaGate, and without its own database: what goes on, what is told, what comes back by itself."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.databases import Server
from tests.integration.memorygate.conftest import LedgerDatabase, accepted, complete, make_ledger
from tests.integration.memorygate.ledger_fixture import LedgerFixture, LedgerPrincipal, free_port, ledger_fixture, ready

from legivellum.gate.composition import serving
from memorygate.gate import GATE
from memorygate.schema import WRITER
from memorygate.settings import Settings
from metagate_store.migrating import IDENTITY


@pytest_asyncio.fixture
async def away(postgres: Server) -> AsyncIterator[LedgerDatabase]:
    """A second database, for the ledger's tables alone."""
    made = await make_ledger(postgres)
    yield made
    await postgres.drop(made.database)


ALICE = LedgerPrincipal(uuid4(), "alice")
EVE = LedgerPrincipal(ALICE.tenant, "eve", suspended=True)


@pytest_asyncio.fixture
async def place(fresh_ledger: LedgerDatabase) -> AsyncIterator[LedgerFixture]:
    async with ledger_fixture(fresh_ledger, ALICE, EVE) as made:
        yield made


@pytest_asyncio.fixture
async def client(place: LedgerFixture, away: LedgerDatabase) -> AsyncIterator[httpx.AsyncClient]:
    """Identity in one database, receipts in another."""
    settings = Settings(
        database_url=SecretStr(away.writer),
        identity_database_url=SecretStr(place.database.database.identity),
        port=free_port(),
        identity_poll_ms=50,
    )
    async with serving(GATE, settings) as url:
        await ready(url)
        async with httpx.AsyncClient(base_url=url, timeout=10) as client:
            yield client


class Locked:
    """No new connections of a role, and its old ones cut, until the block ends."""

    def __init__(self, superuser: str, role: str) -> None:
        self.superuser, self.role = superuser, role

    async def __aenter__(self) -> None:
        await self._run(f"ALTER ROLE {self.role} NOLOGIN")
        await self._run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{self.role}'")

    async def __aexit__(self, *_: object) -> None:
        await self._run(f"ALTER ROLE {self.role} LOGIN")

    async def _run(self, statement: str) -> None:
        connection = await asyncpg.connect(self.superuser)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


async def test_identity_is_not_asked_while_a_request_is_answered(client: httpx.AsyncClient, place: LedgerFixture):
    """MetaGate's database away: who was known goes on, a stranger stays one, readiness stays, health says what is down."""
    async with Locked(place.database.superuser, IDENTITY):
        for n in range(5):
            answer = await client.post(
                "/receipts", json=accepted(task_id=f"t{n}", principal_ai="alice"), headers=ALICE.headers
            )
            assert answer.status_code == 201, answer.text
        assert (await client.get("/inbox", headers=LedgerPrincipal(uuid4(), "x").headers)).status_code == 401
        refused = await client.get("/inbox", headers=EVE.headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "PRINCIPAL_SUSPENDED")
        async with asyncio.timeout(10):
            while (await client.get("/readyz")).json()["identity"] != "down":
                await asyncio.sleep(0.05)
        assert (await client.get("/readyz")).status_code == 200
    async with asyncio.timeout(10):
        while (await client.get("/readyz")).json()["identity"] != "up":
            await asyncio.sleep(0.05)


@pytest.mark.invariant("INV-061", "INV-121")
async def test_without_its_database_nothing_is_accepted_and_it_recovers_alone(
    client: httpx.AsyncClient, away: LedgerDatabase, caplog: pytest.LogCaptureFixture
):
    """Every write is 503 with Retry-After and none is stored; liveness holds; no traceback; afterwards it works again."""
    first = accepted(task_id="before", principal_ai="alice")
    assert (await client.post("/receipts", json=first, headers=ALICE.headers)).status_code == 201
    lost = accepted(task_id="during", principal_ai="alice")
    async with Locked(away.superuser, WRITER):
        for _ in range(3):
            answer = await client.post("/receipts", json=lost, headers=ALICE.headers)
            assert (answer.status_code, int(answer.headers["retry-after"]) >= 1) == (503, True)
            assert "postgres" not in answer.text.lower()
        assert (await client.get("/inbox", headers=ALICE.headers)).status_code == 503
        for path in ("/health", "/livez", "/readyz", "/metrics"):
            assert (await client.get(path)).status_code == 200, path
    async with asyncio.timeout(10):
        while (await client.post("/receipts", json=lost, headers=ALICE.headers)).status_code not in {200, 201}:
            await asyncio.sleep(0.1)
    answer = await client.get("/inbox", headers=ALICE.headers)
    assert [item["obligation_id"] for item in answer.json()["items"]] == ["before", "during"]
    assert [record for record in caplog.records if record.exc_info] == []


async def test_what_is_published_is_known_within_a_poll(client: httpx.AsyncClient, place: LedgerFixture):
    """A suspended principal is refused and a key taken back is 401, while everything else goes on."""
    from tests.integration.store.worlds import Change

    from metagate_store.publisher import Publisher

    publisher = await Publisher.open(place.database.database.publisher)
    try:
        loaded = await publisher.load()
        assert loaded.revision == 1
        assert (await client.get("/inbox", headers=ALICE.headers)).status_code == 200
        digest = ALICE.rows()["api_key"][0]["sha256"]
        await publisher.publish(Change(deletes={"api_key": [(str(digest),)]}))
    finally:
        await publisher.close()
    async with asyncio.timeout(5):
        while (await client.get("/inbox", headers=ALICE.headers)).status_code != 401:
            await asyncio.sleep(0.02)


@pytest.mark.invariant("INV-058")
async def test_a_lock_that_is_held_is_a_503_and_not_a_wait(client: httpx.AsyncClient, away: LedgerDatabase):
    """Somebody locks the ledger's table: answers come within the deadline, and work goes on afterwards."""
    connection = await asyncpg.connect(away.superuser)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("LOCK TABLE memorygate.receipt IN ACCESS EXCLUSIVE MODE")
        body = accepted(task_id="t", principal_ai="alice")
        async with asyncio.timeout(3):
            answer = await client.post("/receipts", json=body, headers=ALICE.headers)
        assert answer.status_code == 503
        await transaction.rollback()
    finally:
        await connection.close()
    assert (await client.post("/receipts", json=body, headers=ALICE.headers)).status_code in {200, 201}
    done = complete(task_id="t", principal_ai="alice")
    assert (await client.post("/receipts", json=done, headers=ALICE.headers)).status_code == 201
