"""POST /v1/bootstrap at the socket: who gets a packet, who gets none, and how many receipts that leaves."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import jsonschema
import pytest
from tests.integration.api.gate_fixture import GateFixture, shared_body

from metagate_api.schemas import SCHEMAS, WELCOME_PACKET
from metagate_crds.canonical_json import digest

SEED_KEYS = {
    "packet_id", "packet_etag", "issued_at", "principal_key", "component_key", "profile", "manifest", "capabilities",
    "policy", "services", "memory_map", "polling", "schemas", "required_env", "startup",
}  # fmt: skip


def at(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo is not None
    return moment


@pytest.mark.invariant("INV-013", "INV-014", "INV-006")
async def test_the_welcome_packet(gate: GateFixture) -> None:
    """A 200 has exactly the seed's 15 keys and two more, of the types of the schema, with aware times."""
    principal = await gate.principal()
    answer = await gate.boot(principal)
    assert answer.status_code == 200
    packet = answer.json()
    assert set(packet) == SEED_KEYS | {"environment", "snapshot"}
    jsonschema.validate(packet, {**WELCOME_PACKET, "components": {"schemas": SCHEMAS}})
    assert packet["principal_key"] == "indexer"
    assert packet["component_key"] == "indexer_1"
    assert packet["startup"]["status"] == "OPEN"
    assert packet["startup"]["followup"] == ["POST /v1/startup/ready", "POST /v1/startup/failed"]
    assert UUID(packet["packet_id"]).version == 7
    assert UUID(packet["startup"]["startup_id"]).version == 7
    assert at(packet["startup"]["deadline_at"]) > at(packet["issued_at"])
    assert at(packet["snapshot"]["compiled_at"]) <= at(packet["issued_at"])
    assert answer.headers["etag"] == f'"{packet["packet_etag"]}"'
    assert packet["packet_etag"] == principal.etag("indexer_1")
    assert answer.headers["cache-control"] == "no-store"
    for follow in packet["startup"]["followup"]:
        method, path = follow.split()
        routed = await gate.client.request(method, path, json={})
        assert routed.status_code == 401, "routed, and asks who is there"


@pytest.mark.invariant("INV-016", "INV-027")
async def test_one_session_and_nothing_else(gate: GateFixture) -> None:
    """A bootstrap adds one startup row; every other table stays as it was."""
    principal = await gate.principal()
    tables = [row[0] for row in await gate.ask("SELECT tablename FROM pg_tables WHERE schemaname = 'metagate'")]

    async def contents() -> dict[str, Any]:
        return {
            table: (
                await gate.ask(
                    f"SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM metagate.{table} t"
                )
            )[0]
            for table in tables
            if not table.startswith("startup")
        }

    before, sessions = await contents(), await gate.sessions()
    answer = await gate.boot(principal)
    assert await contents() == before
    assert await gate.sessions() == sessions + 1
    stored = await gate.stored(answer.json()["startup"]["startup_id"])
    assert (stored["principal_key"], stored["component_key"], stored["digest"]) == (
        "indexer",
        "indexer_1",
        principal.digest,
    )


@pytest.mark.invariant("INV-015")
@pytest.mark.parametrize("sla", [5, 120, 86_400])
async def test_deadline_is_open_time_plus_sla(gate: GateFixture, sla: int) -> None:
    """The deadline is the binding's SLA after the moment of opening, by one clock."""
    packet = (await gate.boot(await gate.principal(sla_seconds=sla))).json()
    assert at(packet["startup"]["deadline_at"]) - at(packet["issued_at"]) == timedelta(seconds=sla)


