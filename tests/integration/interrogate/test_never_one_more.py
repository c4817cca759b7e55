"""No limit is ever exceeded by one, however many try at once (INTERROGATE.md §7.1): 4 processes, 32 clients."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
from tests.integration.interrogate.conftest import AdmissionDatabase, AdmissionTree, begin
from tests.integration.interrogate.racers import Racers, racers
from tests.integration.memorygate.conftest import rows

from interrogate.database import InterrogateDatabase
from memorygate.verifying import verify

CELLS = 60
LIMIT = 5


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def racing(admission_database: AdmissionDatabase) -> AsyncIterator[Racers]:
    async with racers(admission_database.writer) as started:
        yield started


@pytest.mark.slow
@pytest.mark.invariant("INV-101")
@pytest.mark.parametrize("form", ["descendants", "descendants_locked", "descendants_mixed"])
async def test_of_all_who_try_at_once_as_many_are_admitted_as_the_limit_says(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase, racing: Racers, form: str
):
    """Sixty roots, 32 clients at each: 5 admitted and 27 denied, in the answers, in the counters and in the ledger."""
    for _ in range(CELLS):
        tree = AdmissionTree()
        await begin(admissions, tree)
        outcomes = await racing.race(form, tree, limit=LIMIT)
        assert outcomes == {"admitted": LIMIT, "denied": 32 - LIMIT}
        counts = await rows(
            admission_database.superuser,
            """SELECT r.version, r.descendants, (SELECT count(*) FROM memorygate.receipt WHERE tenant = $1)
               FROM interrogate.root AS r WHERE r.tenant = $1""",
            tree.tenant,
        )  # fmt: skip
        assert counts == [(1 + LIMIT, LIMIT, 1 + LIMIT)]
    assert (await verify(admission_database.ledger.auditor)).bad is None


@pytest.mark.slow
@pytest.mark.parametrize("form", ["count_then_insert", "lock_and_read"])
async def test_the_naive_forms_exceed_it(admission_database: AdmissionDatabase, racing: Racers, form: str):
    """What the test above is worth: forms that one would write at first admit more than the limit in some of the cells."""
    connection = await asyncpg.connect(admission_database.superuser)
    try:
        await connection.execute(
            """CREATE SCHEMA IF NOT EXISTS naive; CREATE TABLE IF NOT EXISTS naive.child (root text);
               CREATE INDEX IF NOT EXISTS child_root ON naive.child (root);
               GRANT USAGE ON SCHEMA naive TO interrogate_writer; GRANT SELECT, INSERT ON naive.child TO interrogate_writer"""
        )
    finally:
        await connection.close()
    admitted = [(await racing.race(form, AdmissionTree(), limit=LIMIT))["admitted"] for _ in range(CELLS)]
    assert max(admitted) > LIMIT


@pytest.mark.slow
async def test_a_burst_of_a_hundred_is_a_hundred(admission_database: AdmissionDatabase, racing: Racers):
    """6,400 tries at one bucket: exactly its burst passes, and every try has its receipt."""
    tree = AdmissionTree()
    assert await racing.race("rate", tree, limit=100, tries=200) == {"admitted": 100, "denied": 6_300}
    receipts = await rows(
        admission_database.superuser, "SELECT count(*) FROM memorygate.receipt WHERE tenant = $1", tree.tenant
    )
    assert receipts == [(6_400,)]


@pytest.mark.invariant("INV-108")
async def test_racers_with_one_key_get_one_answer(
    admission_database: AdmissionDatabase, admissions: InterrogateDatabase, racing: Racers
):
    """Nobody gets a conflict, all get the receipt of the first, and there is one."""
    for _ in range(10):
        tree = AdmissionTree()
        await begin(admissions, tree)
        answers = await racing.race("same_key", tree)
        assert list(answers.values()) == [32]
        receipts = await rows(
            admission_database.superuser, "SELECT count(*) FROM memorygate.receipt WHERE tenant = $1", tree.tenant
        )
        assert receipts == [(2,)]
