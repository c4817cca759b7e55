"""A decision reads a bounded number of rows, in a database of any size (INV-106): counted by the database itself."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.interrogate.conftest import AdmissionDatabase, AdmissionTree, begin, make_admissions, record_of
from tests.integration.memorygate.test_emitting import mint

from interrogate.database import InterrogateDatabase

UNRELATED = 1_000_000
MOST_ROWS = 12
"""Of the gate's own tables, and of the ledger's that are asked for custody, cause and root. The rows that a decision changes are not counted
again where their update finds them."""

FILL = f"""
INSERT INTO interrogate.root SELECT '00000000-0000-4000-8000-000000000001', 'root-' || n, 1, 0 FROM generate_series(1, {UNRELATED}) AS n;
INSERT INTO interrogate.capability SELECT '00000000-0000-4000-8000-000000000001', 'root-' || n, 'code.write', 1 FROM generate_series(1, {UNRELATED}) AS n;
INSERT INTO interrogate.admitted SELECT '00000000-0000-4000-8000-000000000001', 'root-' || n, 'root-' || n, NULL, 0, NULL, '[]', 'r', 'alice',
    sha256('') FROM generate_series(1, {UNRELATED}) AS n;
INSERT INTO interrogate.rate SELECT '00000000-0000-4000-8000-000000000001', 'rate-' || n, 1 FROM generate_series(1, {UNRELATED}) AS n;
INSERT INTO interrogate.request SELECT '00000000-0000-4000-8000-000000000001', 'alice', 'key-' || n, sha256(''), 'r', now()
    FROM generate_series(1, {UNRELATED}) AS n;
"""
READS = """
SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) - n_tup_upd)::bigint, sum(coalesce(seq_scan, 0))::bigint FROM pg_stat_user_tables
WHERE schemaname = 'interrogate' OR (schemaname = 'memorygate' AND (relname = 'obligation' OR relname LIKE 'receipt_%'))
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def large_database(postgres: Server) -> AsyncIterator[AdmissionDatabase]:
    """A million rows of another tenant in every table; never analyzed, as after a restore."""
    made = await make_admissions(postgres)
    connection = await asyncpg.connect(made.superuser)
    await connection.execute(FILL)
    await connection.close()
    yield made
    await postgres.drop(made.database)


@pytest.mark.slow
@pytest.mark.invariant("INV-106")
async def test_no_decision_reads_more_than_a_dozen_rows(large_database: AdmissionDatabase):
    """Twenty requests with everything that can be asked: parent, custody, cause, key, rate. No table is scanned."""
    database = await InterrogateDatabase.connect(large_database.writer, size=1, query_timeout=20)
    counting = await asyncpg.connect(large_database.superuser)
    tree = AdmissionTree()
    admitted = await begin(database, tree)
    assert admitted.stored is not None
    await mint(large_database.ledger, tree.tenant, tree.root)

    async def reads() -> tuple[int, int]:
        await database._pool.fetch("SELECT pg_stat_force_next_flush()")
        await database._pool.fetch("SELECT 1")
        await counting.execute("SELECT pg_stat_clear_snapshot()")
        return tuple(await counting.fetchrow(READS))  # type: ignore[return-value]

    rows_before, scans_before = await reads()
    for number in range(20):
        request = tree.request(
            caused_by_receipt_id=admitted.stored.receipt_id, rate_keys=("rate",), idempotency_key=f"own-{number}"
        )
        [answer] = await database.observe([request])
        [recorded] = await database.record([record_of(request, answer.observed, rate_tats=(2**50 + number,))])
        assert recorded.outcome == "STORED"
    rows_after, scans_after = await reads()
    await database.close()
    await counting.close()
    assert scans_after == scans_before
    assert (rows_after - rows_before) / 20 <= MOST_ROWS
