"""`problemata.passthrough`: decided as `/v1/evaluate` decides, answered synchronously or with a handle (GW-05, GW-06)."""

import asyncio
import json
from typing import Any

import pytest
from tests.integration.interrogate.gate_fixture import Requesting
from tests.integration.interrogate.mcp.gateway_fixture import MODERN, GatewayFixture, McpClient, response_of
from tests.integration.memorygate.conftest import new_id


@pytest.fixture(autouse=True)
def quiet_receiver(gateway: GatewayFixture) -> None:
    receiver = gateway.receiver
    receiver.status, receiver.answer, receiver.seconds, receiver.on_request = 200, {"done": True}, 0.0, None
    receiver.requests.clear()


async def receipts_of(gateway: GatewayFixture, receipt_id: str) -> list[dict[str, Any]]:
    """The admission with that id, and the receipts that it caused."""
    return [
        receipt
        for receipt in await gateway.gate.receipts()
        if receipt_id in {receipt["receipt_id"], receipt.get("caused_by_receipt_id")}
    ]


async def test_the_result_of_a_target_comes_back(gateway: GatewayFixture) -> None:
    result = await gateway.alice.ask({"n": 1})
    content = result["structuredContent"]
    assert (content["mode"], content["result"], result["isError"]) == ("sync", {"done": True}, False)
    assert result["_meta"]["legivellum.io/receipt"] == {"admission": content["receipt_id"], "outcome": None}
    [receipt] = await receipts_of(gateway, content["receipt_id"])
    assert (receipt["phase"], receipt["task_id"], receipt["task_type"]) == (
        "accepted",
        content["task_id"],
        "plan_request",
    )
    [(headers, _)] = gateway.receiver.requests
    assert headers["legivellum-admission"] == content["receipt_id"]
    assert gateway.alice.principal.key not in json.dumps(headers)


@pytest.mark.invariant("INV-112")
async def test_the_target_gets_the_input_byte_for_byte(gateway: GatewayFixture) -> None:
    """No wrapper, and as it was written: white space, big numbers, order."""
    source = b'{ "z":1.0,\t"big":12345678901234567890, "t":"h\xc3\xa9" }'
    message = gateway.alice.message(
        "tools/call",
        {
            "name": "problemata.passthrough",
            "arguments": {"problemata_id": "desk", "capability": "doc.any", "input": "X"},
        },
    )
    body = json.dumps(message).encode().replace(b'"X"', source)
    answer = await gateway.alice.post(
        body, mcp_protocol_version=MODERN, mcp_method="tools/call", mcp_name="problemata.passthrough"
    )
    assert "result" in response_of(answer), answer.text
    assert gateway.receiver.requests[0][1] == source


async def test_both_doors_leave_the_same_receipt(gateway: GatewayFixture) -> None:
    """What REST decides and what MCP decides differs in ids and times only."""
    root, text = new_id(), {"text": "same"}
    await gateway.alice.ask(text, causality=_root(root))
    other = new_id()
    rest = Requesting(gateway.gate.client, gateway.alice.principal, profile="front-desk", surface="desk")
    envelope = rest.envelope(
        payload=text, payload_kind="plan_request", causality={**_root(other), "capability_id": "doc.any"}
    )
    raw = json.dumps(envelope, separators=(", ", ": ")).encode()
    assert (await rest.evaluate(raw)).status_code == 200
    by_root = {receipt["task_id"]: receipt for receipt in await gateway.gate.receipts()}
    mcp, rest_made = _comparable(by_root[root]), _comparable(by_root[other])
    assert mcp.pop("body") == rest_made.pop("body")
    assert mcp == rest_made


def _root(root: str) -> dict[str, Any]:
    return {"root_task_id": root, "parent_task_id": None, "caused_by_receipt_id": None, "spawn_depth": 0}


def _comparable(receipt: dict[str, Any]) -> dict[str, Any]:
    made = json.loads(json.dumps(receipt))
    for name in ("receipt_id", "task_id", "obligation_id"):
        made.pop(name, None)
    made["body"]["observed"].pop("at")
    # The root is in the digest of the envelope too.
    made["body"]["claimed"].pop("envelope_sha256")
    made["body"]["claimed"]["causality"].pop("root_task_id")
    made["body"]["derived"].pop("root_task_id")
    return dict(made)


