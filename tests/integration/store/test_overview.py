"""How boots go right now, in statements whose cost does not grow with what is kept."""

from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
from tests.databases import Database
from tests.integration.store.worlds import publish, row, somebody

from metagate_store.reader import Reader
from metagate_store.rows import BootstrapOutcome


async def boot(reader: Reader, who, component: str = "a", status: str | None = None):
    [answer] = await reader.bootstrap([who.ask(component)])
    assert answer.outcome is BootstrapOutcome.OPENED
    if status is not None:
        await reader.report([who.tells(answer.startup_id, status)])
    return answer.startup_id


async def test_every_tenant_has_its_share(database: Database, reader: Reader) -> None:
    """A tenant with few sessions is told in full beside a busy one, which gets what the others leave."""
    busy, calm = somebody("busy"), somebody("calm")
    await publish(database.publisher, busy, calm)
    await boot(reader, calm, status="FAILED")
    for _ in range(200):
        await boot(reader, busy)
    for span, most in ((100, 99), (1_000, 200)):
        found = await reader.overviews.overview(None, span=span)
        counts = {one.tenant: one for one in found.tenants}
        assert (counts[calm.tenant].opened, counts[calm.tenant].failed) == (1, 1)
        assert counts[busy.tenant].opened == most
        assert found.everything is (span == 1_000)
        assert sum(one.opened for one in found.minutes) == most + 1
    cut = await reader.overviews.overview(None, span=100)
    of_busy = await reader.overviews.overview(busy.tenant, span=99)
    assert cut.looked_back_to == of_busy.looked_back_to, (
        "the calm one's older session says nothing about the busy one's"
    )
    alone = await reader.overviews.overview(busy.tenant, span=50)
    assert (alone.opened, alone.everything, alone.failed) == (50, False, 0)
    assert alone.looked_back_to is not None
    assert alone.troubles == ()
    assert {one.tenant for one in alone.latest} == {busy.tenant}
    assert [one.principal_key for one in found.troubles] == ["calm"]


async def test_nothing_yet(database: Database, reader: Reader) -> None:
    """A tenant without sessions, or that is not there at all, has nothing to tell."""
    for whose in (uuid4(), None):
        found = await reader.overviews.overview(whose, span=100, most=0)
        assert found.troubles == ()
    assert (found.at - datetime.now(UTC)).total_seconds() < 60
    assert (await reader.overviews.overview(uuid4())).looked_back_to is None


async def test_up_again(database: Database, reader: Reader) -> None:
    """A component counts as up again when a later session of it reported READY; another component's does not count."""
    who = somebody()
    await publish(database.publisher, who)
    await boot(reader, who, "mended", "FAILED")
    await boot(reader, who, "mended", "READY")
    await boot(reader, who, "worse", "READY")
    late = await boot(reader, who, "worse")
    last = await boot(reader, who, "worse", "FAILED")
    await reader.report([who.tells(late, "READY")])  # opened before the one that failed
    found = await reader.overviews.overview(who.tenant)
    assert [(one.component_key, one.up_again) for one in found.troubles] == [("worse", False), ("mended", True)]
    assert found.troubles[0].startup_id == last


async def test_names_and_owners(database: Database, reader: Reader) -> None:
    """By the beginning of a name, in one tenant or in all; whose session an id is."""
    one, other = somebody("finder-a"), somebody("finder-b")
    await publish(database.publisher, one, other)
    assert [found.principal_key for found in await reader.overviews.named(one.tenant, "finder-", limit=9)] == [
        "finder-a"
    ]
    everywhere = await reader.overviews.named(None, "finder-", limit=9)
    assert {found.principal_key for found in everywhere} == {"finder-a", "finder-b"}
    assert len(await reader.overviews.named(None, "finder-", limit=1)) == 1
    assert await reader.overviews.named(None, "finder-%", limit=9) == ()
    session = await boot(reader, other)
    assert await reader.overviews.tenant_of(session) == other.tenant
    assert await reader.overviews.tenant_of(uuid4()) is None
    assert (await reader.overviews.tenants())[one.tenant] == f"team-{one.tenant.hex[:8]}"


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
    [found] = [one for one in await reader.overviews.issuers() if one.issuer == issuer["issuer"]]
    assert (found.keys, found.misses, found.last_seen) == (2, 2, datetime(2026, 1, 2, tzinfo=UTC))
