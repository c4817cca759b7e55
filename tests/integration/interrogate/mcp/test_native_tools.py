"""Tools of MCP servers under the gateway's names: what is seen, how calls end, what is on record (GW-09 to GW-15)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.mcp.gateway_fixture import MODERN, GatewayFixture, response_of, serving_gateway
from tests.integration.memorygate.conftest import new_id
from tests.unit.interrogate.mcp.sdk_upstream import TOOLS

RECEIPT = "legivellum.io/receipt"


@pytest.fixture(autouse=True)
def upstream_at_rest(gateway: GatewayFixture) -> None:
    gateway.upstream.calls.clear()
    gateway.upstream.on_call = None


async def outcomes(gateway: GatewayFixture, admission: str) -> list[dict[str, Any]]:
    """The receipts of a call: the admission first, then what it caused."""
    return [
        receipt
        for receipt in await gateway.gate.receipts()
        if admission in {receipt["receipt_id"], receipt.get("caused_by_receipt_id")}
    ]


async def call_rows(gateway: GatewayFixture, **where: str) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(gateway.world.database.superuser)
    try:
        rows = await connection.fetch("SELECT * FROM interrogate.call WHERE tenant = $1", gateway.world.tenant)
    finally:
        await connection.close()
    return [dict(row) for row in rows if all(row[name] == value for name, value in where.items())]


async def row_once(gateway: GatewayFixture, receipt_id: str) -> dict[str, Any]:
    """The row of the call when it has an outcome."""
    async with asyncio.timeout(10):
        while True:
            rows = await call_rows(gateway, admission_receipt_id=receipt_id)
            if rows and rows[0]["outcome"] != "pending":
                return rows[0]
            await asyncio.sleep(0.05)


async def test_what_is_listed_is_what_was_declared(gateway: GatewayFixture) -> None:
    """Text, schemas and annotations of the declaration under `<problemata>.<tool>`; no server is asked, no row written."""
    before, listings = len(await gateway.gate.receipts()), gateway.upstream.listings
    result = (await gateway.alice.request("tools/list"))["result"]
    by_name = {tool["name"]: tool for tool in result["tools"]}
    echo = next(tool for tool in TOOLS if tool["name"] == "echo")
    assert by_name["desk.echo"] == {**echo, "name": "desk.echo"}
    assert [tool["name"] for tool in result["tools"]] == sorted(by_name)
    assert result["cacheScope"] == "private"
    assert (len(await gateway.gate.receipts()), gateway.upstream.listings) == (before, listings)


async def test_who_is_not_admitted_sees_nothing_and_is_denied(gateway: GatewayFixture) -> None:
    """A denied call is a result, a rejection receipt and a row; nothing reaches the server."""
    await gateway.publish(surface={"principals": ["alice"]})
    listed = (await gateway.bob.request("tools/list"))["result"]["tools"]
    assert not [tool for tool in listed if tool["name"].startswith("desk.")]
    result = await gateway.bob.call("desk.echo", {"text": "x"})
    content = result["structuredContent"]
    assert (result["isError"], content["outcome"], content["reason_code"]) == (True, "DENY", "UNAUTHORIZED")
    assert gateway.upstream.calls == []
    [receipt] = await outcomes(gateway, content["receipt_id"])
    assert receipt["phase"] == "rejected"
    [row] = await call_rows(gateway, admission_receipt_id=content["receipt_id"])
    assert (row["outcome"], row["reason_code"]) == ("denied", "UNAUTHORIZED")
    await gateway.publish()


async def test_a_call_leaves_two_receipts_and_a_row(gateway: GatewayFixture) -> None:
    """Before and after, caused by each other; digests, never arguments or results."""
    result = await gateway.alice.call("desk.echo", {"text": "canary-0815"})
    assert (result["structuredContent"], result["isError"]) == ({"text": "canary-0815"}, False)
    named = result["_meta"][RECEIPT]
    accepted, complete = await outcomes(gateway, named["admission"])
    assert (accepted["phase"], accepted["task_type"], complete["phase"]) == ("accepted", "tool_call", "complete")
    assert complete["receipt_id"] == named["outcome"]
    assert (complete["status"], complete["outcome_kind"], complete["task_id"]) == (
        "success",
        "none",
        accepted["task_id"],
    )
    assert accepted["body"]["tool"]["name"] == "echo"
    assert complete["body"]["level"] == "tool"
    assert complete["body"]["protocol"] == MODERN
    assert "canary-0815" not in json.dumps([accepted, complete])
    [row] = await call_rows(gateway, admission_receipt_id=named["admission"])
    assert row["outcome"] == "success"
    assert "canary-0815" not in str(row)


@pytest.mark.parametrize(
    ("tool", "outcome", "phase"),
    [("fail", "tool_error", "complete"), ("ask", "INPUT_REQUIRED", "escalate"), ("slow", "TIMEOUT", "escalate")],
)
async def test_a_failure_is_told_apart_and_recorded(
    gateway: GatewayFixture, tool: str, outcome: str, phase: str
) -> None:
    result = await gateway.alice.call(f"desk.{tool}")
    assert result["isError"] is True
    named = result["_meta"][RECEIPT]
    _, receipt = await outcomes(gateway, named["admission"])
    assert (receipt["phase"], receipt["receipt_id"]) == (phase, named["outcome"])
    assert (await row_once(gateway, named["admission"]))["outcome"] == outcome
    if phase == "escalate":
        content = result["structuredContent"]
        assert (content["outcome"], content["reason_code"]) == ("ALLOW", outcome)
        assert "may have run" in content["detail"]


async def test_an_error_of_the_protocol_stays_one(gateway: GatewayFixture) -> None:
    """With the server's code and words, and the receipts of the call."""
    error = await gateway.alice.error("desk.error")
    assert (error["code"], error["message"]) == (-32050, "the tool has no arms")
    named = error["data"]["_meta"][RECEIPT]
    _, receipt = await outcomes(gateway, named["admission"])
    assert (receipt["receipt_id"], receipt["status"]) == (named["outcome"], "failure")
    assert (receipt["body"]["level"], receipt["body"]["code"]) == ("protocol", -32050)


