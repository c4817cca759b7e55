"""One writer, one transaction, only differences."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import pytest
from tests.databases import Database
from tests.integration.store.worlds import change_of, content_of, declared, row, somebody

from metagate_store.errors import Fenced, ForeignCluster, StaleBase
from metagate_store.migrating import migrate
from metagate_store.publisher import Publisher
from metagate_store.reader import Reader
from metagate_store.rows import BootstrapOutcome, Change, FileIdentityRow, IssuerKeyRow, TenantRow


class Killed(BaseException):
    """Stands for the process ending there."""


async def tables(dsn: str) -> dict[str, list]:
    """Everything that is stored, by table."""
    connection = await asyncpg.connect(dsn)
    try:
        names = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'metagate' AND tablename <> 'epoch'"
        )
        return {
            name: sorted(str(tuple(row)) for row in await connection.fetch(f"SELECT * FROM metagate.{name}"))
            for [name] in names
        }
    finally:
        await connection.close()


async def test_differences_only(fresh_database: Database) -> None:
    """Publishing what is stored already writes nothing and mints no revision; a difference mints exactly one."""
    principal = somebody()
    publisher = await Publisher.open(fresh_database.publisher)
    assert (await publisher.load()).revision == 0
    assert await publisher.publish(change_of([principal])) == 1
    stored = await tables(fresh_database.superuser)
    assert await publisher.publish(replace(change_of([principal]), audit=())) == 1
    assert await tables(fresh_database.superuser) == stored
    principal.components = ("a",)
    assert await publisher.publish(replace(change_of([principal]), audit=())) == 2
    connection = await asyncpg.connect(fresh_database.superuser)
    revisions = {
        table: await connection.fetchval(f"SELECT max(revision) FROM metagate.{table}")
        for table in ("principal", "binding")
    }
    counts = await connection.fetch("SELECT counts FROM metagate.revision ORDER BY revision")
    await connection.close()
    await publisher.close()
    assert revisions == {"principal": 1, "binding": 2}
    assert [count["counts"] for count in counts] == [
        '{"api_key": 1, "binding": 1, "subject": 1, "principal": 1}', '{"binding": 1}',
    ]  # fmt: skip


async def test_verdicts_mint_no_revision(fresh_database: Database) -> None:
    """A verdict or a reference that changes alone is stored without a new revision."""
    uid = str(uuid4())
    verdict = {"owner": uid, "kind": "Profile", "tenant": None, "namespace": "team", "name": "p", "generation": 1,
               "served_generation": None, "created_at": "2026-01-01T00:00:00Z", "conditions": [{"type": "Ready"}], "uses": 0}  # fmt: skip
    publisher = await Publisher.open(fresh_database.publisher)
    await publisher.load()
    revision = await publisher.publish(
        Change(
            upserts={
                "resource": [{**verdict, "content": "c1"}],
                "reference": [
                    {"owner": uid, "path": "spec.x", "kind": "Profile", "tenant": None, "name": "n", "content": "r1"}
                ],
            }
        )
    )
    stored = await tables(fresh_database.superuser)
    await publisher.close()
    assert revision == 0
    assert (len(stored["resource"]), len(stored["reference"]), len(stored["revision"])) == (1, 1, 0)


async def test_load_returns_what_was_published(fresh_database: Database) -> None:
    """A new writer learns keys, owners, contents, last good specs, packets, sightings and tenants of its predecessor."""
    principal = somebody()
    uid = uuid4()
    sighting = FileIdentityRow("Profile", "team", "worker", str(uid), 3, "d" * 64, datetime.now(UTC))
    old, new = declared(uid, 1, a=1), declared(uid, 2, a=2)
    gone = declared(uuid4(), 1)
    tenant = TenantRow(uuid4(), "gone", datetime.now(UTC))
    change = change_of([principal])
    first = await Publisher.open(fresh_database.publisher)
    loaded = await first.load()
    await first.publish(
        replace(change, declared=[old, new, gone], file_identities=[sighting], tenants=[*change.tenants, tenant])
    )
    await first.publish(Change(withdrawn=[gone.uid], retired_tenants=[tenant.tenant]))
    await first.close()
    second = await Publisher.open(fresh_database.publisher)
    result = await second.load()
    assert result.epoch == loaded.epoch + 1
    assert result.revision == 1
    assert result.rows == {
        (table, tuple(str(row[name]) for name in key)): type(next(iter(result.rows.values())))(row["owner"], row["content"])
        for table, key in (
            ("principal", ("tenant", "principal_key")), ("api_key", ("sha256",)), ("subject", ("issuer", "subject")),
            ("binding", ("tenant", "principal_key")),
        )
        for row in change.upserts[table]
    }  # fmt: skip
    assert result.declared == (new,)
    assert result.packets == {principal.digest}
    assert result.file_identities == (sighting,)
    assert result.tenants == tuple(change.tenants)
    assert await second.tenant(change.tenants[0].namespace) == principal.tenant
    assert await second.tenant("gone") is None
    await second.publish(Change(removed_file_identities=[("Profile", "team", "worker")]))
    assert (await second.load()).file_identities == ()
    await second.close()


@pytest.mark.invariant("EXT-04")
async def test_audit(fresh_database: Database) -> None:
    """Each changed object leaves one row with uid, generation and digests, and no content."""
    principal = somebody()
    publisher = await Publisher.open(fresh_database.publisher)
    await publisher.load()
    await publisher.publish(change_of([principal]))
    await publisher.close()
    connection = await asyncpg.connect(fresh_database.superuser)
    rows = await connection.fetch(
        "SELECT revision, kind, name, uid, generation, before_digest, after_digest FROM metagate.change"
    )
    await connection.close()
    assert [tuple(row) for row in rows] == [
        (1, "Principal", principal.name, principal.uid, 1, None, content_of({"n": principal.name}))
    ]


async def test_deletes_revoke(fresh_database: Database) -> None:
    """Deleting a binding row is a revision, and the very next bootstrap is refused."""
    principal = somebody()
    publisher = await Publisher.open(fresh_database.publisher)
    await publisher.load()
    await publisher.publish(change_of([principal]))
    reader = await Reader.connect(fresh_database.api, size=1)
    assert (await reader.bootstrap([principal.ask()]))[0].outcome is BootstrapOutcome.OPENED
    assert await publisher.publish(Change(deletes={"binding": [(str(principal.tenant), principal.name)]})) == 2
    assert (await reader.bootstrap([principal.ask()]))[0].outcome is BootstrapOutcome.NO_BINDING
    assert await publisher.publish(Change(deletes={"binding": [(str(principal.tenant), principal.name)]})) == 2
    await publisher.close()
    await reader.close()


async def test_two_writers(fresh_database: Database) -> None:
    """Of two writers the one that loaded last writes; the other is fenced, writes nothing and says so (F28)."""
    principal, other = somebody(), somebody("other")
    first, second = await Publisher.open(fresh_database.publisher), await Publisher.open(fresh_database.publisher)
    await first.load()
    await second.load()
    before = await tables(fresh_database.superuser)
    with pytest.raises(Fenced, match="nothing was written"):
        await first.publish(change_of([principal]))
    assert await tables(fresh_database.superuser) == before
    assert await second.publish(change_of([other])) == 1
    with pytest.raises(Fenced):
        await first.keep_issuer_keys([IssuerKeyRow("i", "k", {})])
    await first.load()
    with pytest.raises(Fenced):
        await second.publish(Change())
    await asyncio.gather(first.close(), second.close())


async def test_never_loaded(fresh_database: Database) -> None:
    """A writer that has not loaded may not write."""
    publisher = await Publisher.open(fresh_database.publisher)
    with pytest.raises(Fenced):
        await publisher.publish(Change())
    await publisher.close()


async def test_stale_base(fresh_database: Database) -> None:
    """A writer whose base revision is not the newest writes nothing."""
    publisher = await Publisher.open(fresh_database.publisher)
    await publisher.load()
    connection = await asyncpg.connect(fresh_database.superuser)
    await connection.execute("INSERT INTO metagate.revision (revision, epoch, counts) VALUES (7, 1, '{}')")
    await connection.close()
    with pytest.raises(StaleBase, match="revision 7"):
        await publisher.publish(change_of([somebody()]))
    assert (await publisher.load()).revision == 7
    assert await publisher.publish(change_of([somebody()])) == 8
    await publisher.close()


@pytest.mark.parametrize("step", ["after_packets", "after_declared", "after_tables", "before_commit", "after_commit"])
async def test_killed_in_the_middle(fresh_database: Database, step: str) -> None:
    """A writer that ends at any step leaves the old snapshot or the new one, whole; the next one goes on (F27)."""
    principal = somebody()
    steady = await Publisher.open(fresh_database.publisher)
    await steady.load()
    await steady.publish(change_of([principal]))
    await steady.close()
    before = await tables(fresh_database.superuser)
    old = principal.digest

    def fail(name: str) -> None:
        if name == step:
            raise Killed

    dying = await Publisher.open(fresh_database.publisher, failpoint=fail)
    await dying.load()
    principal.body = b'{"services":{"new":{}}}'
    with pytest.raises(Killed):
        await dying.publish(change_of([principal]))
    await dying.close()
    reader = await Reader.connect(fresh_database.api, size=1)
    [answer] = await reader.bootstrap([principal.ask(expected_digest=None)])
    committed = step == "after_commit"
    assert answer.digest == (principal.digest if committed else old)
    assert answer.revision == (2 if committed else 1)
    if not committed:
        assert await tables(fresh_database.superuser) == before
    heir = await Publisher.open(fresh_database.publisher)
    await heir.load()
    assert await heir.publish(change_of([principal])) == 2
    [answer] = await reader.bootstrap([principal.ask()])
    assert answer.outcome is BootstrapOutcome.OPENED
    await reader.close()
    await heir.close()


async def test_whose_database(fresh_database: Database) -> None:
    """A database belongs to the first cluster that claims it; another, or files, are refused unless it is adopted (D-46)."""
    first = await Publisher.open(fresh_database.publisher, cluster_uid="cluster-1")
    await first.close()
    for foreign in ("cluster-2", None):
        with pytest.raises(ForeignCluster, match="cluster-1"):
            await Publisher.open(fresh_database.publisher, cluster_uid=foreign)
    with pytest.raises(ForeignCluster):
        await migrate(fresh_database.owner, cluster_uid="cluster-2")
    await migrate(fresh_database.owner, cluster_uid="cluster-2", adopt=True)
    second = await Publisher.open(fresh_database.publisher, cluster_uid="cluster-2")
    await second.close()
    await migrate(fresh_database.owner, adopt=True)
    third = await Publisher.open(fresh_database.publisher, cluster_uid="cluster-3")
    await third.close()
    with pytest.raises(ForeignCluster, match="cluster-3"):
        await Publisher.open(fresh_database.publisher, cluster_uid="cluster-2")


async def test_writer_comes_back(fresh_database: Database) -> None:
    """A writer whose connection was ended connects anew for its next attempt."""
    publisher = await Publisher.open(fresh_database.publisher)
    await publisher.load()
    connection = await asyncpg.connect(fresh_database.superuser)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'metagate writer'"
    )
    await connection.close()
    try:
        await publisher.publish(change_of([somebody()]))
    except Exception:  # the first attempt may meet the dead connection
        await publisher.load()
        await publisher.publish(change_of([somebody()]))
    await publisher.close()


async def test_issuer_keys_of_the_refresher(fresh_database: Database) -> None:
    """Refreshed keys are stored beside the compiler's, reach readers by mark, touch nobody when only seen again, and leave."""
    issuer = {"issuer": "https://i", "name": "i", "audiences": ["metagate"], "algorithms": ["RS256"],
              "max_token_lifetime_seconds": 60, "source": "URL", "url": "https://i/jwks", "generation": 1}  # fmt: skip
    publisher = await Publisher.open(fresh_database.publisher)
    await publisher.load()
    await publisher.publish(Change(upserts={"issuer": [row(uuid4(), **issuer)]}))
    reader = await Reader.connect(fresh_database.api, size=1)
    start = await reader.credentials()
    assert (start.full, [issuer.issuer for issuer in start.issuers]) == (True, ["https://i"])
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    key = IssuerKeyRow("https://i", "k1", {"kty": "RSA", "n": "x"}, "RS256", moment, moment)
    await publisher.keep_issuer_keys([key])
    credentials = await reader.credentials(start.mark)
    assert (credentials.full, [(issuer_key.kid, issuer_key.jwk) for issuer_key in credentials.issuer_keys]) == (
        False,
        [("k1", {"kty": "RSA", "n": "x"})],
    )
    later = replace(key, last_seen=datetime(2026, 1, 2, tzinfo=UTC), misses=1)
    await publisher.keep_issuer_keys([later])
    assert await publisher.issuer_keys("https://i") == [later]
    assert (await reader.credentials(credentials.mark)).mark == credentials.mark
    await publisher.keep_issuer_keys([replace(later, retired_at=moment)])
    retired = await reader.credentials(credentials.mark)
    assert (retired.issuer_keys, retired.gone_issuer_keys) == ((), (("https://i", "k1"),))
    await publisher.keep_issuer_keys([later])
    await publisher.publish(Change(deletes={"issuer": [("https://i",)]}))
    gone = await reader.credentials(retired.mark)
    assert (gone.gone_issuers, gone.gone_issuer_keys) == (("https://i",), (("https://i", "k1"),))
    assert await publisher.issuer_keys("https://i") == []
    await publisher.close()
    await reader.close()


