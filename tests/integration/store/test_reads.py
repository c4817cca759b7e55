"""What is read besides: identities, sessions, the admin views, topology, state."""

from dataclasses import replace
from uuid import UUID, uuid4

import asyncpg
import pytest
from tests.databases import Database
from tests.integration.store.worlds import Somebody, digest_of, publish, row, somebody
from uuid_utils.compat import uuid7

from metagate_store.errors import StoreUnavailable
from metagate_store.publisher import Publisher
from metagate_store.reader import Reader
from metagate_store.rows import BootstrapOutcome, Change, CredentialRow, PacketOutcome, PacketQuery, PodRow

KINDS = (
    "principals",
    "profiles",
    "manifests",
    "bindings",
    "secret-refs",
    "policy-profiles",
    "problematas",
    "plan-templates",
)


def named(table: str, tenant: UUID, name: str, body: dict) -> dict:
    values = {"tenant": str(tenant), "name": name, "body": body, "generation": 1}
    if table == "policy_profile":
        values["policy_hash"] = digest_of(name.encode())
    if table in {"problemata", "plan_template"}:
        values["content_hash"] = digest_of(name.encode())
    return row(uuid4(), **values)


async def test_resolve(database: Database, reader: Reader) -> None:
    """Keys and subjects resolve to their principal, in order; unknown ones to nobody; suspension is told."""
    principal, suspended = somebody(), somebody("suspended", suspended=True)
    await publish(database.publisher, principal, suspended)
    resolved = await reader.resolve(
        [principal.credential, CredentialRow("key", "", "0" * 64), suspended.token, replace(principal.token, kid="x")]
    )
    assert [
        item and (item.tenant, item.principal_key, item.suspended, item.type, item.scope, item.rights)
        for item in resolved
    ] == [
        (principal.tenant, principal.name, False, "component", "Namespace", ()),
        None,
        (suspended.tenant, suspended.name, True, "component", "Namespace", ()),
        None,
    ]
    assert resolved[0] is not None
    assert resolved[0].namespace == f"team-{principal.tenant.hex[:8]}"
    assert resolved[0].namespace_created is not None
    assert await reader.resolve([]) == []


async def test_more_credentials_than_a_request_has_time_for(fresh_database: Database) -> None:
    """Loading every key may take longer than any request: at the start, and when a look at the changes took too long."""
    principal = somebody()
    await publish(fresh_database.publisher, principal)
    admin = await asyncpg.connect(fresh_database.superuser)
    add = (
        "INSERT INTO metagate.api_key (sha256, key_id, tenant, principal_key, owner, content, revision) "
        "SELECT encode(sha256(n::text::bytea), 'hex'), n::text, $1, $2, gen_random_uuid(), '', 1 FROM generate_series($3::int, $4::int) n"
    )
    # The second is what a process has that is busy, or slower than its server, with rows it was sent already.
    for setting in ("statement_timeout = '20ms'", "idle_in_transaction_session_timeout = '1ms'"):
        await admin.execute(f"ALTER ROLE metagate_api IN DATABASE {fresh_database.name} SET {setting}")
    await admin.execute(add, principal.tenant, principal.name, 1, 10_000)
    reader = await Reader.connect(fresh_database.api, size=1)
    first = await reader.credentials()
    assert len(first.api_keys) == 10_001
    await admin.execute(add, principal.tenant, principal.name, 10_001, 20_000)
    with pytest.raises(StoreUnavailable):
        await reader.credentials(first.mark)
    second = await reader.credentials(first.mark)
    assert (len(second.api_keys), second.full) == (10_000, False)
    assert (await reader.credentials(second.mark)).api_keys == ()
    await reader.close()
    await admin.close()


