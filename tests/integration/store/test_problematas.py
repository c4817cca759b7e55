"""Problematas in the database: what a gateway follows, and who announced what."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from tests.databases import Database
from tests.integration.store.worlds import Somebody, change_of, row, somebody

from metagate_crds.canonical_json import canonical, digest
from metagate_store.problematas import Announcement, AnnouncementOutcome
from metagate_store.publisher import Publisher
from metagate_store.reader import Reader
from metagate_store.rows import Change

GATEWAY = "mail-gateway"


def problemata_body(version: str = "3", capabilities: Sequence[str] = ("doc.review", "mail.send")) -> dict[str, Any]:
    """As the compiler makes it."""
    return {
        "version": version,
        "gateway": {"policyProfileRef": {"name": "front-desk"}, "surfaceId": "mail", "principals": [GATEWAY]},
        "payloadKind": "plan_request",
        "exposeTools": False,
        "capabilities": [{"id": name} for name in capabilities],
        "topology": [],
    }


def problemata_row(
    tenant: UUID, name: str = "mail", body: dict[str, Any] | None = None, owner: str | None = None
) -> dict[str, Any]:
    body = body or problemata_body()
    return row(
        owner or uuid4(),
        tenant=str(tenant),
        name=name,
        body=body,
        content_hash=digest(canonical(body)),
        generation=1,
    )


def announcement(tenant: UUID, instance: str = "pod-0", **changes: Any) -> Announcement:
    values: dict[str, Any] = {
        "tenant": tenant,
        "problemata": "mail",
        "instance": instance,
        "principal_key": GATEWAY,
        "endpoint": "http://mail:8005/mcp",
        "version": "3",
        "capabilities": ("doc.review",),
        "health": "ok",
        **changes,
    }
    return Announcement(**values)


@pytest_asyncio.fixture(loop_scope="session")
async def publisher(database: Database) -> AsyncIterator[Publisher]:
    made = await Publisher.open(database.publisher)
    await made.load()
    yield made
    await made.close()


async def served(publisher: Publisher, **changes: Any) -> Somebody:
    """A tenant with one Problemata."""
    person = somebody()
    await publisher.publish(change_of([person], more={"problemata": [problemata_row(person.tenant, **changes)]}))
    return person


async def age(database: Database, tenant: UUID, seconds: float, instance: str = "pod-0") -> None:
    """Let an announcement be so old."""
    connection = await asyncpg.connect(database.superuser)
    await connection.execute(
        "UPDATE metagate.problemata_instance SET announced_at = now() - make_interval(secs => $1) "
        "WHERE tenant = $2 AND instance = $3",
        seconds, tenant, instance,
    )  # fmt: skip
    await connection.close()


async def followed(database: Database, known: Sequence[str] = ()) -> dict[tuple[UUID, str], Any]:
    """As the identity role reads it."""
    connection = await asyncpg.connect(database.identity)
    try:
        rows = await connection.fetch("SELECT * FROM metagate.problematas($1)", list(known))
    finally:
        await connection.close()
    return {(item["tenant"], item["name"]): item for item in rows}


@pytest.mark.invariant("INV-119")
async def test_a_gateway_follows_every_problemata(database: Database, publisher: Publisher) -> None:
    """Each body once, none where the caller holds it; what is gone is absent, and so is a tenant that left."""
    body = problemata_body(version=uuid4().hex[:8])
    first, second = await served(publisher, body=body), await served(publisher, body=body)
    read = await followed(database)
    rows = [read[person.tenant, "mail"] for person in (first, second)]
    assert rows[0]["namespace"] == f"team-{first.tenant.hex[:8]}"
    assert {item["content_hash"] for item in rows} == {digest(canonical(body))}
    bodies = [item["body"] for item in rows if item["body"] is not None]
    assert [json.loads(item) for item in bodies] == [body]
    again = await followed(database, [item["content_hash"] for item in read.values()])
    assert again.keys() == read.keys()
    assert all(item["body"] is None for item in again.values())
    await publisher.publish(
        Change(deletes={"problemata": [(str(first.tenant), "mail")]}, retired_tenants=[second.tenant])
    )
    assert not {(first.tenant, "mail"), (second.tenant, "mail")} & (await followed(database)).keys()


@pytest.mark.invariant("INV-119")
async def test_an_announcement_makes_it_available(database: Database, publisher: Publisher, reader: Reader) -> None:
    """Within 45 seconds of an ok; derived by the database's clock, and never stored."""
    tenant = (await served(publisher)).tenant
    item = await reader.problematas.one(tenant, "mail")
    assert item is not None
    assert (item.available, list(item.instances)) == (False, [])
    assert (item.version, item.payload_kind, item.policy_profile, item.surface) == (
        "3",
        "plan_request",
        "front-desk",
        "mail",
    )
    assert list(item.capabilities) == ["doc.review", "mail.send"]
    assert await reader.problematas.announce(announcement(tenant, health="degraded")) is AnnouncementOutcome.ANNOUNCED
    assert not (await available(reader, tenant))
    assert await reader.problematas.announce(announcement(tenant)) is AnnouncementOutcome.ANNOUNCED
    assert await available(reader, tenant)
    await age(database, tenant, 44)
    assert await available(reader, tenant)
    await age(database, tenant, 46)
    assert not await available(reader, tenant)
    await reader.problematas.announce(announcement(tenant))
    assert await reader.problematas.withdraw(tenant, "mail", "pod-0", GATEWAY) is AnnouncementOutcome.WITHDRAWN
    assert await reader.problematas.withdraw(tenant, "mail", "pod-0", GATEWAY) is AnnouncementOutcome.WITHDRAWN
    item = await reader.problematas.one(tenant, "mail")
    assert item is not None
    assert (item.available, list(item.instances)) == (False, [])


