"""After the commit: what targets get, what a caller hears of it, and what is left in the ledger (IG-09, IG-10)."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt import PyJWK, decode
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.gate_fixture import (
    OPEN_POLICY,
    GateClient,
    PublishedWorld,
    Requesting,
    serving_interrogate,
)
from tests.unit.interrogate.hostile_target import TargetServer, hostile_target

PAYLOAD = b'{ "text":"h\xc3\xa9llo",\t"n":1.0, "big":12345678901234567890 }'


@pytest_asyncio.fixture
async def target() -> AsyncIterator[TargetServer]:
    async with hostile_target() as server:
        yield server


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "signing.pem"
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


@pytest_asyncio.fixture(loop_scope="session")
async def gate(admission_database: AdmissionDatabase, key_file: Path) -> AsyncIterator[GateClient]:
    world = PublishedWorld(admission_database)
    settings = {"target_hosts": "127.0.0.1", "signing_key_file": str(key_file), "forward_ms": 1_000}
    async with serving_interrogate(world, **settings) as served:
        yield served


def with_targets(*targets: dict[str, Any], **surface: Any) -> dict[str, Any]:
    [only] = OPEN_POLICY["surfaces"]
    return {**OPEN_POLICY, "surfaces": [{**only, "targets": list(targets), **surface}]}


async def requesting(gate: GateClient, *targets: dict[str, Any], **surface: Any) -> Requesting:
    principal = gate.world.principal("alice")
    await gate.world.publish(principal, policies={"strict": with_targets(*targets, **surface)})
    return await gate.awaited(gate.requesting(principal))


def body_of(requesting: Requesting, **changes: Any) -> bytes:
    """An envelope whose payload is written as no encoder would write it."""
    envelope = json.dumps(requesting.envelope(payload="HERE", **changes)).encode()
    return envelope.replace(b'"HERE"', PAYLOAD)


@pytest.mark.invariant("INV-112", "EXT-28")
async def test_a_target_gets_the_bytes_and_can_check_the_admission(gate: GateClient, target: TargetServer) -> None:
    """The payload byte for byte, who asks, and a token that the published key verifies; never the caller's credential."""
    alice = await requesting(gate, {"name": "worker", "url": target.url("/ok"), "audience": "worker"})
    answer = await alice.evaluate(body_of(alice))
    assert answer.status_code == 200, answer.text
    decision = answer.json()
    assert decision["forwards"] == [
        {"target": "worker", "state": "delivered", "status": 200, "reason": None, "answer": {"accepted": True}}
    ]
    [(method, _, headers, body)] = target.requests
    assert (method, body) == ("POST", PAYLOAD)
    assert headers["idempotency-key"] == headers["legivellum-admission"] == decision["receipt_id"]
    assert headers["legivellum-task"] == headers["legivellum-root-task"] == decision["task_id"]
    assert (headers["legivellum-spawn-depth"], headers["legivellum-principal"]) == ("0", "alice")
    assert "legivellum-parent-task" not in headers
    assert alice.principal.key not in json.dumps(headers)
    [jwk] = (await gate.client.get("/.well-known/jwks.json")).json()["keys"]
    claims = decode(headers["authorization"].removeprefix("Bearer "), PyJWK(jwk), ["EdDSA"], audience="worker")
    assert (claims["sub"], claims["admission"], claims["task"]) == (
        f"interrogate:{gate.world.namespace}",
        decision["receipt_id"],
        decision["task_id"],
    )
    assert claims["payload_sha256"] == hashlib.sha256(body).hexdigest()
    # What a receiver that requires admission looks up at the ledger.
    [receipt] = await gate.receipts()
    assert (receipt["kind"], receipt["phase"], receipt["task_id"]) == ("admission", "accepted", decision["task_id"])
    assert receipt["body"]["targets"] == ["worker"]
    assert receipt["body"]["payload_sha256"] == hashlib.sha256(body).hexdigest()


async def test_a_token_is_for_one_audience_only(gate: GateClient, target: TargetServer) -> None:
    """A target that declares no audience is shown no token."""
    alice = await requesting(gate, {"name": "worker", "url": target.url("/ok")})
    assert (await alice.evaluate()).status_code == 200
    assert "authorization" not in target.requests[0][2]


@pytest.mark.invariant("INV-111")
async def test_nothing_is_called_before_it_is_admitted(gate: GateClient, target: TargetServer) -> None:
    """Not for a refusal, not for a check, and not where the target says `forward: false`; the receipt names it."""
    alice = await requesting(
        gate,
        {"name": "worker", "url": target.url("/ok"), "forward": False},
        {"name": "tools", "url": target.url("/ok"), "kind": "Mcp"},
    )
    assert (await alice.evaluate()).json()["forwards"] == []
    assert (await alice.evaluate(alice.envelope(causality={"capability_id": "mail.send"}))).status_code == 403
    assert (await alice.post("/v1/check", alice.envelope())).json()["outcome"] == "ALLOW"
    assert target.requests == []
    assert (await gate.receipts())[0]["body"]["targets"] == ["worker", "tools"]


