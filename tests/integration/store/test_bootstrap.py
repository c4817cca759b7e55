"""What a component gets when it asks to boot: one statement, one outcome per row, exactly one OPEN per answer."""

import asyncio
from collections import Counter
from uuid import uuid4

import asyncpg
import pytest
from tests.databases import Database
from tests.integration.store.worlds import publish, row, somebody

from metagate_store.reader import Reader
from metagate_store.rows import BootstrapOutcome, CredentialRow, PodRow

pytestmark = pytest.mark.timeout(120)


async def count(database: Database, table: str = "startup") -> int:
    connection = await asyncpg.connect(database.superuser)
    try:
        return await connection.fetchval(f"SELECT count(*) FROM metagate.{table}")
    finally:
        await connection.close()


@pytest.mark.invariant("INV-016", "INV-027")
async def test_opens_once(database: Database, reader: Reader) -> None:
    """One ask is one OPEN row, with deadline by the database's clock, and nothing else is written."""
    principal = somebody(sla_seconds=5)
    revision = await publish(database.publisher, principal)
    before = await count(database), await count(database, "idempotency"), await count(database, "outbox")
    ask = principal.ask(pod=PodRow("pod-1", "web-0", "node-1"))
    [answer] = await reader.bootstrap([ask])
    assert answer.outcome is BootstrapOutcome.OPENED
    assert (answer.startup_id, answer.packet_id) == (ask.startup_id, ask.packet_id)
    assert (answer.deadline_at - answer.issued_at).total_seconds() == 5
    assert (answer.digest, answer.body, answer.revision) == (principal.digest, None, revision)
    assert answer.compiled_at is not None
    after = await count(database), await count(database, "idempotency"), await count(database, "outbox")
    assert after == (before[0] + 1, before[1], before[2])
    stored = await reader.startup(principal.tenant, ask.startup_id)
    assert stored is not None
    assert (stored.status, stored.overdue, stored.late, stored.pod) == ("OPEN", False, None, ask.pod)


async def test_unknown_digest_inserts_nothing(database: Database, reader: Reader) -> None:
    """A process that expects no or another digest gets the body and must ask again: no receipt before the check (D-38)."""
    principal = somebody()
    await publish(database.publisher, principal)
    before = await count(database)
    for expected in (None, "0" * 64):
        [answer] = await reader.bootstrap([principal.ask(expected_digest=expected, idempotency_key="k")])
        assert (answer.outcome, answer.digest, answer.body) == (
            BootstrapOutcome.PACKET,
            principal.digest,
            principal.body,
        )
        assert answer.startup_id is None
    assert await count(database) == before


@pytest.mark.invariant("INV-007", "INV-016")
async def test_refusals_are_rows(database: Database, reader: Reader) -> None:
    """Every refusal is an answer of its own in a batch, writes nothing, and spoils no neighbour."""
    good = somebody()
    tenant = good.tenant
    narrow = somebody("narrow", tenant=tenant, components=("indexer", "db_*"))
    none = somebody("none", tenant=tenant, components=())
    suspended = somebody("suspended", tenant=tenant, suspended=True)
    unbound = somebody("unbound", tenant=tenant, bound=False)
    incomplete = somebody("incomplete", tenant=tenant, body=None)
    ghost = somebody("ghost", tenant=tenant)
    await publish(database.publisher, good, narrow, none, suspended, unbound, incomplete)
    before = await count(database)
    asks = [
        good.ask(),
        ghost.ask(),
        suspended.ask(),
        unbound.ask(),
        incomplete.ask(),
        narrow.ask("indexer"),
        narrow.ask("indexer_1"),
        narrow.ask("db_7"),
        narrow.ask("db"),
        none.ask("x"),
        good.ask(credential=CredentialRow("key", "", "0" * 64)),
        good.ask(credential=narrow.credential),
        good.ask(credential=good.token),
        good.ask(credential=narrow.token),
        good.ask(),
    ]
    outcomes = [answer.outcome for answer in await reader.bootstrap(asks)]
    assert outcomes == [
        BootstrapOutcome.OPENED,
        BootstrapOutcome.UNKNOWN_PRINCIPAL,
        BootstrapOutcome.SUSPENDED,
        BootstrapOutcome.NO_BINDING,
        BootstrapOutcome.BINDING_INCOMPLETE,
        BootstrapOutcome.OPENED,
        BootstrapOutcome.COMPONENT_NOT_PERMITTED,
        BootstrapOutcome.OPENED,
        BootstrapOutcome.COMPONENT_NOT_PERMITTED,
        BootstrapOutcome.COMPONENT_NOT_PERMITTED,
        BootstrapOutcome.CREDENTIAL_REVOKED,
        BootstrapOutcome.CREDENTIAL_REVOKED,
        BootstrapOutcome.OPENED,
        BootstrapOutcome.CREDENTIAL_REVOKED,
        BootstrapOutcome.OPENED,
    ]
    assert await count(database) == before + outcomes.count(BootstrapOutcome.OPENED)


