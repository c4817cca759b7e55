"""How boots go right now, in statements whose cost does not grow with what is kept."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from tests.databases import Database
from tests.integration.store.test_plan_templates import template_row
from tests.integration.store.test_problematas import problemata_row
from tests.integration.store.worlds import Somebody, publish, row, somebody

from metagate_store.reader import Reader
from metagate_store.rows import BootstrapOutcome


async def boot(reader: Reader, principal, component: str = "a", status: str | None = None):
    [answer] = await reader.bootstrap([principal.ask(component)])
    assert answer.outcome is BootstrapOutcome.OPENED
    if status is not None:
        await reader.report([principal.tells(answer.startup_id, status)])
    return answer.startup_id


async def test_every_tenant_has_its_share(database: Database, reader: Reader) -> None:
    """A tenant with few sessions is told in full beside a busy one, which gets what the others leave."""
    busy, calm = somebody("busy"), somebody("calm")
    await publish(database.publisher, busy, calm)
    await boot(reader, calm, status="FAILED")
    for _ in range(200):
        await boot(reader, busy)
    for span, most in ((100, 99), (1_000, 200)):
        overview = await reader.overviews.overview(None, span=span)
        counts = {tenant.tenant: tenant for tenant in overview.tenants}
        assert (counts[calm.tenant].opened, counts[calm.tenant].failed) == (1, 1)
        assert counts[busy.tenant].opened == most
        assert overview.everything is (span == 1_000)
        assert sum(minute.opened for minute in overview.minutes) == most + 1
    cut = await reader.overviews.overview(None, span=100)
    of_busy = await reader.overviews.overview(busy.tenant, span=99)
    assert cut.looked_back_to == of_busy.looked_back_to, (
        "the calm one's older session says nothing about the busy one's"
    )
    alone = await reader.overviews.overview(busy.tenant, span=50)
    assert (alone.opened, alone.everything, alone.failed) == (50, False, 0)
    assert alone.looked_back_to is not None
    assert alone.troubles == ()
    assert {item.tenant for item in alone.latest} == {busy.tenant}
    assert [trouble.principal_key for trouble in overview.troubles] == ["calm"]


async def test_nothing_yet(database: Database, reader: Reader) -> None:
    """A tenant without sessions, or that is not there at all, has nothing to tell."""
    for whose in (uuid4(), None):
        overview = await reader.overviews.overview(whose, span=100, most=0)
        assert overview.troubles == ()
    assert (overview.at - datetime.now(UTC)).total_seconds() < 60
    assert (await reader.overviews.overview(uuid4())).looked_back_to is None


async def test_up_again(database: Database, reader: Reader) -> None:
    """A component counts as up again when a later session of it reported READY; another component's does not count."""
    principal = somebody()
    await publish(database.publisher, principal)
    await boot(reader, principal, "mended", "FAILED")
    await boot(reader, principal, "mended", "READY")
    await boot(reader, principal, "worse", "READY")
    late = await boot(reader, principal, "worse")
    last = await boot(reader, principal, "worse", "FAILED")
    await reader.report([principal.tells(late, "READY")])  # opened before the one that failed
    overview = await reader.overviews.overview(principal.tenant)
    assert [(trouble.component_key, trouble.up_again) for trouble in overview.troubles] == [
        ("worse", False),
        ("mended", True),
    ]
    assert overview.troubles[0].startup_id == last
    overdue = replace(overview.troubles[0], tenant=uuid4())
    assert await reader.overviews.errors(overview.troubles) == {}, "they reported no error's text"
    ask = principal.ask("said")
    await reader.bootstrap([ask])
    await reader.report([principal.tells(ask.startup_id, "FAILED", payload='{"error": "no disk"}')])
    troubles = (await reader.overviews.overview(principal.tenant)).troubles
    assert await reader.overviews.errors([*troubles, overdue]) == {ask.startup_id: "no disk"}


async def test_search(database: Database, reader: Reader) -> None:
    """By some letters of a name, in one tenant or in all: principals, components, services, Manifests, Problematas, PlanTemplates;
    sessions by the end of their id; no letter is a wildcard.
    """
    services = b'{"services":{"finder-db":{"type":"postgres","endpoint":"tcp://db:1"}}}'
    principal, other = somebody("a-Finder"), somebody("finder-b", body=services)
    manifest = row(other.uid, tenant=str(other.tenant), name="finders", body={}, generation=1)
    served = problemata_row(other.tenant, "mail-finder")
    template = template_row(other.tenant, "plan-finder", {"capability": "find"})
    await publish(
        database.publisher,
        principal,
        other,
        more={"manifest": [manifest], "problemata": [served], "plan_template": [template]},
    )
    session = await boot(reader, other, "find_er")

    async def found(tenant: UUID | None, wanted: str, limit: int = 9) -> list[tuple[str, str]]:
        return [(match.kind, match.name) for match in await reader.overviews.search(tenant, wanted, limit=limit)]

    assert await found(principal.tenant, "finder") == [("principal", "a-Finder")]
    assert await found(other.tenant, "FINDER") == [
        ("principal", "finder-b"), ("service", "finder-db"), ("manifest", "finders"), ("problemata", "mail-finder"),
        ("plan-template", "plan-finder"),
    ]  # fmt: skip
    assert await found(other.tenant, "mail") == [("problemata", "mail-finder")]
    assert await found(principal.tenant, "mail") == []
    assert await found(None, "finder-") == [("principal", "finder-b"), ("service", "finder-db")]
    assert await found(None, "nder", limit=1) == [
        ("principal", "a-Finder"), ("service", "finder-db"), ("manifest", "finders"), ("problemata", "mail-finder"),
        ("plan-template", "plan-finder"),
    ]  # fmt: skip
    assert await found(None, "find_") == [("component", "find_er")]
    assert await found(None, "finder%") == []
    assert await found(other.tenant, str(session)[-8:]) == [("startup", str(session))]
    assert await found(principal.tenant, str(session)[-8:]) == []
    assert await found(uuid4(), "finder") == []
    assert await reader.overviews.tenant_of(session) == other.tenant
    assert await reader.overviews.tenant_of(uuid4()) is None
    assert (await reader.overviews.tenants())[principal.tenant] == f"team-{principal.tenant.hex[:8]}"