async def test_credentials_by_mark(fresh_database: Database) -> None:
    """The loader tells everything first, then only what changed, and what was taken back; an older database is a full load."""
    principal, other = somebody(), somebody("other")
    reader = await Reader.connect(fresh_database.api, size=1)
    empty = await reader.credentials()
    assert (empty.mark, empty.full, empty.api_keys) == (0, True, ())
    await publish(fresh_database.publisher, principal)
    first = await reader.credentials(empty.mark)
    assert [(key.sha256, key.key_id) for key in first.api_keys] == [(principal.key, principal.key[:10])]
    assert [(row.tenant, row.principal_key) for row in await reader.resolve([principal.credential])] == [
        (principal.tenant, principal.name)
    ]
    await publish(fresh_database.publisher, other)
    second = await reader.credentials(first.mark)
    assert (second.full, [api_key.sha256 for api_key in second.api_keys], second.gone_api_keys) == (
        False,
        [other.key],
        (),
    )
    publisher = await Publisher.open(fresh_database.publisher)
    await publisher.load()
    await publisher.publish(Change(deletes={"api_key": [(principal.key,)]}))
    await publisher.close()
    third = await reader.credentials(second.mark)
    assert (third.api_keys, third.gone_api_keys) == ((), (principal.key,))
    fourth = await reader.credentials(third.mark)
    assert (fourth.mark, fourth.api_keys, fourth.gone_api_keys) == (third.mark, (), ())
    again = await reader.credentials(third.mark + 1000)
    assert (again.full, again.mark, [api_key.sha256 for api_key in again.api_keys]) == (True, third.mark, [other.key])
    await reader.close()


async def test_packet_now(database: Database, reader: Reader) -> None:
    """The owner of a startup reads the packet as of now, writes nothing, and everybody else is refused (D-47)."""
    principal = somebody(components=("indexer_*",))
    neighbour, stranger = somebody("neighbour", tenant=principal.tenant), somebody("stranger")
    await publish(database.publisher, principal, neighbour, stranger)
    bound = (await reader.bootstrap([principal.ask(pod=PodRow("a"))]))[0]
    opened = (await reader.bootstrap([principal.ask()]))[0]
    assert opened.startup_id is not None
    assert bound.startup_id is not None

    def ask(me: Somebody, startup: UUID, **kwargs):
        return PacketQuery(me.tenant, me.name, kwargs.pop("credential", me.credential), startup, **kwargs)

    now = await reader.packet(ask(principal, opened.startup_id))
    assert (now.outcome, now.digest, now.body, now.revision) == (
        PacketOutcome.SERVED,
        principal.digest,
        principal.body,
        opened.revision,
    )
    assert (now.packet_id, now.issued_at, now.deadline_at, now.status, now.component_key) == (
        opened.packet_id, opened.issued_at, opened.deadline_at, "OPEN", "indexer_1",
    )  # fmt: skip
    assert (await reader.packet(ask(principal, opened.startup_id, expected_digest=principal.digest))).body is None
    refusals = {
        PacketOutcome.UNKNOWN: ask(stranger, opened.startup_id),
        PacketOutcome.NOT_YOURS: ask(neighbour, opened.startup_id),
        PacketOutcome.NOT_THIS_POD: ask(principal, bound.startup_id),
        PacketOutcome.CREDENTIAL_REVOKED: ask(principal, opened.startup_id, credential=neighbour.credential),
        PacketOutcome.UNKNOWN_PRINCIPAL: ask(somebody("ghost"), opened.startup_id),
    }
    for outcome, requests in refusals.items():
        answer = await reader.packet(requests)
        assert (answer.outcome, answer.digest, answer.body, answer.component_key) == (outcome, None, None, None)
    principal.body = b'{"changed":true}'
    await publish(database.publisher, principal)
    assert (await reader.packet(ask(principal, opened.startup_id))).body == principal.body
    principal.components = ("other",)
    await publish(database.publisher, principal)
    assert (await reader.packet(ask(principal, opened.startup_id))).outcome is PacketOutcome.COMPONENT_NOT_PERMITTED


async def test_sessions_page_by_page(fresh_database: Database) -> None:
    """Sessions come newest first, page by page, without gap or repetition while new ones arrive; filters select."""
    principal, other = somebody(), somebody("other")
    await publish(fresh_database.publisher, principal, other)
    reader = await Reader.connect(fresh_database.api, size=1)
    for n in range(7):
        await reader.bootstrap([principal.ask(f"c{n % 2}")])
    await reader.bootstrap([other.ask()])
    everything = (await reader.startups(principal.tenant)).items
    assert [item.startup_id for item in everything] == sorted((item.startup_id for item in everything), reverse=True)
    assert len(everything) == 7
    await reader.report(
        [principal.tells(everything[2].startup_id), principal.tells(everything[3].startup_id, "FAILED")]
    )
    observations, after = [], None
    while True:
        page = await reader.startups(principal.tenant, after=after, limit=3)
        observations += page.items
        after = page.next
        await reader.bootstrap([principal.ask("late")])
        if after is None:
            break
    assert [item.startup_id for item in observations] == [item.startup_id for item in everything]
    ready = await reader.startups(principal.tenant, status="READY")
    failed = await reader.startups(
        principal.tenant, status="FAILED", component_key=everything[3].component_key, principal_key=principal.name
    )
    assert [item.startup_id for item in ready.items] == [everything[2].startup_id]
    assert [item.startup_id for item in failed.items] == [everything[3].startup_id]
    assert (await reader.startups(principal.tenant, status="FAILED", principal_key="nobody")).items == ()
    wide, after = [], None
    while True:
        page = await reader.startups(None, after=after, limit=4)
        wide += page.items
        after = page.next
        if after is None:
            break
    assert len(wide) == len({item.startup_id for item in wide}) == 7 + 3 + 1
    assert {item.tenant for item in wide} == {principal.tenant, other.tenant}
    await reader.close()


