"""Who is speaking, at the socket: keys, tokens, suspension, revocation, rates."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest
from tests.databases import Database
from tests.integration.api.gate_fixture import ISSUER, GateFixture, PrincipalFixture, settings_for
from tests.integration.store.worlds import row

from legivellum.identity import api_keys
from legivellum.identity.shared_secret import SharedSecret
from metagate_api.server import serving


@pytest.mark.invariant("INV-003", "INV-004")
async def test_key_and_token_are_the_same_principal(gate: GateFixture) -> None:
    """By API key and by two tokens of one subject: one principal_key, one packet_etag."""
    principal = await gate.principal()
    body = {"component_key": "indexer_1"}
    answers = [
        await gate.client.post("/v1/bootstrap", json=body, headers=headers)
        for headers in (
            principal.by_key,
            principal.by_token,
            {"Authorization": f"bearer {principal.token(lifetime=60)}"},
        )
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert {answer.json()["packet_etag"] for answer in answers} == {principal.etag("indexer_1")}
    assert {answer.json()["principal_key"] for answer in answers} == {"indexer"}


@pytest.mark.invariant("INV-003")
async def test_wrong_tokens_are_401(gate: GateFixture) -> None:
    """Another issuer, algorithm, secret, or no expiry: 401 (EXT-11)."""
    principal = await gate.principal()
    before = await gate.sessions()
    now = time.time()
    wrong = [
        SharedSecret(issuer="other", secret=b"a-secret-of-these-tests-and-nothing-else").mint(
            principal.subject, now=now
        ),
        SharedSecret(issuer=ISSUER, secret=b"another-secret-of-at-least-32-bytes!!").mint(principal.subject, now=now),
        SharedSecret(issuer=ISSUER, secret=b"a-secret-of-these-tests-and-nothing-else", algorithm="HS512").mint(
            principal.subject, now=now
        ),
        SharedSecret(issuer=ISSUER, secret=b"a-secret-of-these-tests-and-nothing-else").mint(
            principal.subject, now=now - 7_200
        ),
        principal.token()[:-2],
        principal.token() + "=",
    ]
    for token in wrong:
        answer = await gate.client.post(
            "/v1/bootstrap", json={"component_key": "indexer_1"}, headers={"authorization": f"Bearer {token}"}
        )
        assert answer.status_code == 401, token
        assert token not in answer.text
    assert await gate.sessions() == before


@pytest.mark.invariant("INV-004")
async def test_genuine_tokens_of_nobody_are_403(gate: GateFixture) -> None:
    """A good token whose subject no Principal names is refused with 403 after the body was judged, without a row."""
    principal = PrincipalFixture(uuid4(), "nobody")
    before = await gate.sessions()
    good = await gate.client.post("/v1/bootstrap", json={"component_key": "x"}, headers=principal.by_token)
    assert (good.status_code, good.json()["code"]) == (403, "PRINCIPAL_UNKNOWN")
    bad = await gate.client.post("/v1/bootstrap", json={}, headers=principal.by_token)
    assert bad.status_code == 422
    read = await gate.client.get("/v1/topology", headers=principal.by_token)
    assert (read.status_code, read.json()["code"]) == (403, "PRINCIPAL_UNKNOWN")
    assert await gate.sessions() == before


@pytest.mark.invariant("INV-004")
async def test_suspension_is_the_same_by_key_and_by_token(gate: GateFixture) -> None:
    """A suspended principal gets the same code whatever it shows, at once (EXT-11)."""
    principal = await gate.principal()
    assert (await gate.boot(principal)).status_code == 200
    principal = await gate.change(principal, suspended=True)
    before = await gate.sessions()
    for headers in (principal.by_key, principal.by_token):
        boot = await gate.client.post("/v1/bootstrap", json={"component_key": "indexer_1"}, headers=headers)
        assert (boot.status_code, boot.json()["code"]) == (403, "PRINCIPAL_SUSPENDED")
        read = await gate.client.get("/v1/startups", headers=headers)
        assert (read.status_code, read.json()["code"]) == (403, "PRINCIPAL_SUSPENDED")
    assert await gate.sessions() == before


async def test_several_credentials_are_refused(gate: GateFixture) -> None:
    """D-32: more than one credential is 400, never picked from, on every kind of route."""
    principal = await gate.principal()
    both = {**principal.by_key, **principal.by_token}
    twice = [("x-api-key", principal.key), ("x-api-key", principal.key)]
    for headers in (both, twice):
        for answer in (
            await gate.client.post("/v1/bootstrap", json={"component_key": "indexer_1"}, headers=headers),
            await gate.client.get("/v1/topology", headers=headers),
        ):
            assert (answer.status_code, answer.json()["code"]) == (400, "SEVERAL_CREDENTIALS")


async def test_keys_rotate_and_are_revoked(gate: GateFixture) -> None:
    """EXT-10: two keys overlap; a removed one is 401 as soon as the removal is published; so is an expired one."""
    principal = await gate.principal()
    second = api_keys.mint().key
    extra = row(
        principal.uid,
        sha256=api_keys.digest_of(second),
        key_id=api_keys.id_of(second.encode()),
        tenant=str(principal.tenant),
        principal_key=principal.name,
        expires_at=(datetime.now(UTC) + timedelta(seconds=1.0)).isoformat(),
    )
    await gate.publish(api_key=[extra])
    body = {"component_key": "indexer_1"}

    async def status(key: str) -> int:
        return (await gate.client.post("/v1/bootstrap", json=body, headers={"x-api-key": key})).status_code

    assert [await status(principal.key), await status(second)] == [200, 200]
    await gate.publish(deletes={"api_key": [(api_keys.digest_of(principal.key),)]})
    assert await status(principal.key) == 401
    await asyncio.sleep(1.0)
    assert await status(second) == 401


async def test_the_statement_checks_again(gate: GateFixture) -> None:
    """D-45: what is revoked between verification and statement is refused by the statement."""
    principal = await gate.principal()
    await gate.boot(principal)
    await gate.ask("DELETE FROM metagate.api_key WHERE sha256 = $1 RETURNING 1", api_keys.digest_of(principal.key))
    before = await gate.sessions()
    answer = await gate.boot(principal)
    assert answer.status_code == 401
    assert answer.json()["code"] in {"CREDENTIAL_REVOKED", "CREDENTIAL_INVALID"}
    assert await gate.sessions() == before


@pytest.mark.invariant("INV-003", "INV-036")
async def test_the_key_header_can_be_renamed(gate: GateFixture, database: Database) -> None:
    """Under another name the new header works and the old one does not."""
    principal = await gate.principal()
    async with (
        serving(settings_for(database, api_key_header="X-Boot-Key")) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        body = {"component_key": "indexer_1"}
        assert (await client.post("/v1/bootstrap", json=body, headers={"X-Boot-Key": principal.key})).status_code == 200
        assert (await client.post("/v1/bootstrap", json=body, headers={"X-API-Key": principal.key})).status_code == 401
        document = (await client.get("/.well-known/metagate.json")).json()
        assert document["api_key_header"] == "X-Boot-Key"


@pytest.mark.invariant("EXT-07")
async def test_rate_is_per_principal(gate: GateFixture, database: Database) -> None:
    """EXT-07: over its rate a principal gets 429 with Retry-After; fifty others from the same address do not."""
    settings = settings_for(database, rate_per_second=1.0, rate_burst=3.0)
    tenant = uuid4()
    greedy = PrincipalFixture(tenant, "greedy")
    others = [PrincipalFixture(tenant, f"pod-{n}") for n in range(50)]
    await gate.publish(greedy, *others)
    async with serving(settings) as url, httpx.AsyncClient(base_url=url) as client:
        body = {"component_key": "indexer_1"}
        answers = [await client.post("/v1/bootstrap", json=body, headers=greedy.by_key) for _ in range(6)]
        assert [answer.status_code for answer in answers][:4] == [200, 200, 200, 429]
        assert answers[3].json()["code"] == "RATE_LIMITED"
        assert int(answers[3].headers["retry-after"]) >= 1
        booted = await asyncio.gather(
            *[client.post("/v1/bootstrap", json=body, headers=item.by_key) for item in others]
        )
        assert {answer.status_code for answer in booted} == {200}