async def test_a_tool_by_passthrough_has_its_own_result(gateway: GatewayFixture) -> None:
    result = await gateway.alice.ask({"text": "hi"}, capability="tool.echo")
    assert result["structuredContent"] == {"text": "hi"}
    assert result["_meta"][RECEIPT]["outcome"]


@pytest.mark.parametrize("spelling", ["legivellum.io/idempotency-key", "legivellum.io/idempotency_key"])
async def test_the_same_key_calls_once(gateway: GatewayFixture, spelling: str) -> None:
    """The outcome is said, the result was never kept."""
    meta = {spelling: new_id()}
    first = await gateway.alice.call("desk.echo", {"text": "x"}, **meta)
    again = await gateway.alice.call("desk.echo", {"text": "x"}, **meta)
    assert gateway.upstream.calls == [("echo", {"text": "x"})]
    content = again["structuredContent"]
    assert (content["reason_code"], content["call_outcome"]) == ("RESULT_NOT_KEPT", "success")
    assert again["_meta"][RECEIPT] == first["_meta"][RECEIPT]


async def test_arguments_are_judged_before_anything_is_decided(gateway: GatewayFixture) -> None:
    before = len(await gateway.gate.receipts())
    error = await gateway.alice.error("desk.echo", {"text": 5})
    assert error["code"] == -32602
    assert (await gateway.alice.error("desk.none"))["code"] == -32602
    assert len(await gateway.gate.receipts()) == before
    assert gateway.upstream.calls == []


@pytest.mark.parametrize(("header", "status"), [("eu", 200), (None, 400), ("us", 400)])
async def test_headers_of_parameters_are_those_of_the_declared_schema(
    gateway: GatewayFixture, header: str | None, status: int
) -> None:
    """`Mcp-Param-Region` and the argument are the same, or nothing is called."""
    message = gateway.alice.message("tools/call", {"name": "desk.region", "arguments": {"region": "eu"}})
    answer = await gateway.alice.post(
        message,
        mcp_protocol_version=MODERN, mcp_method="tools/call", mcp_name="desk.region", mcp_param_region=header,
    )  # fmt: skip
    assert answer.status_code == status, answer.text
    assert len(gateway.upstream.calls) == (1 if status == 200 else 0)
    if status == 400:
        assert response_of(answer)["error"]["code"] == -32020


async def test_progress_is_relayed(gateway: GatewayFixture) -> None:
    """At most ten a second, with at most 256 characters, before the answer."""
    message = gateway.alice.message("tools/call", {"name": "desk.progress", "arguments": {}}, progressToken="p1")
    answer = await gateway.alice.post(
        message, mcp_protocol_version=MODERN, mcp_method="tools/call", mcp_name="desk.progress"
    )
    events = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:")]
    progress = [event["params"] for event in events if event.get("method") == "notifications/progress"]
    assert 1 <= len(progress) <= 10
    assert {item["progressToken"] for item in progress} == {"p1"}
    assert max(len(item["message"]) for item in progress) == 256
    assert events[-1]["result"]["isError"] is False