@pytest.mark.invariant("INV-002")
@pytest.mark.parametrize("path", ["/v1/bootstrap", "/v1/startup/ready", "/v1/startup/failed"])
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "CREDENTIAL_MISSING"),
        ({"x-api-key": "garbage"}, "CREDENTIAL_INVALID"),
        ({"x-api-key": "mgk_0000000000_" + "0" * 49}, "CREDENTIAL_INVALID"),
        ({"authorization": "Bearer a.b.c"}, "CREDENTIAL_INVALID"),
        ({"authorization": "Basic YTpi"}, "CREDENTIAL_INVALID"),
    ],
    ids=["none", "garbage key", "bad checksum", "garbage token", "basic"],
)
async def test_nobody_gets_401_before_the_body_is_judged(
    gate: GateFixture, path: str, headers: dict[str, str], code: str
) -> None:
    """Without a good credential the answer is 401 whatever the body is, and nothing is stored."""
    before = await gate.sessions()
    for content, media in [(b"{}", "application/json"), (b"not json", "application/json"), (b"x", "text/plain")]:
        answer = await gate.client.post(path, content=content, headers={**headers, "content-type": media})
        assert (answer.status_code, answer.json()["code"]) == (401, code)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
    assert await gate.sessions() == before


@pytest.mark.invariant("INV-002")
async def test_expired_credentials_are_401(gate: GateFixture) -> None:
    """A key or token past its time says so, and stores nothing."""
    principal = await gate.principal(key_expires=datetime.now(UTC) - timedelta(seconds=1))
    before = await gate.sessions()
    answer = await gate.boot(principal)
    assert (answer.status_code, answer.json()["code"]) == (401, "CREDENTIAL_EXPIRED")
    assert await gate.sessions() == before


@pytest.mark.invariant("INV-005")
@pytest.mark.parametrize(
    "body",
    [{}, {"component_key": None}, {"component_key": ""}, {"component_key": "  "}, {"component_key": 7}, {"component_key": ["a"]},
     {"component_key": {"a": 1}}, {"component_key": True}, {"component_key": " a"}, {"component_key": "a\n"}, {"component_key": "a\tb"},
     {"component_key": "x" * 254}, {"component_key": "*"}, {"component_key": "a b"}, {"component_key": "a/b"}, {"component_key": "é"}, {"component_key": "a-"},
     {"component_key": ".a"}, {"component_key": "a\u200bb"}, {"component_key": "a", "last_packet_etag": 7}, {"component_key": "a", "principal_key": []}],
    ids=str,
)  # fmt: skip
async def test_component_key_is_required(gate: GateFixture, body: dict[str, Any]) -> None:
    """Missing, null, empty, blank, of another type or out of bounds: 422, and nothing is stored."""
    principal = await gate.principal()
    before = await gate.sessions()
    answer = await gate.client.post("/v1/bootstrap", json=body, headers=principal.by_key)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
    assert await gate.sessions() == before


@pytest.mark.invariant("INV-006")
async def test_a_caller_cannot_choose_who_it_is(gate: GateFixture) -> None:
    """The right hint changes nothing; a wrong one is 409 and stores nothing, after permission was judged (D-42)."""
    principal = await gate.principal(components=("indexer_*",))
    assert (await gate.boot(principal, principal_key="indexer")).status_code == 200
    before = await gate.sessions()
    wrong = await gate.boot(principal, principal_key="admin")
    assert (wrong.status_code, wrong.json()["code"]) == (409, "PRINCIPAL_MISMATCH")
    again = await gate.boot(principal, principal_key="admin", headers={"idempotency-key": "k"})
    assert again.status_code == 409
    forbidden = await gate.boot(principal, "other", principal_key="admin")
    assert forbidden.json()["code"] == "COMPONENT_NOT_PERMITTED"
    assert await gate.sessions() == before


@pytest.mark.invariant("INV-008")
async def test_components_are_permitted_explicitly(gate: GateFixture) -> None:
    """Inside the list 200, outside 403, and an empty list permits none; a refusal stores nothing."""
    tenant = uuid4()
    some = await gate.principal("some", tenant=tenant, components=("indexer", "db_*"))
    none = await gate.principal("none", tenant=tenant, components=())
    for component in ("indexer", "db_7", "db_a.b:c-d_e"):
        assert (await gate.boot(some, component)).status_code == 200
    before = await gate.sessions()
    for principal, component in [
        (some, "Indexer"),
        (some, "indexer_1"),
        (some, "db"),
        (none, "indexer"),
    ]:
        answer = await gate.boot(principal, component)
        assert (answer.status_code, answer.json()["code"]) == (403, "COMPONENT_NOT_PERMITTED")
    assert await gate.sessions() == before


