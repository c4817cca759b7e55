"""Handles of the Tasks extension: views of receipts, which any process can answer (GW-06)."""

import asyncio
from typing import Any

import pytest
from tests.integration.interrogate.mcp.gateway_fixture import MODERN, GatewayFixture, McpClient, response_of


@pytest.fixture(autouse=True)
def patient_receiver(gateway: GatewayFixture) -> None:
    receiver = gateway.receiver
    receiver.status, receiver.answer, receiver.seconds, receiver.on_request = 202, None, 0.0, None
    receiver.requests.clear()


async def handle(gateway: GatewayFixture) -> tuple[McpClient, dict[str, Any], str]:
    """A client with the extension, the handle of what it asked, and the task."""
    client = gateway.alice.with_tasks()
    created = await client.ask({"n": 1}, mode="async")
    return client, created, gateway.receiver.requests[-1][0]["legivellum-task"]


async def get(client: McpClient, task_id: str) -> dict[str, Any]:
    response = await client.request("tasks/get", {"taskId": task_id})
    assert "result" in response, response
    return dict(response["result"])


async def test_a_handle_is_durable_before_it_is_given(gateway: GatewayFixture) -> None:
    client, created, _ = await handle(gateway)
    assert created["resultType"] == "task"
    assert (created["status"], created["ttlMs"], created["pollIntervalMs"]) == ("working", 259_200_000, 1_000)
    assert created["_meta"]["legivellum.io/receipt"] == {"admission": created["taskId"], "outcome": None}
    got = await get(client, created["taskId"])
    assert (got["resultType"], got["status"], got["taskId"]) == ("complete", "working", created["taskId"])
    assert got["createdAt"] == created["createdAt"]


@pytest.mark.parametrize(
    ("status", "shown", "is_error"),
    [("success", "completed", False), ("failure", "completed", True), ("canceled", "cancelled", None)],
)
async def test_it_ends_as_the_ledger_says(
    gateway: GatewayFixture, status: str, shown: str, is_error: bool | None
) -> None:
    """The claim of the worker, with its artifact."""
    client, created, task_id = await handle(gateway)
    await gateway.complete(
        task_id,
        status,
        outcome_kind="mixed",
        artifact_pointer="s3://bucket/a",
        artifact_location="s3",
        artifact_mime="text/plain",
    )
    got = await get(client, created["taskId"])
    assert got["status"] == shown
    if is_error is None:
        assert "result" not in got
        return
    result = got["result"]
    assert result["isError"] is is_error
    assert result["structuredContent"]["result"] == {
        "status": status,
        "outcome_text": "fine",
        "artifact": {"pointer": "s3://bucket/a", "mime": "text/plain", "checksum": None, "size_bytes": None},
    }


async def test_a_forward_that_fails_later_fails_the_task(gateway: GatewayFixture) -> None:
    """The handle was given while the target was still asked: then it is undelivered, with its receipt."""
    await gateway.publish(surface={"syncTimeoutMs": 200})
    gateway.receiver.seconds, gateway.receiver.status = 0.8, 500
    client = gateway.alice.with_tasks()
    created = await client.ask({"n": 1})
    assert created["resultType"] == "task"
    async with asyncio.timeout(10):
        while (got := await get(client, created["taskId"]))["status"] == "working":
            await asyncio.sleep(0.05)
    assert got["status"] == "failed"
    assert (got["error"]["code"], got["error"]["data"]["reason_code"]) == (-32603, "UNDELIVERED")
    assert got["error"]["data"]["legivellum.io/receipt"]["outcome"]
    await gateway.publish()


async def test_canceling_ends_the_handle_and_never_the_work(gateway: GatewayFixture) -> None:
    client, created, task_id = await handle(gateway)
    for _ in range(2):
        response = await client.request("tasks/cancel", {"taskId": created["taskId"]})
        assert response["result"]["resultType"] == "complete"
        assert "taskId" not in response["result"]
    assert (await get(client, created["taskId"]))["status"] == "cancelled"
    await gateway.complete(task_id)
    assert (await get(client, created["taskId"]))["status"] == "cancelled"
    status = await gateway.alice.call("problemata.status", {"task_id": task_id})
    assert status["structuredContent"]["state"] == "success"


async def test_canceling_what_is_over_changes_nothing(gateway: GatewayFixture) -> None:
    client, created, task_id = await handle(gateway)
    await gateway.complete(task_id)
    assert "result" in await client.request("tasks/cancel", {"taskId": created["taskId"]})
    assert (await get(client, created["taskId"]))["status"] == "completed"


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_foreign_and_unknown_are_the_same(gateway: GatewayFixture, method: str) -> None:
    """-32602 for another principal's handle as for none."""
    _, created, _ = await handle(gateway)
    bob = gateway.bob.with_tasks()
    extra = {"inputResponses": {}} if method == "tasks/update" else {}
    foreign = await bob.request(method, {"taskId": created["taskId"], **extra})
    unknown = await bob.request(method, {"taskId": "01ARZ3NDEKTSV4RRFFQ69G5FAV", **extra})
    assert foreign["error"] == unknown["error"]
    assert foreign["error"]["code"] == -32602


async def test_the_name_in_the_header_is_the_task(gateway: GatewayFixture) -> None:
    """A proxy may have routed by it; the SDK does not compare it."""
    client, created, _ = await handle(gateway)
    for name in (None, "another"):
        answer = await client.post(
            client.message("tasks/get", {"taskId": created["taskId"]}),
            mcp_protocol_version=MODERN, mcp_method="tasks/get", mcp_name=name,
        )  # fmt: skip
        assert (answer.status_code, response_of(answer)["error"]["code"]) == (400, -32020)


async def test_who_declares_no_extension_gets_no_task(gateway: GatewayFixture) -> None:
    """An object with the same ids, and -32021 for the methods."""
    client, created, _ = await handle(gateway)
    content = (await gateway.alice.ask({"n": 1}, mode="async"))["structuredContent"]
    assert content.keys() == {"mode", "receipt_id", "task_id", "status_endpoint", "artifacts_location"}
    response = await gateway.alice.request("tasks/get", {"taskId": created["taskId"]})
    assert response["error"]["code"] == -32021
    discovered = (await client.request("server/discover"))["result"]
    assert "io.modelcontextprotocol/tasks" in discovered["capabilities"]["extensions"]


async def test_observers_see_every_task_of_their_tenant(gateway: GatewayFixture) -> None:
    _, created, task_id = await handle(gateway)
    watcher = gateway.world.principal("watcher", "observer")
    await gateway.publish(watcher)
    client = gateway.client_of(watcher).with_tasks()
    assert (await get(client, created["taskId"]))["status"] == "working"
    stranger = await gateway.bob.error("problemata.status", {"task_id": task_id})
    assert stranger["code"] == -32602
