"""Replay proves every decision, and verify every counter: after many processes, and after somebody changed a row (§7.2)."""

import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.interrogate.conftest import AdmissionDatabase, AdmissionTree, make_admissions
from tests.integration.interrogate.racers import racers
from tests.integration.interrogate.workload import KnownTask, Workload, ruleset
from tests.integration.memorygate.conftest import rows

from interrogate.database import InterrogateDatabase
from interrogate.decision import ReasonCode
from interrogate.replaying import replay
from interrogate.verifying import verify
from memorygate.verifying import verify as verify_ledger

CHANGES = 20
LAST = CHANGES + 2
"""The revision after the races, until every reason has been given."""
PROCESSES, REQUESTS_OF_A_BATCH = 4, 7
"""Eight in the mean, of which some repeat what was decided."""
DECISIONS = int(os.environ.get("REPLAY_DECISIONS", "0"))  # noqa: TID251 - `make test-replay` asks for many
"""At least so many; 0: as many as show every rule."""
CALLERS = 8 if DECISIONS else 2
"""Batches of a process that are on their way at once."""
BATCHES = max(3, -(-DECISIONS // (CHANGES * PROCESSES * CALLERS * REQUESTS_OF_A_BATCH)))
"""Of each caller, under each policy."""
TABLES = ("root", "capability", "admitted", "lease")


@dataclass(frozen=True, slots=True)
class DecidedHistory:
    """A ledger in which many processes have decided."""

    database: AdmissionDatabase
    tenant: UUID
    outcomes: Counter[str]
    decisions: int
    """In the ledger, all of them verified."""

    @property
    def auditor(self) -> str:
        return self.database.ledger.auditor

    async def execute(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        return await rows(self.database.superuser, statement, *values)

    async def change_body(self, receipt_id: str, old: str, new: str) -> None:
        """As somebody with every right on the database would: digest and all."""
        [(body,)] = await self.execute("SELECT body FROM memorygate.receipt WHERE receipt_id = $1", receipt_id)
        assert isinstance(body, str)
        assert body.count(old) == 1, body
        changed = body.replace(old, new)
        await self.execute(
            "UPDATE memorygate.receipt SET body = $2, digest = $3 WHERE receipt_id = $1 RETURNING 1",
            receipt_id, changed, hashlib.sha256(changed.encode()).digest(),
        )  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def history(postgres: Server) -> AsyncIterator[DecidedHistory]:
    database = await make_admissions(postgres)
    tree, outcomes = AdmissionTree(), Counter[str]()
    roots = await begin_roots(database, tree)
    async with racers(database.writer, processes=PROCESSES) as racing:
        for revision in range(1, CHANGES + 1):
            # Half of the processes lag behind: they are told so at their first decision after somebody used the newer policy.
            lagging = [revision, revision, max(revision - 1, 1), max(revision - 1, 1)]
            outcomes += await racing.race(
                "workload", tree, roots=roots, newest=revision, batches=BATCHES, callers=CALLERS, revision=lagging,
                seed=[revision * 10 + number for number in range(PROCESSES)],
            )  # fmt: skip
    outcomes += await _completed(database, tree, roots)
    verified = await verify(database.ledger.auditor)
    assert verified.bad is None
    yield DecidedHistory(database, tree.tenant, outcomes, verified.decisions)
    await postgres.drop(database.database)


async def begin_roots(database: AdmissionDatabase, tree: AdmissionTree) -> list[tuple[str, str]]:
    """Four roots that all processes know."""
    connected = await InterrogateDatabase.connect(database.writer, size=1, query_timeout=10)
    load = Workload(connected, tree.tenant, [], 1)
    roots: list[tuple[str, str]] = []
    for seed in itertools.count():
        roots = [(task.root, task.receipt_id) for task in load.known if task.depth == 0]
        if len(roots) >= 4:
            break
        await load.run(1, 1, seed=seed)
    await connected.close()
    return roots[:4]


async def _completed(database: AdmissionDatabase, tree: AdmissionTree, roots: list[tuple[str, str]]) -> Counter[str]:
    """Requests of one client until every reason was given: which of them the races met depends on the machine."""
    connected = await InterrogateDatabase.connect(database.writer, size=1, query_timeout=10)
    known = [KnownTask(root, root, receipt_id, 0) for root, receipt_id in roots]
    load = Workload(connected, tree.tenant, known, LAST)
    for revision in (LAST - 1, LAST):
        for seed in range(40):
            await load.run(1, revision, seed=10**6 * revision + seed)
    while missing := set(map(str, ReasonCode)) - set(load.outcomes):
        assert sum(load.outcomes.values()) < 10_000, missing
        # What is known of the tree grows, so another seed meets another state of it.
        await load.run(1, LAST, seed=sum(load.outcomes.values()))
    await connected.close()
    return load.outcomes


@pytest.mark.slow
@pytest.mark.invariant("INV-050", "INV-105", "INV-106", "INV-108")
async def test_every_decision_follows_from_the_ledger_again(history: DecidedHistory):
    """Thousands of decisions of 4 processes under 20 policies, every rule broken by some: 0 mismatches, all counters derived."""
    report = await replay(history.auditor)
    assert [str(mismatch) for mismatch in report.mismatches] == []
    stored = sum(history.outcomes[name] for name in ("ALLOW", *ReasonCode))
    assert report.decisions >= stored > max(2_000, DECISIONS)
    print(
        f"{report.decisions} decisions of {PROCESSES * CALLERS} callers under {LAST} policies: {report.mismatch_count} not the same"
    )
    assert {str(reason) for reason in ReasonCode} <= set(history.outcomes)
    assert history.outcomes["MOVED"] > 0
    assert history.outcomes["POLICY_BEHIND"] > 0
    assert history.decisions == report.decisions
    assert (await verify_ledger(history.auditor)).bad is None


@pytest.mark.slow
@pytest.mark.invariant("INV-107")
async def test_no_decision_was_stored_under_an_older_policy_than_one_before_it(history: DecidedHistory):
    """In the ledger's own order of the tenant: revisions never fall."""
    revisions = await history.execute(
        """SELECT (body::json -> 'body' ->> 'policy_revision')::integer FROM memorygate.receipt
           WHERE tenant = $1 AND body::json -> 'body' ->> 'policy_hash' IS NOT NULL ORDER BY stored_at""",
        history.tenant,
    )  # fmt: skip
    assert revisions == sorted(revisions)
    assert {revision for (revision,) in revisions} == set(range(1, LAST + 1))


@pytest.mark.slow
async def test_another_policy_is_tried_on_what_was_decided(history: DecidedHistory):
    """Under the last one again: only decisions under others change. Under one without mail: admissions of it are named."""
    strict = ruleset(LAST)
    no_mail = replace(strict, surfaces={
        name: replace(surface, denied_capabilities=replace(surface.denied_capabilities, names=frozenset({"doc.delete", "mail.send"})))
        for name, surface in strict.surfaces.items()
    })  # fmt: skip
    report = await replay(history.auditor, other=no_mail)
    assert report.mismatch_count == 0
    assert report.changes["ALLOW -> DENY CAPABILITY_DENIED"] > 0
    assert len(report.changed) == 100
    [(since, last)] = await history.execute(
        "SELECT min(stored_at), max(stored_at) FROM memorygate.receipt WHERE body::json -> 'body' ->> 'policy_revision' = $1", str(LAST)
    )  # fmt: skip
    assert (await replay(history.auditor, since=since, other=strict)).changes == {}  # type: ignore[arg-type]
    assert (await replay(history.auditor, since=last)).decisions == 1  # type: ignore[arg-type]
    [(root, count)] = await history.execute(
        "SELECT root_task_id, version FROM interrogate.root WHERE tenant = $1 ORDER BY version DESC LIMIT 1", history.tenant
    )  # fmt: skip
    assert count <= (await replay(history.auditor, root=str(root))).decisions < report.decisions


@pytest.mark.slow
@pytest.mark.invariant("INV-050", "INV-105")
@pytest.mark.parametrize(
    ("phase", "old", "new", "member"),
    [
        ("accepted", '"outcome":"ALLOW"', '"outcome":"DENY"', "outcome"),
        ("accepted", '"type":"principal"', '"type":"observer"', "outcome"),
        ("rejected", '"reason_code":"CAPABILITY_DENIED"', '"reason_code":"UNAUTHORIZED"', "reason_code"),
        ("accepted", '"custodian":null,"depth":0', '"custodian":null,"depth":1', "observed.parent.depth"),
        ("accepted", '"policy_hash":"', '"policy_hash":"0', "policy_hash"),
    ],
    ids=lambda value: value.split(":")[0].strip('"'),
)
async def test_a_changed_receipt_is_named(history: DecidedHistory, phase: str, old: str, new: str, member: str):
    """One value in one receipt, however well it was hashed again: the receipt and the member."""
    [(receipt_id,)] = await history.execute(
        """SELECT receipt_id FROM memorygate.receipt WHERE phase = $1 AND strpos(body, $2) > 0 AND body::json -> 'body' -> 'shadow' IS NOT NULL
             AND tenant = $3 ORDER BY stored_at DESC LIMIT 1""",
        phase, old, history.tenant,
    )  # fmt: skip
    [(body, digest)] = await history.execute(
        "SELECT body, digest FROM memorygate.receipt WHERE receipt_id = $1", receipt_id
    )
    await history.change_body(str(receipt_id), old, new)
    try:
        report = await replay(history.auditor)
        named = {mismatch.receipt_id: mismatch.members for mismatch in report.mismatches}
        assert member in named[str(receipt_id)]
    finally:
        await history.execute(
            "UPDATE memorygate.receipt SET body = $2, digest = $3 WHERE receipt_id = $1 RETURNING 1",
            receipt_id,
            body,
            digest,
        )
    assert (await replay(history.auditor)).mismatch_count == 0


@pytest.mark.slow
@pytest.mark.invariant("INV-050")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE interrogate.root SET version = version + 1 WHERE root_task_id = {root}", "root {root} of tenant"),
        ("UPDATE interrogate.root SET descendants = descendants + 1 WHERE root_task_id = {root}", "descendants is not what"),
        ("UPDATE interrogate.capability SET admissions = admissions + 1 WHERE root_task_id = {root}", "admissions is not what"),
        ("UPDATE interrogate.admitted SET budget = 99 WHERE task_id = {root}", "admitted {root}"),
        ("UPDATE interrogate.admitted SET digest = sha256('') WHERE task_id = {root}", "digest is not what"),
        ("DELETE FROM interrogate.root WHERE root_task_id = {root}", "root {root}"),
        ("INSERT INTO interrogate.lease VALUES ({tenant}::uuid, 'x', 1)", "lease x"),
        ("INSERT INTO interrogate.root VALUES ('ffffffff-ffff-4fff-8fff-ffffffffffff', 'x', 1, 0)", "follows from no receipt"),
        ("INSERT INTO interrogate.root VALUES ('00000000-0000-4000-8000-000000000000', 'x', 1, 0)", "follows from no receipt"),
    ],
    ids=["version", "descendants", "admissions", "budget", "digest", "missing", "lease", "a later tenant", "an earlier tenant"],
)  # fmt: skip
async def test_a_changed_counter_is_named_and_derived_anew(history: DecidedHistory, change: str, named: str):
    """Verify says which row; after --rebuild every table is what it was, and decisions go on."""
    before = await _contents(history)
    [(root,)] = await history.execute(
        "SELECT root_task_id FROM interrogate.root WHERE tenant = $1 ORDER BY version DESC LIMIT 1", history.tenant
    )
    await history.execute(change.format(root=f"'{root}'", tenant=f"'{history.tenant}'") + " RETURNING 1")
    assert named.format(root=root) in str((await verify(history.auditor)).bad)
    rebuilt = await verify(history.database.database.owner, rebuild=True)
    assert (rebuilt.bad, rebuilt.decisions) == (None, history.decisions)
    # What the tables held before has been verified, so holding the same again is as good.
    assert await _contents(history) == before


async def _contents(history: DecidedHistory) -> dict[str, object]:
    sums = {}
    for table in TABLES:
        [(sums[table],)] = await history.execute(
            f"SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM interrogate.{table} AS t"
        )
    return sums


async def test_a_policy_that_is_not_what_its_hash_says_proves_nothing(history: DecidedHistory):
    """A kept policy that was changed is as good as none: every decision under it is named."""
    policy_hash = ruleset(LAST).policy_hash
    [(body,)] = await history.execute("SELECT body FROM interrogate.ruleset WHERE policy_hash = $1", policy_hash)
    changed = json.dumps({**json.loads(str(body)), "budget": {"required": False, "initial": 7}})
    await history.execute(
        "UPDATE interrogate.ruleset SET body = $2 WHERE policy_hash = $1 RETURNING 1", policy_hash, changed
    )
    try:
        report = await replay(history.auditor)
        assert report.mismatch_count > 100
        assert len(report.mismatches) == 100
        assert {mismatch.members for mismatch in report.mismatches} == {("policy_hash",)}
    finally:
        await history.execute(
            "UPDATE interrogate.ruleset SET body = $2 WHERE policy_hash = $1 RETURNING 1", policy_hash, body
        )


async def test_the_auditor_changes_nothing(history: DecidedHistory):
    """A rebuild with its role is refused."""
    with pytest.raises(Exception, match="42501"):
        await verify(history.auditor, rebuild=True)
    connection = await asyncpg.connect(history.auditor)
    try:
        with pytest.raises(asyncpg.PostgresError):
            await connection.execute("DELETE FROM interrogate.root")
    finally:
        await connection.close()