async def test_failures_by_error(database: Database, reader: Reader) -> None:
    """Equal errors are one line, the most frequent first, with the newest session; nothing older than an hour, nothing of
    another tenant.
    """
    principal, other = somebody("a"), somebody("b")
    await publish(database.publisher, principal, other)

    async def fail(of: Somebody, component: str, error: str) -> UUID:
        opened = of.ask(component)
        await reader.bootstrap([opened])
        await reader.report([of.tells(opened.startup_id, "FAILED", payload=json.dumps({"error": error}))])
        return opened.startup_id

    await fail(principal, "x", "no disk")
    await fail(principal, "y", "no disk")
    newest = await fail(principal, "x", "no disk")
    await fail(principal, "z", "no network")
    await fail(other, "z", "no network")
    old = await fail(principal, "w", "long ago")
    connection = await asyncpg.connect(database.superuser)
    await connection.execute(
        "UPDATE metagate.startup SET opened_at = now() - interval '2 hours' WHERE startup_id = $1", old
    )
    await connection.close()
    groups = await reader.overviews.failures(principal.tenant, limit=9)
    assert [(group.error, group.startups, group.components, group.principals) for group in groups] == [
        ("no disk", 3, 2, 1), ("no network", 1, 1, 1),
    ]  # fmt: skip
    assert (groups[0].startup_id, groups[0].component_key) == (newest, "x")
    everywhere = {group.error: group.startups for group in await reader.overviews.failures(None, limit=99)}
    assert everywhere["no network"] >= 2
    assert await reader.overviews.failures(uuid4(), limit=9) == ()


async def test_declared_but_not_served(database: Database, reader: Reader) -> None:
    """What is refused, or held at its last good generation, with the reason, and since when; what is served is not there."""
    tenant, uid = uuid4(), uuid4()

    def verdict(
        owner: UUID, name: str, *, ready: str, reason: str, generation: int = 1, served: int | None = 1
    ) -> dict[str, Any]:
        conditions = [{"type": "Ready", "status": ready, "reason": reason, "message": f"{name} says why"}]
        return row(
            owner, kind="Profile", tenant=str(tenant), namespace="team", name=name, generation=generation,
            served_generation=served, created_at="2026-01-01T00:00:00Z", conditions=conditions, uses=0,
        )  # fmt: skip

    async def names(of: UUID | None = tenant) -> set[str]:
        return {item.name for item in await reader.overviews.not_served(of, limit=500)}

    fine = verdict(uuid4(), "fine", ready="True", reason="Ready")
    held = verdict(uuid4(), "held", ready="False", reason="Invalid", generation=3, served=2)
    gone = verdict(uid, "gone", ready="False", reason="ForbiddenKey", served=None)
    await publish(database.publisher, more={"resource": [fine, held, gone]})
    result = {item.name: item for item in await reader.overviews.not_served(tenant, limit=9)}
    assert {name: (item.reason, item.generation, item.served_generation) for name, item in result.items()} == {
        "held": ("Invalid", 3, 2), "gone": ("ForbiddenKey", 1, None),
    }  # fmt: skip
    assert result["gone"].message == "gone says why"
    since = result["gone"].changed_at
    await publish(database.publisher, more={"resource": [gone | {"uses": 1, "content": "another"}]})
    again = {item.name: item for item in await reader.overviews.not_served(tenant, limit=9)}
    assert again["gone"].changed_at == since, "another number of users is no other verdict"
    await publish(database.publisher, more={"resource": [verdict(uid, "gone", ready="True", reason="Ready")]})
    assert await names() == {"held"}
    assert await names(uuid4()) == set()
    assert "held" in await names(None)


async def test_issuers(database: Database, reader: Reader) -> None:
    """How many keys each has, and when one of them was last found where it is published; retired ones do not count."""
    issuer = {
        "issuer": "https://seen.test", "name": "seen", "audiences": ["metagate"], "algorithms": ["RS256"],
        "max_token_lifetime_seconds": 3600, "source": "URL", "url": "https://seen.test/jwks", "generation": 1,
    }  # fmt: skip
    await publish(database.publisher, somebody(), more={"issuer": [row(uuid4(), **issuer)]})
    connection = await asyncpg.connect(database.superuser)
    await connection.execute(
        "INSERT INTO metagate.issuer_key (issuer, kid, jwk, last_seen, misses, retired_at) VALUES "
        "($1, 'a', '{}', '2026-01-02', 0, NULL), ($1, 'b', '{}', '2026-01-01', 2, NULL), ($1, 'c', '{}', '2026-01-03', 9, now())",
        issuer["issuer"],
    )
    await connection.close()
    [result] = [item for item in await reader.overviews.issuers() if item.issuer == issuer["issuer"]]
    assert (result.keys, result.misses, result.last_seen) == (2, 2, datetime(2026, 1, 2, tzinfo=UTC))
