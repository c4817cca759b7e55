"""Plan templates in the database: what a gate that makes plans follows."""

import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from tests.databases import Database
from tests.integration.store.worlds import change_of, row, somebody

from metagate_crds.canonical_json import canonical, digest
from metagate_store.publisher import Publisher
from metagate_store.rows import Change


def template_row(tenant: UUID, name: str, body: dict[str, Any]) -> dict[str, Any]:
    return row(uuid4(), tenant=str(tenant), name=name, body=body, content_hash=digest(canonical(body)), generation=1)


async def listed(database: Database, *known: str) -> list[tuple[UUID, str, Any]]:
    connection = await asyncpg.connect(database.identity)
    try:
        rows = await connection.fetch("SELECT * FROM metagate.plan_templates($1)", list(known))
    finally:
        await connection.close()
    return [(item["tenant"], item["name"], item["body"] and json.loads(item["body"])) for item in rows]


async def test_a_gate_follows_templates(database: Database) -> None:
    """Each body comes once, and not where the gate holds it; what is deleted, or whose tenant went, is absent."""
    one, other = somebody(), somebody()
    body = {"capability": "document.review", "steps": [{"id": "read", "capability": "document.read"}]}
    changed = {**body, "capability": "document.write"}
    publisher = await Publisher.open(database.publisher)
    try:
        await publisher.load()
        rows = [template_row(one.tenant, "review", body), template_row(other.tenant, "review", body)]
        before = await publisher.publish(change_of([one, other], more={"plan_template": rows}))
        first, second = sorted([one.tenant, other.tenant])
        assert await listed(database) == [(first, "review", body), (second, "review", None)]
        assert await listed(database, digest(canonical(body))) == [(first, "review", None), (second, "review", None)]
        after = await publisher.publish(
            Change(tenants=(), upserts={"plan_template": [template_row(one.tenant, "review", changed)]}, deletes={})
        )
        assert after > before
        assert [item for item in await listed(database) if item[0] == one.tenant] == [(one.tenant, "review", changed)]
        await publisher.publish(
            Change(tenants=(), upserts={}, deletes={"plan_template": [[str(one.tenant), "review"]]})
        )
        assert [tenant for tenant, _, _ in await listed(database)] == [other.tenant]
    finally:
        await publisher.close()
