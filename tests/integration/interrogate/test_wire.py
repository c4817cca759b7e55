"""The wire of InterroGate: what decides nothing, what is decided once, and what only looks."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.gate_fixture import (
    OPEN_POLICY,
    GateClient,
    PublishedWorld,
    Requesting,
    serving_interrogate,
)
from tests.integration.memorygate.conftest import new_id, rows


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(admission_database: AdmissionDatabase) -> AsyncIterator[GateClient]:
    async with serving_interrogate(PublishedWorld(admission_database)) as gate:
        yield gate


@pytest_asyncio.fixture(loop_scope="session")
async def gate(served: GateClient) -> GateClient:
    """The gate with a tenant of this test's own."""
    return replace(served, world=PublishedWorld(served.world.database))


@pytest_asyncio.fixture(loop_scope="session")
async def alice(gate: GateClient) -> Requesting:
    principal = gate.world.principal("alice")
    await gate.world.publish(principal, policies={"strict": OPEN_POLICY})
    return await gate.awaited(gate.requesting(principal))


async def stored_rows(gate: GateClient) -> int:
    """Rows of this tenant, in the ledger and in the gate's own tables."""
    names = [name for (name,) in await rows(gate.world.database.superuser, TENANT_TABLES)]
    assert len(names) > 4
    counted = 0
    for name in (*names, "memorygate.receipt"):
        [(number,)] = await rows(
            gate.world.database.superuser, f"SELECT count(*) FROM {name} WHERE tenant = $1", gate.world.tenant
        )
        counted += number
    return counted


TENANT_TABLES = """
SELECT format('%I.%I', table_schema, table_name) FROM information_schema.columns
WHERE table_schema = 'interrogate' AND column_name = 'tenant'
AND table_name IN (SELECT tablename FROM pg_tables WHERE schemaname = 'interrogate')
"""


def changed(body: dict[str, Any], **members: Any) -> dict[str, Any]:
    """With members of the envelope replaced; None removes one."""
    merged = {**body, **members}
    return {name: value for name, value in merged.items() if value is not None}