async def test_a_caller_that_leaves_changes_nothing(gateway: GatewayFixture) -> None:
    """Gone after 0.4 s; the tool ends, and its outcome is on record."""

    async def slow(_name: str, _arguments: dict[str, Any]) -> None:
        await asyncio.sleep(1.0)

    gateway.upstream.on_call = slow
    known = {row["admission_receipt_id"] for row in await call_rows(gateway)}
    message = gateway.alice.message("tools/call", {"name": "desk.echo", "arguments": {"text": "x"}})
    headers = {
        "accept": "application/json, text/event-stream", "mcp-protocol-version": MODERN,
        "mcp-method": "tools/call", "mcp-name": "desk.echo", **gateway.alice.principal.headers,
    }  # fmt: skip
    with pytest.raises(httpx.ReadTimeout):
        await gateway.http.post("/mcp", json=message, headers=headers, timeout=0.4)
    [made] = [row for row in await call_rows(gateway) if row["admission_receipt_id"] not in known]
    assert made["outcome"] == "pending"
    assert (await row_once(gateway, made["admission_receipt_id"]))["outcome"] == "success"


async def test_a_credential_that_ends_cuts_the_call_and_not_the_work(gateway: GatewayFixture) -> None:
    """Within a second (D-67): 401 in place of the answer; the outcome is recorded."""

    async def slow(_name: str, _arguments: dict[str, Any]) -> None:
        await asyncio.sleep(1.9)

    gateway.upstream.on_call = slow
    dora = gateway.world.principal("dora")
    await gateway.publish(dora)
    client = gateway.client_of(dora)
    message = client.message("tools/call", {"name": "desk.echo", "arguments": {"text": "x"}})
    calling = asyncio.create_task(
        client.post(message, mcp_protocol_version=MODERN, mcp_method="tools/call", mcp_name="desk.echo")
    )
    async with asyncio.timeout(10):
        while not gateway.upstream.calls:
            await asyncio.sleep(0.01)
    dora.suspended = True
    await gateway.world.publish(dora)
    began = time.monotonic()
    answer = await calling
    assert time.monotonic() - began < 1.5
    assert (answer.status_code, answer.json()["code"]) == (401, "CREDENTIAL_REVOKED")
    [row] = await call_rows(gateway, principal_key="dora")
    assert (await row_once(gateway, row["admission_receipt_id"]))["outcome"] == "success"


@pytest_asyncio.fixture(loop_scope="session")
async def impatient(admission_database: AdmissionDatabase) -> AsyncIterator[GatewayFixture]:
    async with serving_gateway(admission_database, outcome_ms=300) as served:
        yield served


async def test_an_outcome_that_cannot_be_stored_withholds_the_result(impatient: GatewayFixture) -> None:
    """The tool answered while the database took nothing: the caller must not take the result for recorded."""
    connection = await asyncpg.connect(impatient.world.database.superuser)
    transaction = connection.transaction()

    async def lock(_name: str, _arguments: dict[str, Any]) -> None:
        await transaction.start()
        await connection.execute("LOCK TABLE interrogate.call IN ACCESS EXCLUSIVE MODE")

    impatient.upstream.on_call = lock
    try:
        result = await impatient.alice.call("desk.echo", {"text": "canary-0816"})
    finally:
        await transaction.rollback()
        await connection.close()
    content = result["structuredContent"]
    assert (result["isError"], content["reason_code"]) == (True, "OUTCOME_UNRECORDED")
    assert "do not repeat it" in content["detail"]
    assert "canary-0816" not in json.dumps(result)
    assert result["_meta"][RECEIPT]["outcome"] is None


async def test_two_tenants_with_equal_names_stay_apart(gateway: GatewayFixture) -> None:
    """Another tenant's Problemata of the same name and tool name: its own schema, its own server, its own rows."""
    async with serving_gateway(gateway.world.database) as other:
        schema = {"type": "object", "properties": {"text": {"type": "integer"}}}
        tool = {"name": "echo", "description": "Another.", "inputSchema": schema}
        other.upstream.tools = [tool]
        await other.publish(capabilities=[{"id": "tool.echo", "tool": {"target": "toolserver", "definition": tool}}])
        # One gate serves both tenants: the second fixture's principal asks the first one's gate.
        stranger = other.client_of(other.alice.principal)
        here = type(stranger)(gateway, other.alice.principal)
        async with asyncio.timeout(20):
            while (
                await here.post(here.message("tools/list"), mcp_protocol_version=MODERN, mcp_method="tools/list")
            ).status_code != 200:
                await asyncio.sleep(0.02)
        listed = (await here.request("tools/list"))["result"]["tools"]
        assert [item["description"] for item in listed if item["name"] == "desk.echo"] == ["Another."]
        assert (await here.call("desk.echo", {"text": 7}))["isError"] is False
        assert (await gateway.alice.call("desk.echo", {"text": "seven"}))["isError"] is False
        assert (await here.error("desk.echo", {"text": "seven"}))["code"] == -32602
        assert (other.upstream.calls, gateway.upstream.calls) == (
            [("echo", {"text": 7})],
            [("echo", {"text": "seven"})],
        )
        keys = {gateway.alice.principal.key, other.alice.principal.key}
        sent = json.dumps([*gateway.upstream.requests, *other.upstream.requests])
        assert not any(key in sent for key in keys)