async def test_filters_look_no_further_than_a_span(fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rare match among many sessions is found page by page, each of bounded effort, none twice."""
    principal, other = somebody(), somebody("other")
    await publish(fresh_database.publisher, principal, other)
    reader = await Reader.connect(fresh_database.api, size=1)
    booted = await reader.bootstrap([principal.ask() for _ in range(23)] + [other.ask() for _ in range(4)])
    failed = [booted[at].startup_id for at in (0, 9, 10, 22)]
    await reader.report([principal.tells(item, "FAILED") for item in failed])
    monkeypatch.setattr("metagate_store.reader.SPAN", 5)
    for tenant in (principal.tenant, None):
        observations, after, pages = [], None, 0
        while True:
            page = await reader.startups(tenant, status="FAILED", after=after, limit=2)
            observations += [item.startup_id for item in page.items]
            after, pages = page.next, pages + 1
            if after is None:
                break
        assert observations == failed[::-1]
        assert pages >= 5
    assert (await reader.startups(principal.tenant, limit=500)).next is None
    await reader.close()


@pytest.mark.invariant("INV-038")
async def test_admin_views(fresh_database: Database) -> None:
    """Lists show what is served, per tenant, in name order, page by page, without key material; nothing of other tenants."""
    principal, other = somebody(), somebody("other")
    second = somebody("second", tenant=principal.tenant, type="admin")
    profile = {
        "secretRefs": [{"name": "db", "kind": "Env", "ref": "DB", "required": False}, {"name": "ca", "ref": "CA"}]
    }
    await publish(
        fresh_database.publisher, principal, second, other,
        more={
            "profile": [named("profile", principal.tenant, "worker", profile), named("profile", other.tenant, "alien", {})],
            "manifest": [named("manifest", principal.tenant, f"m{n}", {"version": n}) for n in range(5)],
            "policy_profile": [named("policy_profile", principal.tenant, "strict", {"limits": {}})],
            "problemata": [named("problemata", principal.tenant, "mail", {"version": "1"})],
            "plan_template": [
                named("plan_template", principal.tenant, "review", {"capability": "review"}),
                named("plan_template", other.tenant, "alien", {"capability": "alien"}),
            ],
        },
    )  # fmt: skip
    reader = await Reader.connect(fresh_database.api, size=1)
    names = {kind: [item.name for item in (await reader.listing(kind, principal.tenant)).items] for kind in KINDS}
    assert names == {
        "principals": ["indexer", "second"],
        "profiles": ["worker"],
        "manifests": ["m0", "m1", "m2", "m3", "m4"],
        "bindings": ["indexer-binding", "second-binding"],
        "secret-refs": ["worker:ca", "worker:db"],
        "policy-profiles": ["strict"],
        "problematas": ["mail"],
        "plan-templates": ["review"],
    }
    first = await reader.listing("manifests", principal.tenant, limit=3)
    rest = await reader.listing("manifests", principal.tenant, after=first.next, limit=3)
    assert ([item.name for item in rest.items], rest.next) == (["m3", "m4"], None)
    item = await reader.item("principals", principal.tenant, "indexer")
    assert item is not None
    assert item.namespace == f"team-{principal.tenant.hex[:8]}"
    assert (item.body["api_keys"], item.body["binding"]) == (
        [{"id": principal.key[:10], "expires_at": None}],
        "indexer-binding",
    )
    assert item.body["subjects"] == [{"issuer": principal.token.issuer, "subject": principal.token.subject}]
    assert principal.key not in str(item.body)
    secret = await reader.item("secret-refs", principal.tenant, "worker:db")
    assert secret is not None
    assert secret.body == {"profile": "worker", "name": "db", "ref_kind": "Env", "ref_name": "DB", "required": False}
    assert await reader.item("profiles", principal.tenant, "alien") is None
    wide, after = [], None
    while True:
        page = await reader.listing("principals", None, after=after, limit=1)
        wide += page.items
        after = page.next
        if after is None:
            break
    assert sorted((item.tenant, item.name) for item in wide) == sorted(
        [(principal.tenant, "indexer"), (principal.tenant, "second"), (other.tenant, "other")]
    )
    policy = await reader.policy_profile(principal.tenant, "strict")
    assert policy is not None
    assert (policy.name, policy.body, policy.policy_hash, policy.generation) == (
        "strict",
        {"limits": {}},
        digest_of(b"strict"),
        1,
    )
    assert await reader.policy_profile(other.tenant, "strict") is None
    await reader.close()


@pytest.mark.invariant("INV-041")
async def test_topology(database: Database, reader: Reader) -> None:
    """Topology shows the tenant's principals, permitted and seen components, services and who uses them, and nobody else's."""
    services = b'{"services":{"db":{"type":"postgres","endpoint":"tcp://db:1"},"mem":{"type":"memorygate","endpoint":"http://m:1"}}}'
    principal = somebody(components=("a", "b_*"), body=services)
    second = somebody(
        "second", tenant=principal.tenant, body=b'{"services":{"db":{"type":"postgres","endpoint":"tcp://db:1"}}}'
    )
    unbound = somebody("unbound", tenant=principal.tenant, bound=False)
    revision = await publish(database.publisher, principal, second, unbound, somebody("alien"))
    assert (await reader.bootstrap([principal.ask("b_1"), principal.ask("a"), principal.ask("a")]))[
        0
    ].outcome is BootstrapOutcome.OPENED
    topology = await reader.topology(principal.tenant)
    assert topology.revision == revision
    assert [
        (node.principal_key, node.components, node.seen, node.profile, node.services) for node in topology.principals
    ] == [
        ("indexer", ("a", "b_*"), ("a", "b_1"), "worker", ("db", "mem")),
        ("second", ("*",), (), "worker", ("db",)),
        ("unbound", (), (), None, ()),
    ]
    assert [(service.name, service.type, service.endpoint, service.used_by) for service in topology.services] == [
        ("db", "postgres", "tcp://db:1", ("indexer", "second")),
        ("mem", "memorygate", "http://m:1", ("indexer",)),
    ]


async def test_topology_by_pages(database: Database, reader: Reader) -> None:
    """Each page has its principals and the services that they use; together they are the whole."""
    tenant = uuid4()
    people = [somebody(f"p{n}", tenant=tenant, body=b'{"services":{"s%d":{}}}' % (n % 2)) for n in range(5)]
    await publish(database.publisher, *people, somebody("alien"))
    first = await reader.topology(tenant, limit=2)
    assert ([principal.principal_key for principal in first.principals], first.more) == (["p0", "p1"], True)
    assert [(service.name, service.used_by) for service in first.services] == [("s0", ("p0",)), ("s1", ("p1",))]
    last = await reader.topology(tenant, after="p3", limit=2)
    assert ([principal.principal_key for principal in last.principals], last.more) == (["p4"], False)
    assert [(service.name, service.used_by) for service in last.services] == [("s0", ("p4",))]
    exactly = await reader.topology(tenant, limit=5)
    assert (len(exactly.principals), exactly.more) == (5, False)


async def test_state(fresh_database: Database) -> None:
    """State says which revision is served since when, and which schema it has."""
    reader = await Reader.connect(fresh_database.api, size=1)
    empty = await reader.state()
    assert (empty.revision, empty.compiled_at, empty.mirror_waiting) == (0, None, 0)
    await publish(fresh_database.publisher, somebody())
    state = await reader.state()
    assert state.revision == 1
    assert state.compiled_at is not None
    assert state.compiled_at <= state.now
    assert state.schema_version >= 4
    await reader.close()


async def test_no_tenant_is_no_answer(database: Database, reader: Reader) -> None:
    """A tenant that does not exist, or none at all where one is needed, sees nothing."""
    await publish(database.publisher, somebody())
    nowhere = uuid4()
    assert (await reader.startups(nowhere)).items == ()
    assert await reader.startup(nowhere, uuid7()) is None
    for kind in KINDS:
        assert (await reader.listing(kind, nowhere)).items == ()
    assert await reader._pool.fetch("read.items", None, "principals", None, 10) == []
    assert await reader._pool.fetch("read.item", None, "principals", "indexer") == []
    assert (await reader.topology(nowhere)).principals == ()