@pytest.mark.invariant("INV-097")
@pytest.mark.parametrize("member", ["tenant_id", "surface_id", "policy_profile_id"])
@pytest.mark.parametrize("value", [None, "", "  ", 7, ["strict"]], ids=["absent", "empty", "blank", "number", "list"])
async def test_without_a_domain_nothing_is_decided(
    gate: GateClient, alice: Requesting, member: str, value: Any
) -> None:
    """422 NO_DOMAIN whatever a header says, and not one row."""
    before = await stored_rows(gate)
    answer = await alice.evaluate(
        changed(alice.envelope(), **{member: value}), x_tenant_id=str(gate.world.tenant), legivellum_surface="public"
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "NO_DOMAIN")
    assert await stored_rows(gate) == before


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "MALFORMED_JSON"),
        (b"{", 400, "MALFORMED_JSON"),
        (b'{"tenant_id":"a","tenant_id":"b"}', 400, "MALFORMED_JSON"),
        (b"[]", 422, "INVALID_REQUEST"),
        (b"[" * 200 + b"]" * 200, 422, "JSON_TOO_DEEP"),
        (b" " * 300_000, 413, "BODY_TOO_LARGE"),
    ],
)
async def test_a_bad_body_is_no_decision(
    gate: GateClient, alice: Requesting, body: bytes, status: int, code: str
) -> None:
    before = await stored_rows(gate)
    answer = await alice.evaluate(body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert await stored_rows(gate) == before


@pytest.mark.parametrize(
    "members",
    [
        {"unknown": 1},
        {"payload_kind": "tool_call"},
        {"payload_kind": 5},
        {"target": 5},
        {"artifact_bytes": -1},
        {"artifact_bytes": 1.5},
        {"causality": {"root_task_id": 5}},
        {"causality": {"spawn_depth": "0"}},
        {"causality": {"unknown": "x"}},
        {"causality": []},
    ],
    ids=str,
)
async def test_an_envelope_that_means_nothing_is_no_decision(
    gate: GateClient, alice: Requesting, members: dict[str, Any]
) -> None:
    before = await stored_rows(gate)
    answer = await alice.evaluate({**alice.envelope(), **members})
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
    assert await stored_rows(gate) == before


async def test_who_is_not_believed_is_not_decided_about(gate: GateClient, alice: Requesting) -> None:
    """No credential, a wrong one, a suspended principal: 401 and 403 before anything else, and no row."""
    suspended = gate.world.principal("sam", suspended=True)
    await gate.world.publish(suspended)
    before = await stored_rows(gate)
    body = alice.envelope()
    assert (await gate.client.post("/v1/evaluate", json=body)).json()["code"] == "CREDENTIAL_MISSING"
    wrong = replace(alice, principal=gate.world.principal("alice"))
    assert (await wrong.evaluate(body)).json()["code"] == "CREDENTIAL_INVALID"
    async with asyncio.timeout(20):
        while (answer := await gate.requesting(suspended).evaluate(body)).status_code == 401:
            await asyncio.sleep(0.02)
    assert (answer.status_code, answer.json()["code"]) == (403, "PRINCIPAL_SUSPENDED")
    assert await stored_rows(gate) == before


async def test_an_unknown_policy_or_surface_is_denied_with_a_receipt(gate: GateClient, alice: Requesting) -> None:
    """Also where another tenant has one of that name."""
    stranger = gate.world.principal("zed", tenant=uuid4())
    await gate.world.publish(stranger, policies={"theirs": OPEN_POLICY}, tenant=stranger.tenant)
    for body, reason in (
        (alice.by("theirs").envelope(), "POLICY_NOT_FOUND"),
        (changed(alice.envelope(), surface_id="private"), "SURFACE_NOT_FOUND"),
    ):
        answer = await alice.evaluate(body)
        assert (answer.status_code, answer.json()["reason_code"]) == (403, reason)
    assert [receipt["phase"] for receipt in await gate.receipts()] == ["rejected", "rejected"]


async def test_another_tenant_is_denied_in_the_callers_own(gate: GateClient, alice: Requesting) -> None:
    """Filed where the caller is; the tenant that was named learns nothing, and is not named."""
    other = str(uuid4())
    answer = await alice.evaluate(changed(alice.envelope(), tenant_id=other))
    assert (answer.status_code, answer.json()["reason_code"]) == (403, "UNAUTHORIZED")
    [receipt] = await gate.receipts()
    assert other not in json.dumps(receipt) + answer.text
    assert (await alice.evaluate(changed(alice.envelope(), tenant_id=gate.world.namespace))).status_code == 200


@pytest.mark.invariant("INV-108")
async def test_a_key_is_decided_once(gate: GateClient, alice: Requesting) -> None:
    """The same envelope: the same decision and no second row. Another envelope: 409, and nothing is decided."""
    body = alice.envelope()
    first = await alice.evaluate(body, idempotency_key="k-1")
    assert (first.status_code, first.headers.get("idempotency-replayed")) == (200, None)
    again = await alice.evaluate(body, idempotency_key="k-1")
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    assert again.json() == first.json()
    other = await alice.evaluate(alice.envelope(), idempotency_key="k-1")
    assert (other.status_code, other.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    # An admitted task replays without a key too, for the principal that was admitted.
    keyless = await alice.evaluate(body)
    assert (keyless.json()["receipt_id"], keyless.headers["idempotency-replayed"]) == (
        first.json()["receipt_id"],
        "true",
    )
    assert len(await gate.receipts()) == 1


async def test_racers_with_one_key_hear_one_decision(gate: GateClient, alice: Requesting) -> None:
    body = alice.envelope()
    answers = await asyncio.gather(*(alice.evaluate(body, idempotency_key="race") for _ in range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["receipt_id"] for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers].count(None) == 1
    assert len(await gate.receipts()) == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
async def test_a_key_that_is_none(gate: GateClient, alice: Requesting, key: str) -> None:
    answer = await alice.evaluate(idempotency_key=key)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
    assert await gate.receipts() == []


async def test_too_often_is_denied_with_the_time_to_come_back(gate: GateClient) -> None:
    """429 is a decision with a receipt here; Retry-After is whole seconds, rounded up."""
    principal = gate.world.principal("alice")
    [surface] = OPEN_POLICY["surfaces"]
    limited = {**surface, "rateLimit": {"requests": 2, "per": "10m"}}
    await gate.world.publish(principal, policies={"strict": {**OPEN_POLICY, "surfaces": [limited]}})
    alice = await gate.awaited(gate.requesting(principal))
    answers = [await alice.evaluate() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    decision = answers[2].json()
    assert decision["reason_code"] == "RATE_LIMITED"
    assert 0 < decision["retry_after_ms"] <= 300_000
    assert int(answers[2].headers["retry-after"]) == -(-decision["retry_after_ms"] // 1_000)
    assert [receipt["phase"] for receipt in await gate.receipts()] == ["accepted", "accepted", "rejected"]


@pytest.mark.invariant("EXT-25", "INV-097")
async def test_who_a_caller_says_it_is_counts_for_nothing(gate: GateClient) -> None:
    """Only the credential says who asks and as what: a worker that calls itself an admitted principal in headers and payload
    begins no tree and passes no rule about the caller; in the envelope such a member is refused."""
    worker = gate.world.principal("wanda", "worker")
    [surface] = OPEN_POLICY["surfaces"]
    trusting = {
        **OPEN_POLICY,
        "invariants": {"rules": [{"name": "people-only", "cel": "caller.type == 'principal'"}]},
        "surfaces": [{**surface, "mayBegin": ["wanda"], "principals": ["wanda", "alice"]}],
    }
    await gate.world.publish(worker, policies={"strict": OPEN_POLICY, "people": trusting})
    wanda = await gate.awaited(gate.requesting(worker))
    declared = {
        "legivellum_principal": "alice", "x_principal_key": "alice", "x_principal_type": "principal", "x_trust": "verified",
        "legivellum_admission": new_id(),
    }  # fmt: skip
    payload = {"caller": {"principal_key": "alice", "type": "principal"}, "trust": "verified"}
    answers = [
        await wanda.evaluate(asking.envelope(payload=payload), **declared) for asking in (wanda, wanda.by("people"))
    ]
    assert [answer.json()["reason_code"] for answer in answers] == ["CAUSALITY_MISMATCH", "INVARIANT_VIOLATION"]
    for receipt in await gate.receipts():
        assert receipt["principal_ai"] == "wanda"
        assert receipt["body"]["caller"] == {"principal_key": "wanda", "type": "worker"}
    answer = await wanda.evaluate({**wanda.envelope(), "caller": payload["caller"]}, **declared)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")


@pytest.mark.invariant("INV-127")
async def test_together_they_are_decided_as_one_after_the_other(gate: GateClient) -> None:
    """40 requests at once below one root with room for 25: 25 admitted, 15 refused, and each has a receipt."""
    principal = gate.world.principal("alice")
    policy = {**OPEN_POLICY, "limits": {"maxSpawnDepth": 3, "maxTotalDescendants": 25}}
    await gate.world.publish(principal, policies={"strict": policy})
    alice = await gate.awaited(gate.requesting(principal))
    root = (await alice.evaluate()).json()
    answers = await asyncio.gather(*(alice.evaluate(alice.child(root)) for _ in range(40)))
    assert sorted(answer.status_code for answer in answers) == [200] * 25 + [403] * 15
    refused = {answer.json()["reason_code"] for answer in answers if answer.status_code == 403}
    assert refused == {"DESCENDANTS_EXCEEDED"}
    assert len(await gate.receipts()) == 41


@pytest.mark.invariant("EXT-27")
async def test_a_check_leaves_nothing(gate: GateClient) -> None:
    """Always 200, the same verdict as evaluate; no receipt, no row, no target's name, no rate spent."""
    principal = gate.world.principal("alice")
    [surface] = OPEN_POLICY["surfaces"]
    strict = {
        **surface,
        "rateLimit": {"requests": 1, "per": "10m"},
        "targets": [{"name": "hidden-worker", "url": "http://hidden-worker/"}],
    }
    await gate.world.publish(principal, policies={"strict": {**OPEN_POLICY, "surfaces": [strict]}})
    alice = await gate.awaited(gate.requesting(principal))
    before = await stored_rows(gate)
    for _ in range(3):
        answer = await alice.post("/v1/check", alice.envelope())
        assert answer.status_code == 200
        assert answer.json() == {
            "outcome": "ALLOW",
            "reason_code": None,
            "detail": None,
            "policy": answer.json()["policy"],
            "depth": 0,
            "budget_remaining": None,
            "retry_after_ms": None,
        }
        assert "hidden-worker" not in answer.text
    denied = await alice.post("/v1/check", alice.envelope(causality={"capability_id": "mail.send"}))
    assert (denied.status_code, denied.json()["reason_code"]) == (200, "CAPABILITY_DENIED")
    assert await stored_rows(gate) == before


async def test_an_explanation_of_an_envelope_shows_every_rule(gate: GateClient, alice: Requesting) -> None:
    body = alice.envelope(causality={"capability_id": "mail.send"})
    rules = (await alice.post("/v1/explain", body)).json()["rules"]
    assert [rule["rule"] for rule in rules] == sorted(rule["rule"] for rule in rules)
    assert {rule["reason_code"] for rule in rules if rule["passed"] is False} == {"CAPABILITY_DENIED"}
    assert await gate.receipts() == []


async def test_an_explanation_of_a_receipt_decides_again(gate: GateClient, alice: Requesting) -> None:
    """For its caller and for readers; for others it is not there. It is the same also under another policy since."""
    eve, bob = gate.world.principal("eve", "observer"), gate.world.principal("bob")
    await gate.world.publish(eve, bob)
    denied = (await alice.evaluate(alice.envelope(causality={"capability_id": "mail.send"}))).json()
    admitted = (await alice.evaluate()).json()
    await gate.world.publish(policies={"strict": {**OPEN_POLICY, "surfaces": []}})
    for reader in (alice, await gate.awaited(gate.requesting(eve))):
        for decision in (denied, admitted):
            answer = await reader.post("/v1/explain", {"receipt_id": decision["receipt_id"]})
            assert answer.status_code == 200, answer.text
            explained = answer.json()
            assert explained["same"] is True
            assert explained["recorded"]["outcome"] == explained["redecided"]["outcome"] == decision["outcome"]
            assert explained["recorded"]["reason_code"] == decision["reason_code"]
    stranger = gate.world.principal("zed", "admin", tenant=uuid4())
    await gate.world.publish(stranger, policies={"strict": OPEN_POLICY}, tenant=stranger.tenant)
    for outsider in (gate.requesting(bob), await gate.awaited(gate.requesting(stranger))):
        answer = await outsider.post("/v1/explain", {"receipt_id": denied["receipt_id"]})
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "question",
    [{"receipt_id": 5}, {"receipt_id": "x", "more": 1}, {"receipt_id": "a\u0000b"}, {"receipt_id": ""}],
    ids=str,
)
async def test_a_question_that_means_nothing(alice: Requesting, question: dict[str, Any]) -> None:
    answer = await alice.post("/v1/explain", question)
    assert answer.status_code in {400, 404, 422}
    assert answer.json()["code"] in {"INVALID_REQUEST", "MALFORMED_JSON", "NOT_FOUND"}


async def test_what_is_no_decision_is_not_found(alice: Requesting) -> None:
    answer = await alice.post("/v1/explain", {"receipt_id": new_id()})
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


@pytest.mark.invariant("INV-113")
async def test_a_gate_of_some_surfaces(served: GateClient) -> None:
    """An instance serves what SURFACES names; others are 404 there and leave nothing."""
    world = PublishedWorld(served.world.database)
    principal = world.principal("alice")
    await world.publish(principal, policies={"strict": OPEN_POLICY})
    async with (
        serving_interrogate(world, surfaces="mcp-*, public") as some,
        serving_interrogate(world, surfaces="mcp-*") as other,
    ):
        alice = await some.awaited(some.requesting(principal))
        assert (await alice.evaluate()).status_code == 200
        answer = await other.requesting(principal).evaluate()
        async with asyncio.timeout(20):
            while (answer := await other.requesting(principal).evaluate()).status_code == 401:
                await asyncio.sleep(0.02)
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


async def test_without_a_key_there_is_an_empty_set(gate: GateClient) -> None:
    assert (await gate.client.get("/.well-known/jwks.json")).json() == {"keys": []}


@pytest.mark.invariant("INV-095")
async def test_an_interview_counts_what_waits_and_writes_nothing(gate: GateClient, alice: Requesting) -> None:
    before = await stored_rows(gate)
    answer = await gate.client.get("/v1/interview", headers=alice.principal.headers)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["gate"], shown["tenant_id"]) == ("interrogate", str(gate.world.tenant))
    assert (shown["counts"], shown["oldest"]) == ({"forwards_pending": 0}, {"forwards_pending": None})
    assert (await gate.client.post("/v1/interview", headers=alice.principal.headers)).status_code == 405
    assert await stored_rows(gate) == before


async def test_metrics_name_no_declared_name(gate: GateClient, alice: Requesting) -> None:
    await alice.evaluate()
    exposition = (await gate.client.get("/metrics")).text
    assert 'interrogate_decisions_total{outcome="ALLOW",reason=""}' in exposition
    assert gate.world.namespace not in exposition
    assert "alice" not in exposition