@pytest.mark.invariant("INV-007", "INV-041")
async def test_resolution_is_complete_or_nothing(gate: GateFixture) -> None:
    """Each missing link has its own answer; none gives a packet or a session."""
    tenant = uuid4()
    unbound = await gate.principal("unbound", tenant=tenant, bound=False)
    incomplete = await gate.principal("incomplete", tenant=tenant, body=None)
    before = await gate.sessions()
    for principal, status, code in [(unbound, 403, "NO_BINDING"), (incomplete, 409, "BINDING_INCOMPLETE")]:
        answer = await gate.boot(principal)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert "profile" not in answer.json()
    bound = await gate.principal("bound", tenant=tenant)
    assert (await gate.boot(bound)).status_code == 200
    await gate.publish(deletes={"binding": [(str(tenant), "bound")]})
    assert (await gate.boot(bound)).json()["code"] == "NO_BINDING"
    assert await gate.sessions() == before + 1


@pytest.mark.invariant("INV-017", "INV-016")
async def test_304_when_unchanged_and_a_session_all_the_same(gate: GateFixture) -> None:
    """A matching tag, in any form, in header or body, gives an empty 304 that names a new session."""
    principal = await gate.principal()
    first = await gate.boot(principal)
    etag = first.json()["packet_etag"]
    before = await gate.sessions()
    ids = set()
    forms = [
        ({"if-none-match": f'"{etag}"'}, {}),
        ({"if-none-match": f'W/"{etag}"'}, {}),
        ({"if-none-match": etag}, {}),
        ({"if-none-match": f'"other", W/"{etag}"'}, {}),
        ({}, {"last_packet_etag": etag}),
        ({}, {"last_packet_etag": f'"{etag}"'}),
    ]
    for headers, body in forms:
        answer = await gate.boot(principal, headers=headers, **body)
        assert answer.status_code == 304
        assert answer.content == b""
        assert answer.headers["etag"] == f'"{etag}"'
        assert at(answer.headers["metagate-startup-deadline"]) > datetime.now(UTC)
        ids.add(answer.headers["metagate-startup-id"])
        assert (await gate.ready(principal, answer.headers["metagate-startup-id"])).status_code == 200
    assert len(ids) == len(forms)
    assert await gate.sessions() == before + len(forms)
    for stale in ("0" * 64, "*", '""', etag[:-1]):
        assert (await gate.boot(principal, headers={"if-none-match": stale})).status_code == 200


@pytest.mark.invariant("INV-017", "INV-018", "INV-010")
async def test_etags_follow_what_is_served(gate: GateFixture) -> None:
    """The tag changes with every input and with nothing else; after a change the old tag gives 200."""
    tenant = uuid4()
    principal = await gate.principal(tenant=tenant)
    neighbour = await gate.principal("neighbour", tenant=tenant)
    first = (await gate.boot(principal)).json()["packet_etag"]
    assert (await gate.boot(principal)).json()["packet_etag"] == first
    await gate.principal("stranger", tenant=tenant)
    assert (await gate.boot(principal)).json()["packet_etag"] == first, "an irrelevant write changes nothing"
    observations = {first}
    for sections in [
        {"capabilities": {"index": False}},
        {"policy": {"max_parallel": 5}},
        {"services": {}},
        {"environment": {"region": "us"}},
        {"memory_map": {}},
        {"polling": {}},
        {"schemas": {"receipt": {"ref": "urn:x"}}},
        {"required_env": []},
        {"profile": "other"},
        {"manifest": "other"},
    ]:
        principal = await gate.change(principal, body=shared_body(**sections))
        answer = await gate.boot(principal, headers={"if-none-match": f'"{first}"'})
        assert answer.status_code == 200
        [(section, value)] = sections.items()
        assert answer.json()[section] == value
        observations.add(answer.json()["packet_etag"])
    assert len(observations) == 11
    assert (await gate.boot(neighbour)).json()["services"] != {}