@pytest.mark.invariant("INV-115")
async def test_a_denial_is_a_result_that_a_model_can_read(gateway: GatewayFixture) -> None:
    """It has a receipt, and nothing reaches the target."""
    observer = gateway.world.principal("watcher", "observer")
    await gateway.publish(observer)
    client = gateway.client_of(observer)
    result = await client.ask({"n": 1})
    content = result["structuredContent"]
    assert result["isError"] is True
    assert (content["outcome"], content["reason_code"], content["retry_after_ms"]) == (
        "DENY",
        "CAUSALITY_MISMATCH",
        None,
    )
    assert len(content["policy_hash"]) == 64
    assert json.loads(result["content"][0]["text"]) == content
    [receipt] = await receipts_of(gateway, content["receipt_id"])
    assert (receipt["phase"], receipt["body"]["reason_code"]) == ("rejected", "CAUSALITY_MISMATCH")
    assert gateway.receiver.requests == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "required"),
        ({"problemata_id": "desk", "input": {}, "extra": 1}, "not declared"),
        ({"problemata_id": "desk", "input": {}}, "capability"),
        ({"problemata_id": "desk", "input": {}, "capability": "doc.none"}, "capability"),
        ({"problemata_id": "nobody", "input": {}}, "problemata_id"),
        ({"problemata_id": "desk", "input": {"text": 5}, "capability": "doc.review"}, "input"),
        ({"problemata_id": "desk", "input": {}, "capability": "doc.any", "mode": "later"}, "mode"),
        ({"problemata_id": "desk", "input": {}, "capability": "doc.any", "causality": {"depth": 1}}, "causality"),
        ({"problemata_id": "desk", "input": {"text": "x"}, "capability": "tool.echo", "mode": "async"}, "mode"),
        ({"problemata_id": "desk", "input": {"text": 1}, "capability": "tool.echo"}, "text"),
    ],
)
async def test_what_has_no_meaning_is_no_decision(
    gateway: GatewayFixture, arguments: dict[str, Any], problem: str
) -> None:
    """-32602, no receipt, nothing forwarded."""
    before = len(await gateway.gate.receipts())
    error = await gateway.alice.error("problemata.passthrough", arguments)
    assert error["code"] == -32602
    assert problem in error["message"]
    assert len(await gateway.gate.receipts()) == before
    assert gateway.receiver.requests == gateway.upstream.calls == []


@pytest.mark.invariant("INV-117")
async def test_a_target_that_takes_longer_completes_in_the_ledger(gateway: GatewayFixture) -> None:
    """202, then `complete` within the time of the policy: the caller who waited is answered with it."""
    gateway.receiver.status = 202

    async def work(headers: dict[str, str]) -> None:
        tasks.append(asyncio.create_task(_later(gateway, headers["legivellum-task"])))

    tasks: list[asyncio.Task[None]] = []
    gateway.receiver.on_request = work
    result = await gateway.alice.ask({"n": 1})
    await asyncio.gather(*tasks)
    content = result["structuredContent"]
    assert content["mode"] == "sync"
    assert content["result"] == {"status": "success", "outcome_text": "fine", "artifact": None}


async def _later(gateway: GatewayFixture, task_id: str, **fields: Any) -> None:
    await asyncio.sleep(0.2)
    await gateway.complete(task_id, **fields)


@pytest.mark.invariant("INV-117")
@pytest.mark.parametrize("slow", ["target", "ledger"])
async def test_a_timeout_becomes_a_handle_and_the_task_completes_once(gateway: GatewayFixture, slow: str) -> None:
    """A target that does not answer in time, or one that says 202 and takes longer: the work is done once."""
    await gateway.publish(surface={"syncTimeoutMs": 300})
    gateway.receiver.seconds, gateway.receiver.status = (1.0, 200) if slow == "target" else (0.0, 202)
    content = (await gateway.alice.ask({"slow": slow}))["structuredContent"]
    assert content["mode"] == "async"
    assert content["status_endpoint"].endswith("/mcp#problemata.status")
    assert content["artifacts_location"].endswith("/mcp#problemata.artifacts")
    if slow == "ledger":
        await gateway.complete(content["task_id"])
    status = await _until(gateway.alice, content["task_id"], "success")
    assert len(gateway.receiver.requests) == 1
    completed = [receipt for receipt in status["receipts"] if receipt["phase"] == "complete"]
    assert len(completed) == (1 if slow == "ledger" else 0)
    await gateway.publish()