async def test_what_a_credential_rests_on(database: Database, reader: Reader) -> None:
    """An expired key, a retired or unknown issuer key and an issuer that is gone refuse in the statement itself (D-45)."""
    principal = somebody()
    await publish(
        database.publisher,
        principal,
        more={
            "api_key": [
                row(principal.uid, sha256=f"{n:064x}", key_id=f"id{n}", tenant=str(principal.tenant), principal_key=principal.name, expires_at=at)
                for n, at in ((1, "2001-01-01T00:00:00Z"), (2, "2999-01-01T00:00:00Z"))
            ],
            "issuer": [
                row(
                    uuid4(), issuer=principal.token.issuer, name="test", audiences=["metagate"], algorithms=["RS256"],
                    max_token_lifetime_seconds=3600, source="Inline", url=None, generation=1,
                )
            ],
            "issuer_key": [row(uuid4(), issuer=issuer, kid="k1", jwk={"kty": "RSA"}, alg=None) for issuer in (principal.token.issuer, "gone")],
        },
    )  # fmt: skip
    connection = await asyncpg.connect(database.superuser)
    await connection.execute(
        "INSERT INTO metagate.issuer_key (issuer, kid, jwk, retired_at) VALUES ($1, 'old', '{}', now())",
        principal.token.issuer,
    )
    await connection.close()
    answers = await reader.bootstrap(
        [
            principal.ask(credential=CredentialRow("key", "", f"{1:064x}")),
            principal.ask(credential=CredentialRow("key", "", f"{2:064x}")),
            principal.ask(credential=CredentialRow("token", principal.token.issuer, principal.token.subject, "k1")),
            principal.ask(credential=CredentialRow("token", principal.token.issuer, principal.token.subject, "old")),
            principal.ask(credential=CredentialRow("token", principal.token.issuer, principal.token.subject, "nobody")),
            principal.ask(credential=CredentialRow("token", "gone", principal.token.subject, "k1")),
        ]
    )
    revoked, opened = BootstrapOutcome.CREDENTIAL_REVOKED, BootstrapOutcome.OPENED
    assert [answer.outcome for answer in answers] == [revoked, opened, opened, revoked, revoked, revoked]


async def test_replay(database: Database, reader: Reader) -> None:
    """Same key, principal and component: the answer as it was; another component or pod: refused; another principal: its own."""
    principal, other = somebody(), somebody("other")
    await publish(database.publisher, principal, other)
    pod = PodRow("pod-1")
    [first] = await reader.bootstrap([principal.ask(idempotency_key="k", pod=pod)])
    before = await count(database)
    again, conflict, elsewhere = await reader.bootstrap(
        [
            principal.ask(idempotency_key="k", pod=pod),
            principal.ask("indexer_2", idempotency_key="k", pod=pod),
            principal.ask(idempotency_key="k", pod=PodRow("pod-2")),
        ]
    )
    assert (first.outcome, again.outcome) == (BootstrapOutcome.OPENED, BootstrapOutcome.REPLAYED)
    assert (again.startup_id, again.packet_id, again.issued_at, again.deadline_at, again.digest, again.revision) == (
        first.startup_id, first.packet_id, first.issued_at, first.deadline_at, first.digest, first.revision,
    )  # fmt: skip
    assert (conflict.outcome, elsewhere.outcome) == (
        BootstrapOutcome.IDEMPOTENCY_CONFLICT,
        BootstrapOutcome.NOT_THIS_POD,
    )
    assert conflict.startup_id is None
    assert await count(database) == before
    [own] = await reader.bootstrap([other.ask(idempotency_key="k")])
    assert own.outcome is BootstrapOutcome.OPENED


async def test_replay_after_change(database: Database, reader: Reader) -> None:
    """A replay answers with the digest it booted with, and its body when the process expects another one."""
    principal = somebody()
    await publish(database.publisher, principal)
    [first] = await reader.bootstrap([principal.ask(idempotency_key="k")])
    old = principal.body
    principal.body = b'{"capabilities":{"new":true}}'
    await publish(database.publisher, principal)
    [again] = await reader.bootstrap([principal.ask(idempotency_key="k")])
    assert (again.outcome, again.digest, again.body, again.revision) == (
        BootstrapOutcome.REPLAYED,
        first.digest,
        old,
        first.revision,
    )
    [fresh] = await reader.bootstrap([principal.ask(idempotency_key="k2")])
    assert (fresh.outcome, fresh.digest) == (BootstrapOutcome.OPENED, principal.digest)
    assert fresh.revision > first.revision
    principal.components = ()
    await publish(database.publisher, principal)
    [denied] = await reader.bootstrap([principal.ask(idempotency_key="k")])
    assert denied.outcome is BootstrapOutcome.COMPONENT_NOT_PERMITTED