async def available(reader: Reader, tenant: UUID) -> bool:
    item = await reader.problematas.one(tenant, "mail")
    assert item is not None
    return item.available


@pytest.mark.invariant("INV-119")
async def test_who_may_announce_what(publisher: Publisher, reader: Reader) -> None:
    """Served, by its principals, in its version and with its capabilities; in this order, and nothing is stored otherwise."""
    tenant, other = (await served(publisher)).tenant, (await served(publisher)).tenant
    refused = [
        (announcement(tenant, problemata="unknown"), AnnouncementOutcome.UNKNOWN),
        (announcement(uuid4()), AnnouncementOutcome.UNKNOWN),
        (announcement(tenant, principal_key="indexer", version="2"), AnnouncementOutcome.NOT_PERMITTED),
        (announcement(tenant, version="2"), AnnouncementOutcome.OTHER_VERSION),
        (announcement(tenant, capabilities=("doc.review", "other")), AnnouncementOutcome.OTHER_VERSION),
    ]
    for asked, outcome in refused:
        assert await reader.problematas.announce(asked) is outcome, asked
    assert await reader.problematas.withdraw(tenant, "unknown", "pod-0", GATEWAY) is AnnouncementOutcome.UNKNOWN
    assert await reader.problematas.withdraw(tenant, "mail", "pod-0", "indexer") is AnnouncementOutcome.NOT_PERMITTED
    await reader.problematas.announce(announcement(other))
    item = await reader.problematas.one(tenant, "mail")
    assert item is not None
    assert list(item.instances) == [], "another tenant's announcement is not seen here"


async def test_another_version_is_not_available(publisher: Publisher, reader: Reader) -> None:
    """What was announced of version 3 says nothing of version 4."""
    first = problemata_row(uuid4())
    person = somebody()
    first = problemata_row(person.tenant)
    await publisher.publish(change_of([person], more={"problemata": [first]}))
    await reader.problematas.announce(announcement(person.tenant))
    fourth = problemata_row(person.tenant, body=problemata_body("4"), owner=first["owner"])
    await publisher.publish(Change(upserts={"problemata": [fourth]}))
    item = await reader.problematas.one(person.tenant, "mail")
    assert item is not None
    assert (item.available, [entry["version"] for entry in item.instances]) == (False, ["3"])
    await reader.problematas.announce(announcement(person.tenant, version="4"))
    assert await available(reader, person.tenant)


async def test_instances_leave(database: Database, publisher: Publisher, reader: Reader) -> None:
    """The newest 64 stay, nobody silent for an hour, and none of a Problemata that is no longer served."""
    tenant = (await served(publisher)).tenant
    for number in range(66):
        await reader.problematas.announce(announcement(tenant, f"pod-{number:02d}"))
    item = await reader.problematas.one(tenant, "mail")
    assert item is not None
    assert [entry["instance"] for entry in item.instances] == [f"pod-{number:02d}" for number in range(2, 66)]
    await age(database, tenant, 3_601, "pod-65")
    item = await reader.problematas.one(tenant, "mail")
    assert item is not None
    assert len(item.instances) == 63
    await reader.problematas.announce(announcement(tenant, "pod-64"))
    connection = await asyncpg.connect(database.superuser)
    count = "SELECT count(*) FROM metagate.problemata_instance WHERE tenant = $1"
    assert await connection.fetchval(count, tenant) == 63
    await publisher.publish(Change(deletes={"problemata": [(str(tenant), "mail")]}))
    assert await connection.fetchval(count, tenant) == 0
    await connection.close()
    assert await reader.problematas.announce(announcement(tenant)) is AnnouncementOutcome.UNKNOWN