@pytest.mark.invariant("INV-118")
@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/error", 500, "REFUSED"),
        ("/redirect", 307, "REFUSED"),
        ("/hang", None, "TIMEOUT"),
        ("/reset", None, "UNREACHABLE"),
    ],
)
async def test_what_was_not_delivered_is_escalated_once(
    gate: GateClient, target: TargetServer, path: str, status: int | None, reason: str
) -> None:
    """502 with the decision; one escalate receipt to the caller, and the same again for a retry, without another call."""
    alice = await requesting(gate, {"name": "worker", "url": target.url(path)})
    body = alice.envelope()
    answer = await alice.evaluate(body, idempotency_key="once")
    assert answer.status_code == 502, answer.text
    decision = answer.json()
    assert decision["outcome"] == "ALLOW"
    [forward] = decision["forwards"]
    assert (forward["state"], forward["status"], forward["reason"]) == ("failed", status, reason)
    again = await alice.evaluate(body, idempotency_key="once")
    assert (again.status_code, again.headers["idempotency-replayed"]) == (502, "true")
    assert again.json() == decision
    assert len(target.requests) == 1
    admitted, escalated = await gate.receipts()
    assert (escalated["phase"], escalated["receipt_id"]) == ("escalate", decision["escalation_receipt_id"])
    assert escalated["caused_by_receipt_id"] == admitted["receipt_id"] == decision["receipt_id"]
    assert escalated["escalation_to"] == "alice"


async def test_one_of_two_targets_failed(gate: GateClient, target: TargetServer) -> None:
    """Both are called; one receipt tells of both, to whom the surface names."""
    alice = await requesting(
        gate,
        {"name": "worker", "url": target.url("/ok")},
        {"name": "audit", "url": target.url("/error")},
        escalateTo="alice",
    )
    decision = (await alice.evaluate()).json()
    assert {forward["target"]: forward["state"] for forward in decision["forwards"]} == {
        "worker": "delivered",
        "audit": "failed",
    }
    [_, escalated] = await gate.receipts()
    assert len(escalated["body"]["forwards"]) == 2
    decision = (await alice.evaluate(alice.envelope(target="worker"))).json()
    assert [forward["target"] for forward in decision["forwards"]] == ["worker"]


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "http://worker.neighbour.svc/", "http://localhost:1/"])
async def test_an_address_that_is_not_the_tenants_is_never_contacted(gate: GateClient, url: str) -> None:
    """A metadata service and a neighbour are refused; a bare name is a service of the tenant's own namespace."""
    alice = await requesting(gate, {"name": "worker", "url": url})
    decision = (await alice.evaluate()).json()
    [forward] = decision["forwards"]
    assert forward["reason"] == ("UNREACHABLE" if "localhost" in url else "REFUSED")


async def test_a_forward_whose_process_died_is_failed_by_the_sweep(
    admission_database: AdmissionDatabase, gate: GateClient, target: TargetServer
) -> None:
    """What is pending for a minute is escalated as TIMEOUT: nobody knows what the target did."""
    alice = await requesting(gate, {"name": "worker", "url": target.url("/ok")})
    decision = (await alice.evaluate()).json()
    connection = await asyncpg.connect(admission_database.superuser)
    try:
        # As after kill -9 between the commit and the answer of the target, more than a minute ago.
        changed = await connection.execute(
            "UPDATE interrogate.forward SET state = 'pending', status = NULL, settled_at = NULL, answer = NULL, "
            "created_at = created_at - interval '61 s' WHERE receipt_id = $1",
            decision["receipt_id"],
        )
        assert changed == "UPDATE 1"
    finally:
        await connection.close()
    async with serving_interrogate(gate.world, sweep_seconds=0.05), asyncio.timeout(20):
        while len(receipts := await gate.receipts()) == 1:
            await asyncio.sleep(0.05)
    assert [receipt["phase"] for receipt in receipts] == ["accepted", "escalate"]
    assert receipts[1]["body"]["forwards"][0]["reason"] == "TIMEOUT"


@asynccontextmanager
async def settling_refused(database: AdmissionDatabase) -> AsyncIterator[None]:
    """The database takes decisions, and not what became of their targets."""
    connection = await asyncpg.connect(database.superuser)
    try:
        await connection.execute("REVOKE EXECUTE ON FUNCTION interrogate.settle_forwards FROM interrogate_writer")
        yield
    finally:
        await connection.execute("GRANT EXECUTE ON FUNCTION interrogate.settle_forwards TO interrogate_writer")
        await connection.close()


@pytest.mark.invariant("INV-108")
@pytest.mark.parametrize(("path", "status"), [("/ok", 200), ("/error", 502)])
async def test_what_cannot_be_settled_is_settled_by_the_retry(
    admission_database: AdmissionDatabase, gate: GateClient, target: TargetServer, path: str, status: int
) -> None:
    """503 that does not say that nothing was decided; the retry calls the target again under the same key, and settles."""
    alice = await requesting(gate, {"name": "worker", "url": target.url(path)})
    body = alice.envelope()
    async with settling_refused(admission_database):
        answer = await alice.evaluate(body, idempotency_key="kept")
        assert (answer.status_code, answer.json()["code"]) == (503, "DEADLINE_EXCEEDED"), answer.text
        assert "retry-after" in answer.headers
        [receipt] = await gate.receipts()
        assert receipt["phase"] == "accepted"
    answer = await alice.evaluate(body, idempotency_key="kept")
    assert (answer.status_code, answer.headers["idempotency-replayed"]) == (status, "true")
    decision = answer.json()
    assert decision["receipt_id"] == receipt["receipt_id"]
    assert [headers["idempotency-key"] for _, _, headers, _ in target.requests] == [receipt["receipt_id"]] * 2
    phases = [receipt["phase"] for receipt in await gate.receipts()]
    assert phases == (["accepted"] if status == 200 else ["accepted", "escalate"])
    assert (await alice.evaluate(body, idempotency_key="kept")).json() == decision
    assert len(target.requests) == 2