@pytest.mark.invariant("INV-016")
async def test_every_bootstrap_is_one_session(gate: GateFixture) -> None:
    """A mix of 200, 304 and refusals, all at once: as many new rows as answers that name one, all distinct."""
    principal = await gate.principal(components=("indexer_*",))
    etag = (await gate.boot(principal)).json()["packet_etag"]
    before = await gate.sessions()
    answers = await asyncio.gather(
        *[gate.boot(principal) for _ in range(40)],
        *[gate.boot(principal, headers={"if-none-match": etag}) for _ in range(40)],
        *[gate.boot(principal, "other") for _ in range(20)],
    )
    ids = [answer.headers.get("metagate-startup-id") for answer in answers]
    assert [answer.status_code for answer in answers] == [200] * 40 + [304] * 40 + [403] * 20
    assert len(set(ids[:80])) == 80
    assert ids[80:] == [None] * 20
    assert await gate.sessions() == before + 80


async def test_idempotency_key_replays_the_answer(gate: GateFixture) -> None:
    """The same key, principal and component give the same answer and no second session (D-03, D-41)."""
    principal = await gate.principal()
    before = await gate.sessions()
    first = await gate.boot(principal, headers={"idempotency-key": "start-1"})
    assert "idempotency-replayed" not in first.headers
    second = await gate.boot(principal, headers={"idempotency-key": "start-1"})
    assert second.status_code == 200
    assert second.headers["idempotency-replayed"] == "true"
    assert second.json() == first.json()
    assert await gate.sessions() == before + 1
    other = await gate.boot(principal, "indexer_2", headers={"idempotency-key": "start-1"})
    assert (other.status_code, other.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    unchanged = await gate.boot(
        principal, headers={"idempotency-key": "start-1", "if-none-match": first.headers["etag"]}
    )
    assert unchanged.status_code == 304
    assert unchanged.headers["metagate-startup-id"] == first.json()["startup"]["startup_id"]
    assert await gate.sessions() == before + 1


async def test_a_replay_is_the_answer_as_it_was(gate: GateFixture) -> None:
    """After a publish the replay still carries the digest it booted with; suspension is checked again."""
    principal = await gate.principal()
    first = await gate.boot(principal, headers={"idempotency-key": "k"})
    principal = await gate.change(principal, body=shared_body(services={}))
    replay = await gate.boot(principal, headers={"idempotency-key": "k"})
    assert replay.json() == first.json()
    fresh = await gate.boot(principal)
    assert fresh.json()["services"] == {}
    assert fresh.json()["snapshot"]["revision"] > replay.json()["snapshot"]["revision"]
    principal = await gate.change(principal, suspended=True)
    assert (await gate.boot(principal, headers={"idempotency-key": "k"})).json()["code"] == "PRINCIPAL_SUSPENDED"


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "a\tb"])
async def test_idempotency_keys_are_bounded(gate: GateFixture, key: str) -> None:
    """What is no key is 422, never silently another key."""
    answer = await gate.boot(await gate.principal(), headers={"idempotency-key": key})
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")


async def test_two_idempotency_keys_are_refused(gate: GateFixture) -> None:
    """Several keys in one request: 400, none is picked."""
    principal = await gate.principal()
    headers = [*principal.by_key.items(), ("idempotency-key", "a"), ("idempotency-key", "b")]
    answer = await gate.client.post("/v1/bootstrap", json={"component_key": "indexer_1"}, headers=headers)
    assert answer.status_code == 400


@pytest.mark.invariant("INV-016")
async def test_a_hundred_racers_with_one_key(gate: GateFixture) -> None:
    """100 concurrent bootstraps with one key leave one row and give 100 equal answers."""
    principal = await gate.principal()
    before = await gate.sessions()

    async def racer() -> httpx.Response:
        for _ in range(20):
            answer = await gate.boot(principal, headers={"idempotency-key": "race"})
            if answer.status_code != 503:  # the database had no time for it: ask again, as the client does
                break
            await asyncio.sleep(0.1)
        return answer

    answers = await asyncio.gather(*[racer() for _ in range(100)])
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    # One has opened it, unless its answer came too late and it was given again.
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) <= 1
    assert await gate.sessions() == before + 1