async def test_announcing_while_it_is_published(publisher: Publisher, reader: Reader) -> None:
    """Eight gateways and a writer that takes it away and brings it back: each announcement is recorded or refused."""
    person = somebody()
    declared = problemata_row(person.tenant)
    await publisher.publish(change_of([person], more={"problemata": [declared]}))
    outcomes: set[AnnouncementOutcome] = set()

    async def announce(number: int) -> None:
        for _ in range(20):
            outcomes.add(await reader.problematas.announce(announcement(person.tenant, f"pod-{number}")))

    async def publish() -> None:
        for _ in range(10):
            await publisher.publish(Change(deletes={"problemata": [(str(person.tenant), "mail")]}))
            await publisher.publish(Change(upserts={"problemata": [declared]}))

    await asyncio.gather(publish(), *(announce(number) for number in range(8)))
    assert outcomes <= {AnnouncementOutcome.ANNOUNCED, AnnouncementOutcome.UNKNOWN}
    assert AnnouncementOutcome.ANNOUNCED in outcomes


async def test_pages(publisher: Publisher, reader: Reader) -> None:
    """By name; a page ends at its limit or at a mebibyte, and the first item always comes."""
    person = somebody()
    many = [f"capability-{number:03d}-{'x' * 100}" for number in range(128)]
    rows = [problemata_row(person.tenant, f"p{number:02d}", problemata_body(capabilities=many)) for number in range(80)]
    await publisher.publish(change_of([person], more={"problemata": rows}))
    names, after, sizes = [], None, []
    while True:
        page = await reader.problematas.page(person.tenant, after=after, limit=70)
        names += [item.name for item in page.items]
        sizes.append(sum(len(json.dumps(list(item.capabilities))) for item in page.items))
        after = page.next
        if after is None:
            break
    assert names == [f"p{number:02d}" for number in range(80)]
    assert len(sizes) > 1
    assert max(sizes) <= 1_048_576
    first = await reader.problematas.page(person.tenant, limit=3)
    assert (len(first.items), first.next) == (3, "p02")
    last = await reader.problematas.page(person.tenant, after="p78", limit=1)
    assert ([item.name for item in last.items], last.next) == (["p79"], None)


async def test_a_page_of_many_instances(database: Database, publisher: Publisher) -> None:
    """Five hundred Problematas with 64 instances each are pages within the API's limits of time and size, and all come."""
    person = somebody()
    rows = [problemata_row(person.tenant, f"p{number:03d}") for number in range(500)]
    await publisher.publish(change_of([person], more={"problemata": rows}))
    connection = await asyncpg.connect(database.superuser)
    await connection.execute(
        "INSERT INTO metagate.problemata_instance "
        "SELECT p.tenant, p.name, 'pod-' || i, $2, 'http://' || repeat('a', 100), '3', '{}', 'ok', now() "
        "FROM metagate.problemata AS p, generate_series(1, 64) AS i WHERE p.tenant = $1",
        person.tenant, GATEWAY,
    )  # fmt: skip
    await connection.close()
    reader = await Reader.connect(database.api, size=1)
    names: list[str] = []
    after = None
    while True:
        page = await reader.problematas.page(person.tenant, after=after, limit=500)
        assert 0 < sum(len(json.dumps(list(item.instances))) for item in page.items) <= 1_048_576
        assert all(item.available and len(item.instances) == 64 for item in page.items)
        names += [item.name for item in page.items]
        after = page.next
        if after is None:
            break
    await reader.close()
    assert names == [f"p{number:03d}" for number in range(500)]


async def test_rights(database: Database) -> None:
    """The API announces through a function only; the gateway's role may not, and follows instead."""
    for role, statement in (
        ("api", "INSERT INTO metagate.problemata_instance SELECT"),
        ("api", "SELECT * FROM metagate.problemata_instance"),
        ("api", "SELECT * FROM metagate.problematas('{}')"),
        ("identity", "SELECT * FROM metagate.problemata"),
        ("identity", "SELECT metagate.withdraw(gen_random_uuid(), '', '', '')"),
        ("publisher", "SELECT * FROM metagate.problemata_instance"),
    ):
        connection = await asyncpg.connect(getattr(database, role))
        try:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(statement)
        finally:
            await connection.close()