async def test_private_keys_are_refused(fresh_database: Database) -> None:
    """The table itself refuses a key with private or symmetric parts."""
    publisher = await Publisher.open(fresh_database.publisher)
    await publisher.load()
    with pytest.raises(Exception, match="refused a value"):
        await publisher.keep_issuer_keys([IssuerKeyRow("i", "k", {"kty": "oct", "k": "c2VjcmV0"})])
    await publisher.close()


@pytest.mark.timeout(120)
async def test_no_mix_while_publishing(fresh_database: Database) -> None:
    """While revisions are published in a loop, 20,000 reads never mix two of them, and none goes backwards."""
    principal = somebody()
    publisher = await Publisher.open(fresh_database.publisher)
    await publisher.load()
    published: dict[int, tuple[str, int]] = {}

    async def turn(n: int) -> None:
        principal.body, principal.sla_seconds = f'{{"generation":{n}}}'.encode(), n + 1
        digest = principal.digest
        assert digest is not None
        # Known before readers can see it: the revision is decided by this writer alone.
        published[n + 1] = (digest, principal.sla_seconds)
        assert await publisher.publish(replace(change_of([principal]), audit=())) == n + 1

    await turn(0)
    reading, reads, turns = True, 0, 1
    reader = await Reader.connect(fresh_database.api, size=4, acquire_timeout=10, query_timeout=10)

    async def write() -> None:
        nonlocal turns
        while reading:
            await turn(turns)
            turns += 1

    async def read() -> None:
        nonlocal reads
        last, known = 0, None
        # Until both have happened often enough: on a busy machine the writer is slower than the readers.
        while reads < 20_000 or turns <= 20:
            for answer in await reader.bootstrap([principal.ask(expected_digest=known) for _ in range(32)]):
                reads += 1
                digest, sla = published[answer.revision]
                assert answer.digest == digest
                assert answer.revision >= last
                last = answer.revision
                if answer.outcome is BootstrapOutcome.OPENED:
                    assert (answer.deadline_at - answer.issued_at).total_seconds() == sla
                else:
                    assert (answer.outcome, answer.body) == (
                        BootstrapOutcome.PACKET,
                        f'{{"generation":{answer.revision - 1}}}'.encode(),
                    )
                known = digest

    writer = asyncio.create_task(write(), name="writer")
    try:
        await asyncio.gather(*(read() for _ in range(4)))
    finally:
        reading = False
        await writer
        await reader.close()
        await publisher.close()
    assert turns > 20


