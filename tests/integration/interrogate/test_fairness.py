"""One root that everybody wants (INTERROGATE.md §7.10): four processes of the gate, sixteen callers at each."""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.gate_fixture import GateClient, PublishedWorld, Requesting
from tests.integration.memorygate.ledger_fixture import LedgerProcess, free_port, ready

from interrogate.replaying import replay
from interrogate.verifying import verify

PROCESSES, CALLERS = 4, 16
DEADLINE = 1.0
"""Seconds, as it is set where nobody sets it (`INTERROGATE_DEADLINE_MS`)."""
SECONDS = 30.0 if os.environ.get("METAGATE_FAULTS") == "all" else 4.0  # noqa: TID251 - the suite's own switch
POLICY: dict[str, Any] = {
    "limits": {"maxSpawnDepth": 3, "maxTotalDescendants": 1_000_000_000, "maxRepeatsPerCapability": 1_000_000_000},
    "surfaces": [
        {"surfaceId": "public", "principals": ["*"], "parentage": "Tenant", "capabilities": {"allow": ["doc.*"]}}
    ],
}


@pytest_asyncio.fixture(loop_scope="session")
async def gates(admission_database: AdmissionDatabase, tmp_path: Path) -> AsyncIterator[list[Requesting]]:
    """Somebody who asks each of the processes."""
    world = PublishedWorld(admission_database)
    principal = world.principal("alice")
    await world.publish(principal, policies={"strict": POLICY})
    ports = [free_port() for _ in range(PROCESSES)]
    processes = [
        LedgerProcess(
            [sys.executable, "-c", "from interrogate.main import main; main()", "serve"],
            {
                "INTERROGATE_DATABASE_URL": admission_database.writer,
                "INTERROGATE_IDENTITY_DATABASE_URL": admission_database.database.identity,
                "INTERROGATE_PORT": str(port),
                "INTERROGATE_RATE_PER_SECOND": "0",
            },
            tmp_path / f"{port}.log",
        )
        for port in ports
    ]
    async with AsyncExitStack() as stack:
        for process in processes:
            await process.start()
            stack.push_async_callback(process.kill)
        asking = []
        for port in ports:
            url = f"http://127.0.0.1:{port}"
            await ready(url)
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30))
            asking.append(await GateClient(world, client, url).awaited(Requesting(client, principal)))
        yield asking


class RawCaller:
    """Asks the same over one connection again and again, with hardly any work of its own: 64 of them share this process."""

    def __init__(self, asking: Requesting, envelope: Mapping[str, Any]) -> None:
        self._port = urlsplit(str(asking.client.base_url)).port
        body = json.dumps(envelope).encode()
        headers = {**asking.principal.headers, "host": "test", "content-type": "application/json"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._request = f"POST /v1/evaluate HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body
        self.statuses: Counter[int] = Counter()
        self.slowest = 0.0

    async def ask_until(self, end: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while time.monotonic() < end:
            began = time.monotonic()
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            self.statuses[int(head.split(b" ", 2)[1])] += 1
            self.slowest = max(self.slowest, time.monotonic() - began)
        writer.close()


@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_nobody_starves_on_a_root_that_all_want(
    gates: list[Requesting], admission_database: AdmissionDatabase
) -> None:
    """Every request is admitted within its deadline, no 503; no process gets less than half of another; all of it is proven."""
    answer = await gates[0].evaluate(gates[0].envelope(causality={"capability_id": "doc.root"}))
    assert answer.status_code == 200, answer.text
    callers = [[RawCaller(gate, gate.child(answer.json())) for _ in range(CALLERS)] for gate in gates]
    end = time.monotonic() + SECONDS
    await asyncio.gather(*(caller.ask_until(end) for of_gate in callers for caller in of_gate))

    statuses = sum((caller.statuses for of_gate in callers for caller in of_gate), Counter[int]())
    assert set(statuses) == {200}, statuses
    slowest = max(caller.slowest for of_gate in callers for caller in of_gate)
    assert slowest < DEADLINE
    per_process = [sum(caller.statuses.total() for caller in of_gate) for of_gate in callers]
    assert min(per_process) > max(per_process) / 2, per_process
    moved = sum([await made_again(gate) for gate in gates])
    # At the beginning, and once in a few seconds for each process: never each by each.
    assert moved < statuses.total() / 10, (moved, statuses)

    report = await replay(admission_database.ledger.auditor)
    assert (report.mismatches, report.mismatch_count) == ([], 0)
    assert report.decisions == statuses.total() + 1
    assert (await verify(admission_database.ledger.auditor)).bad is None


async def made_again(gate: Requesting) -> float:
    lines = (await gate.client.get("/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("interrogate_moved_total"))