@pytest.mark.invariant("INV-032")
@pytest.mark.parametrize(
    "sections",
    [{"services": {"a": {"tasks": []}}}, {"policy": {"x": [{"Work-Items": 1}]}}, {"capabilities": {"executE": True}}],
    ids=str,
)
async def test_offending_rows_are_never_served(gate: GateFixture, sections: dict[str, Any]) -> None:
    """A forbidden key that got into the database: 503, an alert, no packet, no session."""
    principal = await gate.principal(body=shared_body(**sections))
    before = await gate.sessions()
    for _ in range(2):
        answer = await gate.boot(principal)
        assert (answer.status_code, answer.json()["code"]) == (503, "PACKET_REFUSED")
    assert await gate.sessions() == before
    assert "metagate_packets_refused_total" in (await gate.client.get("/metrics")).text


@pytest.mark.invariant("INV-032")
async def test_altered_bodies_are_never_served(gate: GateFixture) -> None:
    """A body that is not what its digest says: 503, no session (D-38)."""
    body = shared_body(environment={"canary": "altered"})
    await gate.ask(
        "INSERT INTO metagate.packet (digest, body) VALUES ($1, $2)", digest(body), body.replace(b"altered", b"ALTERED")
    )
    principal = await gate.principal(body=body)
    before = await gate.sessions()
    answer = await gate.boot(principal)
    assert (answer.status_code, answer.json()["code"]) == (503, "PACKET_REFUSED")
    assert await gate.sessions() == before


@pytest.mark.invariant("INV-016")
async def test_no_packet_without_its_row(gate: GateFixture) -> None:
    """When the insert fails, so does the bootstrap: 503, nobody gets a packet."""
    principal = await gate.principal()
    await gate.boot(principal)
    await gate.ask(
        "DO $$ BEGIN CREATE FUNCTION metagate.broken() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN IF NEW.component_key = ''doomed'' THEN RAISE EXCEPTION ''no''; END IF; RETURN NEW; END'; "
        "CREATE TRIGGER broken BEFORE INSERT ON metagate.startup FOR EACH ROW EXECUTE FUNCTION metagate.broken(); END $$"
    )
    try:
        before = await gate.sessions()
        doomed, *others = await asyncio.gather(
            gate.boot(principal, "doomed"), *[gate.boot(principal) for _ in range(20)]
        )
        assert (doomed.status_code, doomed.json()["code"]) == (503, "UNAVAILABLE")
        assert doomed.headers["retry-after"]
        assert {answer.status_code for answer in others} == {200}, "one row never spoils the others"
        assert await gate.sessions() == before + 20
    finally:
        await gate.ask("DO $$ BEGIN DROP FUNCTION metagate.broken() CASCADE; END $$")


async def test_order_of_checks(gate: GateFixture) -> None:
    """Credential, then media type, syntax, bounds, validity, then permission, then conflict (D-42)."""
    principal = await gate.principal(components=("indexer_*",))
    suspended = await gate.principal("suspended", suspended=True)

    async def code(content: bytes, media: str = "application/json", principal: Any = principal) -> tuple[int, str]:
        answer = await gate.client.post(
            "/v1/bootstrap", content=content, headers={**principal.by_key, "content-type": media}
        )
        return answer.status_code, answer.json()["code"]

    assert await code(b"x", "text/plain") == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert await code(b"x") == (400, "MALFORMED_JSON")
    assert await code(b"[" * 40 + b"]" * 40) == (422, "JSON_TOO_DEEP")
    assert await code(b"[]") == (422, "INVALID_REQUEST")
    assert await code(b"{}", principal=suspended) == (422, "INVALID_REQUEST")
    assert await code(b'{"component_key":"a"}', principal=suspended) == (403, "PRINCIPAL_SUSPENDED")
    assert await code(b'{"component_key":"a","principal_key":"x"}') == (403, "COMPONENT_NOT_PERMITTED")
    assert await code(b'{"component_key":"indexer_1","principal_key":"x"}') == (409, "PRINCIPAL_MISMATCH")


@pytest.mark.invariant("INV-009")
async def test_a_hundred_calls_one_packet(gate: GateFixture) -> None:
    """The packet of one binding is the same a hundred times, but for the fields of the request."""
    principal = await gate.principal()
    answers = await asyncio.gather(*[gate.boot(principal) for _ in range(100)])
    own = {"packet_id", "issued_at", "startup"}
    assert len({str({k: v for k, v in sorted(a.json().items()) if k not in own}) for a in answers}) == 1