@pytest.mark.invariant("INV-009")
@pytest.mark.parametrize("table", ["binding", "subject", "api_key"])
async def test_one_of_each(fresh_database: Database, table: str) -> None:
    """The tables hold one binding per principal and one principal per subject and key; not even the owner can add another."""
    principal, rival = somebody(), somebody("rival")
    publisher = await Publisher.open(fresh_database.publisher)
    await publisher.load()
    await publisher.publish(change_of([principal, rival]))
    await publisher.close()
    connection = await asyncpg.connect(fresh_database.owner)
    columns = {"binding": "principal_key", "subject": "subject", "api_key": "sha256"}
    taken = {"binding": principal.name, "subject": principal.token.subject, "api_key": principal.key}
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute(
            f"UPDATE metagate.{table} SET tenant = $1, {columns[table]} = $2 WHERE principal_key = 'rival'",
            principal.tenant,
            taken[table],
        )
    await connection.close()


@pytest.mark.invariant("INV-032")
async def test_tampered_packet_is_shown_before_anything_is_written(fresh_database: Database) -> None:
    """A packet that got into the database past the compiler comes to the process with its body, before any receipt exists."""
    principal = somebody()
    publisher = await Publisher.open(fresh_database.publisher)
    await publisher.load()
    await publisher.publish(change_of([principal]))
    await publisher.close()
    connection = await asyncpg.connect(fresh_database.owner)
    offending, body = "f" * 64, b'{"policy":{"tasks":[]}}'
    await connection.execute("INSERT INTO metagate.packet (digest, body) VALUES ($1, $2)", offending, body)
    await connection.execute("UPDATE metagate.binding SET digest = $1", offending)
    reader = await Reader.connect(fresh_database.api, size=1)
    [answer] = await reader.bootstrap([principal.ask(idempotency_key="k")])
    sessions = await connection.fetchval("SELECT count(*) FROM metagate.startup")
    await connection.close()
    await reader.close()
    assert (answer.outcome, answer.digest, answer.body, sessions) == (BootstrapOutcome.PACKET, offending, body, 0)


async def test_calls_of_one_publisher_wait_for_each_other(fresh_database: Database) -> None:
    """The reconciler and the refresher of keys share it: what they ask at the same time is answered one by one."""
    publisher = await Publisher.open(fresh_database.publisher)
    await publisher.load()
    answers = await asyncio.gather(
        publisher.publish(change_of([somebody()])),
        *(publisher.issuers() for _ in range(5)),
        publisher.keep_issuer_keys([]),
        publisher.issuer_keys("none"),
        publisher.load(),
    )
    await publisher.close()
    assert answers[0] == 1
    assert answers[-1].revision == 1
