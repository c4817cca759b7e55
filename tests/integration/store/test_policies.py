"""What an admission boundary follows: every served PolicyProfile, each body once."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from tests.databases import Database
from tests.integration.store.worlds import change_of, row, somebody

from metagate_crds.canonical_json import canonical, digest
from metagate_store.publisher import Publisher
from metagate_store.rows import Change


def policy(tenant: UUID, name: str, body: Mapping[str, Any], owner: UUID | None = None) -> dict[str, Any]:
    """A row as the compiler makes it."""
    return row(
        owner or uuid4(),
        tenant=str(tenant),
        name=name,
        body=body,
        policy_hash=digest(canonical(body)),
        generation=1,
    )


def depth(number: int) -> dict[str, Any]:
    return {"limits": {"maxSpawnDepth": number}}


async def followed(database: Database, known: Sequence[str] = ()) -> dict[tuple[UUID, str], Any]:
    """As the identity role reads it, by tenant and name."""
    connection = await asyncpg.connect(database.identity)
    try:
        rows = await connection.fetch("SELECT * FROM metagate.policies($1)", list(known))
    finally:
        await connection.close()
    assert list(rows) == sorted(rows, key=lambda item: (item["tenant"], item["name"]))
    return {(item["tenant"], item["name"]): item for item in rows}


async def test_every_policy_of_every_tenant(database: Database) -> None:
    """With the tenant's namespace, the hash and the revision of this profile; absent is gone."""
    one, other = somebody(), somebody()
    publisher = await Publisher.open(database.publisher)
    try:
        await publisher.load()
        kept, removed = policy(one.tenant, "strict", depth(1)), policy(other.tenant, "lax", depth(2))
        first = await publisher.publish(change_of([one, other], more={"policy_profile": [kept, removed]}))
        read = await followed(database)
        for expected, who in ((kept, one), (removed, other)):
            found = read[who.tenant, expected["name"]]
            assert found["namespace"] == f"team-{who.tenant.hex[:8]}"
            assert (found["policy_hash"], found["revision"]) == (expected["policy_hash"], first)
            assert json.loads(found["body"]) == expected["body"]
        changed = policy(one.tenant, "strict", depth(3), UUID(kept["owner"]))
        second = await publisher.publish(
            Change(upserts={"policy_profile": [changed]}, deletes={"policy_profile": [[str(other.tenant), "lax"]]})
        )
        read = await followed(database)
        assert (other.tenant, "lax") not in read
        assert read[one.tenant, "strict"]["revision"] == second > first
    finally:
        await publisher.close()


async def test_a_body_comes_once(database: Database) -> None:
    """Tenants that share a body, and whoever holds it already, are not sent it again; its row always comes."""
    people = [somebody() for _ in range(3)]
    body = {**depth(7), "budget": {"initial": uuid4().int % 1_000}}
    rows = [policy(who.tenant, "shared", body) for who in people]
    publisher = await Publisher.open(database.publisher)
    try:
        await publisher.load()
        await publisher.publish(change_of(people, more={"policy_profile": rows}))
    finally:
        await publisher.close()
    hash_of = rows[0]["policy_hash"]
    shared = [item for item in (await followed(database)).values() if item["policy_hash"] == hash_of]
    assert len(shared) == 3
    assert [item["body"] is None for item in shared] == [False, True, True]
    known = [item for item in (await followed(database, [hash_of])).values() if item["policy_hash"] == hash_of]
    assert [item["body"] for item in known] == [None, None, None]
    everything = await followed(database)
    quiet = await followed(database, [item["policy_hash"] for item in everything.values()])
    assert quiet.keys() == everything.keys()
    assert all(item["body"] is None for item in quiet.values())


async def test_a_tenant_that_is_gone_has_no_policies(database: Database) -> None:
    """A namespace that was deleted: whoever still names it finds nothing to be admitted by."""
    who = somebody()
    publisher = await Publisher.open(database.publisher)
    try:
        await publisher.load()
        await publisher.publish(change_of([who], more={"policy_profile": [policy(who.tenant, "strict", depth(1))]}))
        assert (who.tenant, "strict") in await followed(database)
        await publisher.publish(Change(retired_tenants=[who.tenant]))
        assert (who.tenant, "strict") not in await followed(database)
    finally:
        await publisher.close()


async def test_only_the_identity_role_reads_policies_of_all_tenants(database: Database) -> None:
    """The API's role asks about one tenant at a time."""
    connection = await asyncpg.connect(database.api)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT * FROM metagate.policies('{}')")
    finally:
        await connection.close()