async def _until(client: McpClient, task_id: str, state: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            content = (await client.call("problemata.status", {"task_id": task_id}))["structuredContent"]
            if content["state"] == state:
                return dict(content)
            await asyncio.sleep(0.05)


@pytest.mark.invariant("INV-117")
@pytest.mark.parametrize("why", ["mode", "forceAsync", "estimate"])
async def test_async_is_answered_once_forwarded(gateway: GatewayFixture, why: str) -> None:
    surface: dict[str, Any] = {"forceAsync": ["doc.any"]} if why == "forceAsync" else {}
    problemata: dict[str, Any] = {}
    if why == "estimate":
        surface = {"estimatedDurationThresholdMs": 500}
        problemata = {"capabilities": [{"id": "doc.any", "estimatedDurationMs": 600}]}
    await gateway.publish(surface=surface, **problemata)
    gateway.receiver.status = 202
    arguments = {"mode": "async"} if why == "mode" else {}
    content = (await gateway.alice.ask({"n": 1}, **arguments))["structuredContent"]
    assert content["mode"] == "async"
    assert gateway.receiver.requests[-1][0]["legivellum-task"] == content["task_id"]
    await gateway.publish()


@pytest.mark.invariant("INV-118")
async def test_a_target_that_is_down_is_escalated_and_said(gateway: GatewayFixture) -> None:
    gateway.receiver.status = 500
    result = await gateway.alice.ask({"n": 1})
    content = result["structuredContent"]
    assert result["isError"] is True
    assert (content["outcome"], content["reason_code"]) == ("ALLOW", "UNDELIVERED")
    assert "reviewer: REFUSED" in content["detail"]
    accepted, escalate = await receipts_of(gateway, content["receipt_id"])
    assert (accepted["phase"], escalate["phase"]) == ("accepted", "escalate")
    assert escalate["receipt_id"] == content["escalation_receipt_id"]
    status = await gateway.alice.call("problemata.status", {"task_id": content["task_id"]})
    assert status["structuredContent"]["state"] == "undelivered"


async def test_the_same_key_asks_once(gateway: GatewayFixture) -> None:
    key, root = new_id(), new_id()
    first = await gateway.alice.ask({"n": 1}, idempotency_key=key, causality=_root(root))
    again = await gateway.alice.ask({"n": 1}, idempotency_key=key, causality=_root(root))
    assert first["structuredContent"] == again["structuredContent"]
    assert len(gateway.receiver.requests) == 1
    error = await gateway.alice.error(
        "problemata.passthrough",
        {
            "problemata_id": "desk",
            "capability": "doc.any",
            "input": {"n": 2},
            "idempotency_key": key,
            "causality": _root(root),
        },
    )
    assert (error["code"], error["data"]["code"]) == (-32602, "IDEMPOTENCY_CONFLICT")


async def test_a_child_stands_in_its_tree(gateway: GatewayFixture) -> None:
    """A claimed depth that is wrong is denied; the right one is admitted below the root."""
    root = (await gateway.alice.ask({"n": 1}))["structuredContent"]
    below = {
        "root_task_id": root["task_id"], "parent_task_id": root["task_id"], "caused_by_receipt_id": root["receipt_id"],
        "spawn_depth": 1,
    }  # fmt: skip
    child = (await gateway.alice.ask({"n": 2}, causality=below))["structuredContent"]
    assert child["mode"] == "sync"
    denied = (await gateway.alice.ask({"n": 3}, causality={**below, "spawn_depth": 0}))["structuredContent"]
    assert (denied["outcome"], denied["reason_code"]) == ("DENY", "CAUSALITY_MISMATCH")