async def test_old_key_is_free_again(database: Database, reader: Reader) -> None:
    """After 24 hours a key opens a new session (D-41)."""
    principal = somebody()
    await publish(database.publisher, principal)
    [first] = await reader.bootstrap([principal.ask(idempotency_key="k")])
    connection = await asyncpg.connect(database.superuser)
    await connection.execute(
        "UPDATE metagate.idempotency SET opened_at = opened_at - interval '25 hours' WHERE startup_id = $1",
        first.startup_id,
    )
    await connection.close()
    [second] = await reader.bootstrap([principal.ask("indexer_9", idempotency_key="k")])
    [third] = await reader.bootstrap([principal.ask("indexer_9", idempotency_key="k")])
    assert (second.outcome, third.outcome) == (BootstrapOutcome.OPENED, BootstrapOutcome.REPLAYED)
    assert third.startup_id == second.startup_id != first.startup_id


async def test_one_key_twice_in_a_batch(database: Database, reader: Reader) -> None:
    """The first of a batch opens, its duplicates are answered from its row."""
    principal = somebody()
    await publish(database.publisher, principal)
    before = await count(database)
    answers = await reader.bootstrap(
        [
            principal.ask(idempotency_key="k"),
            principal.ask(idempotency_key="k"),
            principal.ask("other", idempotency_key="k"),
            principal.ask(idempotency_key="k", expected_digest=None),
        ]
    )
    assert [answer.outcome for answer in answers] == [
        BootstrapOutcome.OPENED, BootstrapOutcome.REPLAYED, BootstrapOutcome.IDEMPOTENCY_CONFLICT, BootstrapOutcome.PACKET,
    ]  # fmt: skip
    assert answers[1].startup_id == answers[0].startup_id
    assert await count(database) == before + 1


@pytest.mark.invariant("INV-016")
@pytest.mark.parametrize(("racers", "batch"), [(100, 1), (200, 1), (200, 8)])
async def test_one_key_many_racers(database: Database, racers: int, batch: int) -> None:
    """Racing asks with one key: one row, and everybody is told about it."""
    principal = somebody()
    await publish(database.publisher, principal)
    before = await count(database)
    reader = await Reader.connect(database.api, size=20, acquire_timeout=20, query_timeout=20)
    try:
        batches = await asyncio.gather(
            *(
                reader.bootstrap([principal.ask(idempotency_key="k") for _ in range(batch)])
                for _ in range(racers // batch)
            )
        )
    finally:
        await reader.close()
    answers = [answer for batch in batches for answer in batch]
    assert Counter(answer.outcome for answer in answers) == {
        BootstrapOutcome.OPENED: 1,
        BootstrapOutcome.REPLAYED: racers - 1,
    }
    told = {
        (a.startup_id, a.packet_id, a.issued_at, a.deadline_at, a.digest, a.revision, a.compiled_at) for a in answers
    }
    assert len(told) == 1
    assert await count(database) == before + 1


async def test_many_keys_many_batches(database: Database) -> None:
    """Batches that hold the same keys in different orders never wait for each other in a circle."""
    principal = somebody()
    await publish(database.publisher, principal)
    before = await count(database)
    reader = await Reader.connect(database.api, size=16, acquire_timeout=20, query_timeout=20)
    keys = [f"key-{n}" for n in range(32)]
    try:
        batches = await asyncio.gather(
            *(
                reader.bootstrap([principal.ask(idempotency_key=key) for key in (keys if turn % 2 else keys[::-1])])
                for turn in range(16)
            )
        )
    finally:
        await reader.close()
    outcomes = Counter(answer.outcome for batch in batches for answer in batch)
    assert outcomes == {BootstrapOutcome.OPENED: 32, BootstrapOutcome.REPLAYED: 32 * 15}
    assert await count(database) == before + 32


async def test_a_plan_of_a_small_table_is_right_for_a_large_one(database: Database) -> None:
    """A connection keeps its plans: while there are few bindings, the primary key must be chosen already, not the index of names
    that reads every binding of the tenant.
    """
    connection = await asyncpg.connect(database.superuser)
    try:
        await connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        rows = await connection.fetch(
            "EXPLAIN SELECT b.digest FROM metagate.binding AS b WHERE b.tenant = gen_random_uuid() AND b.principal_key = 'x'"
        )
        joined = await connection.fetch(
            "EXPLAIN SELECT b.digest FROM unnest(ARRAY[gen_random_uuid()], ARRAY['x']) AS a (tenant, principal_key) "
            "JOIN metagate.binding AS b ON b.tenant = a.tenant AND b.principal_key = a.principal_key"
        )
    finally:
        await connection.close()
    for plan in (rows, joined):
        assert "binding_pkey" in "\n".join(row[0] for row in plan), plan
