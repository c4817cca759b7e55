"""How other gates are asked: what they answer is judged, whatever it is; what cannot be used is a 503 that names the gate."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from tests.integration.memorygate.ledger_fixture import free_port

from delegate.gate_clients import GateClients
from delegate.settings import Settings
from legivellum.gate.gate_caller import LARGEST_ANSWER, GateAway, GateRefused
from legivellum.identity.tenant_credentials import ServedTenant

TENANT = ServedTenant(UUID(int=1), "team-a", "delegate", {"X-API-Key": "mgk_secret"})
GATES = ("memorygate", "depotgate", "asyncgate", "interrogate")
ULID = "01K7Z3W8M0000000000000000A"
POINTER = f"depot:{ULID}:{'0' * 64}"

Call = Callable[[GateClients], Awaitable[Any]]
CALLS: dict[str, tuple[str, Call]] = {
    "post_receipts": ("memorygate", lambda clients: clients.post_receipts(TENANT, [b"{}"])),
    "receipt": ("memorygate", lambda clients: clients.receipt(TENANT, ULID)),
    "task_receipts": ("memorygate", lambda clients: clients.task_receipts(TENANT, ULID)),
    "obligations": ("memorygate", lambda clients: clients.obligations(TENANT, [ULID])),
    "inbox": ("memorygate", lambda clients: clients.inbox(TENANT)),
    "inbox_page": ("memorygate", lambda clients: clients.inbox_page(TENANT, limit=1, cursor=None)),
    "deposit_plan": (
        "depotgate",
        lambda clients: clients.deposit_plan(
            TENANT, plan_id=ULID, artifact_id=ULID, body=b"{}", caused_by_receipt_id=ULID
        ),
    ),
    "stored_plan": ("depotgate", lambda clients: clients.stored_plan(TENANT, plan_id=ULID, artifact_id=ULID)),
    "plan_body": ("depotgate", lambda clients: clients.plan_body(TENANT, POINTER)),
    "check_tasks": ("asyncgate", lambda clients: clients.check_tasks(TENANT, [{"task_id": ULID}])),
    "enqueue": ("asyncgate", lambda clients: clients.enqueue(TENANT, [{"task_id": ULID}], [ULID])),
    "revoke": ("asyncgate", lambda clients: clients.revoke(TENANT, ULID, "reason")),
    "admit": ("interrogate", lambda clients: clients.admit(TENANT, {"tenant_id": "t"}, b"{}")),
}


@dataclass
class ScriptedGate:
    """A server that answers what it was told to, byte for byte, and notes what it was sent."""

    port: int
    answer: bytes = b""
    hangs: bool = False
    closes_after_answer: bool = False
    requests: list[bytes] = field(default_factory=list)

    def says(self, status: str, body: Any, *headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(content)}", "content-type: application/json", *headers]
        self.answer = "\r\n".join(lines).encode() + b"\r\n\r\n" + content

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                self.requests.append(head + await reader.readexactly(length))
                if self.hangs:
                    await reader.read()
                writer.write(self.answer)
                await writer.drain()
                if self.closes_after_answer or not self.answer:
                    break
        writer.close()


@asynccontextmanager
async def scripted(**settings: Any) -> AsyncIterator[tuple[ScriptedGate, GateClients]]:
    """One server in the place of all four gates."""
    gate = ScriptedGate(free_port())
    listening = await asyncio.start_server(gate.serve, "127.0.0.1", gate.port)
    urls = {f"{name}_url": f"http://127.0.0.1:{gate.port}" for name in GATES}
    clients = GateClients(Settings(**{"gate_ms": 150, **urls, **settings}))
    try:
        yield gate, clients
    finally:
        await clients.close()
        listening.close()


ANSWERS: dict[str, Callable[[ScriptedGate], None]] = {
    "nothing": lambda gate: None,
    "silence": lambda gate: setattr(gate, "hangs", True),
    "half an answer": lambda gate: setattr(gate, "answer", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"),
    "no HTTP": lambda gate: setattr(gate, "answer", b"SSH-2.0-OpenSSH_9\r\n\r\n"),
    "HTML": lambda gate: gate.says("200 OK", b"<html>login</html>"),
    "an array": lambda gate: gate.says("200 OK", []),
    "another object": lambda gate: gate.says("200 OK", {"hello": 1}),
    "no items": lambda gate: gate.says("200 OK", {"items": [], "next_cursor": None, "outcome": "ALLOW"}),
    "items that are none": lambda gate: gate.says("200 OK", {"items": [7], "next_cursor": None, "outcome": 3}),
    "deep": lambda gate: gate.says("200 OK", b"[" * 100_000),
    "a redirect": lambda gate: gate.says("307 Temporary Redirect", {}, "location: http://127.0.0.1:1/"),
    "an error": lambda gate: gate.says("500 Internal Server Error", {"code": "INTERNAL_ERROR"}),
    "unavailable": lambda gate: gate.says("503 Service Unavailable", {"code": "UNAVAILABLE"}),
    "an unknown key": lambda gate: gate.says("401 Unauthorized", {"code": "CREDENTIAL_INVALID"}),
    "a suspended principal": lambda gate: gate.says("403 Forbidden", {"code": "PRINCIPAL_SUSPENDED"}),
    "too often": lambda gate: gate.says("429 Too Many Requests", {"code": "RATE_LIMITED"}, "retry-after: 7"),
    "a refusal of a proxy": lambda gate: gate.says("403 Forbidden", {"message": "no"}),
    "5 MiB": lambda gate: gate.says("200 OK", b"x" * (LARGEST_ANSWER + 1)),
}
USABLE = {
    ("no items", name) for name in ("task_receipts", "inbox", "inbox_page", "stored_plan", "receipt", "revoke")
} | {("another object", "receipt"), ("another object", "revoke")} | {
    ("items that are none", name) for name in ("task_receipts", "inbox", "inbox_page", "receipt", "revoke")
}  # fmt: skip
"""Answers that a gate may give to these calls, as far as this client can know."""


@pytest.mark.parametrize(
    ("answer", "call"), [(answer, call) for answer in ANSWERS for call in CALLS if (answer, call) not in USABLE]
)
async def test_what_cannot_be_used_is_a_503_that_names_the_gate(answer: str, call: str) -> None:
    """At each call: no other error comes out of it, and it comes in time."""
    name, ask = CALLS[call]
    async with scripted() as (gate, clients):
        ANSWERS[answer](gate)
        with pytest.raises(GateAway) as away:
            async with asyncio.timeout(5):
                await ask(clients)
    assert away.value.gate == name
    assert (away.value.problem.status, away.value.problem.code.name) == (503, "UNAVAILABLE")
    assert away.value.problem.detail.startswith(f"{name} ")
    assert "mgk_secret" not in str(away.value.problem)
    if answer == "too often":
        assert away.value.problem.retry_after == 7


@pytest.mark.parametrize("call", CALLS)
async def test_nobody_listens(call: str) -> None:
    name, ask = CALLS[call]
    urls = {f"{gate}_url": f"http://127.0.0.1:{free_port()}" for gate in GATES}
    clients = GateClients(Settings(**urls))
    with pytest.raises(GateAway, match="UNAVAILABLE") as away:
        await ask(clients)
    assert away.value.gate == name
    await clients.close()


@pytest.mark.parametrize("call", [name for name in CALLS if name != "stored_plan"])
async def test_a_refusal_is_for_the_caller_to_judge(call: str) -> None:
    """With the gate's code and detail; a 404 of what is looked up is no refusal."""
    name, ask = CALLS[call]
    async with scripted() as (gate, clients):
        gate.says("409 Conflict", {"code": "TASK_CONFLICT", "detail": "another"})
        with pytest.raises(GateRefused) as refused:
            await ask(clients)
    assert (refused.value.gate, refused.value.status, refused.value.code) == (name, 409, "TASK_CONFLICT")


