"""What a stranger gets to know, and what nobody has to declare to be refused."""

import re
import time
from uuid import uuid4

import asyncpg
import pytest
from tests.databases import Database
from tests.integration.api.gate_fixture import GateFixture

from legivellum.identity import api_keys
from legivellum.identity.shared_secret import SharedSecret
from metagate_api.settings import PUBLISHED_JWT_SECRET

SQL = re.compile(
    r"metagate\.\w+\(|permission denied|\b(SELECT|INSERT|UPDATE|CONTEXT|SQLSTATE|relation|asyncpg|unnest|constraint)\b"
)
FUNCTIONS = (
    "bootstrap",
    "report",
    "packet_now",
    "startup",
    "startups",
    "items",
    "item",
    "policy_profile",
    "announced",
    "announce",
    "withdraw",
    "topology",
    "topology_page",
)


@pytest.mark.invariant("EXT-03")
async def test_no_error_body_holds_sql(gate: GateFixture) -> None:
    """A conflict is 409 and a database that refuses is 503; neither says a word of what the database said."""
    principal = await gate.principal("admin", type="admin")
    session = (await gate.boot(principal, headers={"idempotency-key": "k"})).json()["startup"]["startup_id"]
    twice = await gate.boot(principal, "another", headers={"idempotency-key": "k"})
    assert (twice.status_code, twice.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    assert not SQL.search(twice.text)
    names = ", ".join(f"metagate.{name}" for name in FUNCTIONS)
    await gate.ask(f"DO $$ BEGIN REVOKE EXECUTE ON FUNCTION {names} FROM metagate_api; END $$")
    try:
        answers = [
            await gate.boot(principal),
            await gate.ready(principal, session),
            await gate.failed(principal, session),
            *[
                await gate.client.get(path, headers=principal.by_key)
                for path in (
                    f"/v1/startup/{session}",
                    f"/v1/startup/{session}/packet",
                    "/v1/startups",
                    "/v1/topology",
                    "/v1/policy-profiles/x",
                    "/v1/problematas",
                    "/v1/problematas/x",
                    "/v1/admin/principals",
                    "/v1/admin/principals/admin",
                )
            ],
        ]
    finally:
        await gate.ask(f"DO $$ BEGIN GRANT EXECUTE ON FUNCTION {names} TO metagate_api; END $$")
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE"), answer.url
        assert answer.headers["content-type"] == "application/problem+json"
        assert not SQL.search(answer.text), answer.text
    assert (await gate.boot(principal)).status_code == 200


@pytest.mark.invariant("EXT-29", "INV-002")
async def test_nothing_is_believed_by_default(gate: GateFixture) -> None:
    """No key, secret, issuer or way to authenticate works that nobody declared; what is unknown is refused with 401."""
    published = SharedSecret(issuer="metagate", secret=PUBLISHED_JWT_SECRET.encode())
    strangers = [
        {},
        {"x-api-key": "metagate"},
        {"x-api-key": "default"},
        {"x-api-key": api_keys.mint().key},
        {"authorization": "Basic YWRtaW46YWRtaW4="},
        {"authorization": "Negotiate x"},
        {"authorization": "Bearer admin"},
        {"authorization": f"Bearer {published.mint('admin', now=time.time())}"},
        {"cookie": "session=admin"},
        {"x-forwarded-user": "admin", "x-remote-user": "admin"},
        {"x-tenant-id": str(uuid4())},
    ]
    before = await gate.sessions()
    for headers in strangers:
        for path in ("/v1/bootstrap", "/v1/startup/ready", "/v1/introspect", "/v1/admin/profiles"):
            answer = await gate.client.post(path, json={"component_key": "a"}, headers=headers)
            assert answer.status_code == 401, (path, headers)
        assert (await gate.client.get("/v1/admin/principals", headers=headers)).status_code == 401
    assert await gate.sessions() == before


@pytest.mark.invariant("EXT-29")
async def test_a_new_database_declares_nobody(fresh_database: Database) -> None:
    """Migrating makes no tenant, principal, key or issuer: whoever is known was declared."""
    connection = await asyncpg.connect(fresh_database.superuser)
    try:
        for table in ("tenant", "principal", "subject", "api_key", "issuer", "issuer_key", "binding"):
            assert await connection.fetchval(f"SELECT count(*) FROM metagate.{table}") == 0, table
    finally:
        await connection.close()
