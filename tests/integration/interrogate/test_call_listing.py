"""GET /v1/calls and `interrogate calls`: everybody's own calls, and all of the tenant for admins and observers."""

import asyncio
import csv
import io
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from tests.integration.interrogate.calling import CallingGate, calling, mail_policy, mail_problemata
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.gate_fixture import GateClient, serving_interrogate
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal

from interrogate.observation import Requester
from interrogate.tool_call import CallOutcome


@dataclass(slots=True)
class CalledGate:
    """A tenant of which alice and bob called tools, and a gate that shows it."""

    gate: GateClient
    calls: CallingGate
    people: dict[str, LedgerPrincipal]

    async def get(self, who: str, **query: str) -> tuple[int, dict[str, object]]:
        answer = await self.gate.client.get("/v1/calls", params=query, headers=self.people[who].headers)
        return answer.status_code, answer.json()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def called(admission_database: AdmissionDatabase) -> AsyncIterator[CalledGate]:
    async with calling(admission_database) as calls, serving_interrogate(calls.world) as gate:
        people = {
            "alice": calls.world.principal("alice"), "bob": calls.world.principal("bob", "worker"),
            "ada": calls.world.principal("ada", "admin"), "otto": calls.world.principal("otto", "observer"),
        }  # fmt: skip
        await calls.publish(principals=tuple(people.values()))
        other = uuid4()
        people["zoe"] = calls.world.principal("zoe", "admin", tenant=other)
        await calls.publish(
            tenant=other, principals=(people["zoe"],), policies={"front-desk": mail_policy()}, problematas={"mail": mail_problemata()}
        )  # fmt: skip
        for number in range(5):
            requester = Requester("bob", "worker") if number % 2 else Requester("alice", "principal")
            admission, _ = await calls.decide("mail.read" if number == 4 else "mail.send", requester=requester)
            if number < 3:
                outcome = CallOutcome(duration_us=number, attempts=1, reason="TIMEOUT")
                await calls.settle(admission, outcome)
        made = CalledGate(gate, calls, people)
        await gate.awaited(gate.requesting(people["zoe"], profile="front-desk", surface="mail"))
        yield made


async def test_everybody_sees_their_own_and_admins_and_observers_all(called: CalledGate) -> None:
    assert len((await called.get("alice"))[1]["items"]) == 3  # type: ignore[arg-type]
    assert len((await called.get("bob", principal="bob"))[1]["items"]) == 2  # type: ignore[arg-type]
    for reader in ("ada", "otto"):
        assert len((await called.get(reader))[1]["items"]) == 5  # type: ignore[arg-type]
        assert len((await called.get(reader, principal="bob"))[1]["items"]) == 2  # type: ignore[arg-type]
    assert await called.get("zoe") == (200, {"items": [], "next_cursor": None})
    status, problem = await called.get("bob", principal="alice")
    assert (status, problem["code"]) == (403, "ROLE_REQUIRED")
    for who in ("bob", "ada"):
        status, problem = await called.get(who, tenant=str(called.people["zoe"].tenant))
        assert (status, problem["code"]) == (403, "TENANT_MISMATCH")


async def test_a_row_is_what_the_contract_lists(called: CalledGate) -> None:
    _, page = await called.get("ada", outcome="TIMEOUT", limit="1")
    [row] = page["items"]  # type: ignore[misc]
    assert set(row) == {
        "admission_receipt_id", "outcome_receipt_id", "at", "principal_key", "problemata", "tool", "task_id", "outcome",
        "reason_code", "duration_us", "arguments_sha256", "arguments_bytes", "result_sha256", "result_bytes",
    }  # fmt: skip
    assert row["at"].endswith("Z")
    assert (row["duration_us"], row["outcome"], row["tool"]) == (2, "TIMEOUT", "send_email")


async def test_pages_follow_each_other_and_their_cursor_belongs_to_the_question(called: CalledGate) -> None:
    seen: list[object] = []
    _, page = await called.get("ada", limit="2")
    while True:
        seen += page["items"]  # type: ignore[operator, arg-type]
        if page["next_cursor"] is None:
            break
        status, problem = await called.get("ada", limit="2", outcome="pending", cursor=str(page["next_cursor"]))
        assert (status, problem["code"]) == (422, "INVALID_CURSOR")
        _, page = await called.get("ada", limit="2", cursor=str(page["next_cursor"]))
    assert seen == (await called.get("ada"))[1]["items"]


@pytest.mark.parametrize(
    "query", [{"outcome": "DENIED"}, {"since": "yesterday"}, {"limit": "0"}, {"colour": "red"}, {"tool": "\x07"}]
)
async def test_what_cannot_be_meant_is_refused(called: CalledGate, query: dict[str, str]) -> None:
    status, problem = await called.get("ada", **query)
    assert (status, problem["code"]) == (422, "INVALID_REQUEST")


@pytest.mark.parametrize("form", ["table", "json", "csv"])
async def test_the_command_prints_what_the_endpoint_answers(called: CalledGate, tmp_path: Path, form: str) -> None:
    key = tmp_path / "ada.key"
    key.write_text(called.people["ada"].headers["X-API-Key"] + "\n")
    command = [sys.executable, "-c", "from interrogate.main import main; main()", "calls", "--url", called.gate.url]
    process = await asyncio.create_subprocess_exec(
        *command, "--key-file", str(key), "--tool", "send_email", "-o", form,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, error = await process.communicate()
    assert (process.returncode, error) == (0, b"")
    items = (await called.get("ada", tool="send_email"))[1]["items"]
    if form == "json":
        assert json.loads(out) == items
    elif form == "csv":
        read = list(csv.DictReader(io.StringIO(out.decode())))
        assert [row["admission_receipt_id"] for row in read] == [row["admission_receipt_id"] for row in items]  # type: ignore[index, attr-defined]
        assert read[0]["result_bytes"] == ""
    else:
        lines = out.decode().splitlines()
        assert lines[0].split() == [
            "AT", "PRINCIPAL_KEY", "PROBLEMATA", "TOOL", "OUTCOME", "DURATION_US", "ADMISSION_RECEIPT_ID",
        ]  # fmt: skip
        assert len(lines) == 1 + len(items)  # type: ignore[arg-type]