async def test_what_is_sent() -> None:
    """The tenant's credential and nothing of the environment; names are data in paths."""
    async with scripted() as (gate, clients):
        gate.says("200 OK", {"items": [], "next_cursor": None})
        await clients.task_receipts(TENANT, "a/../b?c")
        [request] = gate.requests
    head = request.decode().split("\r\n")
    assert head[0] == "GET /receipts/task/a%2F..%2Fb%3Fc?limit=500 HTTP/1.1"
    names = {line.partition(":")[0].lower() for line in head[1:] if line}
    assert names <= {"host", "x-api-key", "user-agent", "accept", "accept-encoding", "connection", "content-type"}
    assert "X-API-Key: mgk_secret" in head or "x-api-key: mgk_secret" in [line.lower() for line in head]


async def test_a_connection_that_was_closed_meanwhile_is_no_outage() -> None:
    """Gates close idle connections; the same request goes out on a new one."""
    async with scripted() as (gate, clients):
        gate.says("200 OK", {"items": [], "next_cursor": None})
        gate.closes_after_answer = True
        for _ in range(5):
            assert await clients.task_receipts(TENANT, ULID) == []
        assert len(gate.requests) == 5


async def test_other_bytes_than_those_of_the_pointer_are_no_plan() -> None:
    async with scripted() as (gate, clients):
        gate.says("200 OK", b"{}")
        with pytest.raises(GateAway, match="UNAVAILABLE"):
            await clients.plan_body(TENANT, POINTER)
        pointer = f"depot:{ULID}:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        assert await clients.plan_body(TENANT, pointer) == b"{}"
        gate.says("410 Gone", {"code": "ARTIFACT_RETIRED"})
        assert await clients.plan_body(TENANT, pointer) is None


async def test_many_receipts_are_sent_in_parts() -> None:
    """At most 256, and at most 480 KiB at once; the answers are in the order of the receipts."""
    async with scripted() as (gate, clients):
        stored = {"status": 201, "replayed": False, "receipt_id": ULID, "stored_at": "2027-01-01T00:00:00Z"}
        gate.says("200 OK", {"items": [stored] * 256})
        answers = await clients.post_receipts(TENANT, [b"{}"] * 512)
        assert (len(answers), len(gate.requests)) == (512, 2)
        gate.requests.clear()
        gate.says("200 OK", {"items": [stored] * 4})
        await clients.post_receipts(TENANT, [b'"' + b"x" * 110_000 + b'"'] * 8)
        assert len(gate.requests) == 2
