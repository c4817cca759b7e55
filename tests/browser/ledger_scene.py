"""What the ledger's console is looked at with: the story of a review as the composition tells it, and what else happens."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
from tests.browser.scene import run_apart
from tests.databases import Server
from tests.integration.memorygate.conftest import LedgerDatabase, accepted, complete, escalate, make_ledger, new_id
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal, free_port
from tests.integration.memorygate.test_emitting import body_of, session_of
from tests.integration.store.worlds import Change
from tests.unit.interrogate.requests import ALICE, CHILD, envelope_from, observed_child, ruleset_of

from interrogate.admission_receipt import admission_receipt
from interrogate.decide import decide
from memorygate.verifying import verify
from metagate_store.publisher import Publisher
from metagate_store.rows import TenantRow

REVIEW = "review-2027-01"
WAITING = "refund-4711"
HOSTILE = "<img src=x onerror=alert(1)><svg onload=alert(2)>"


@dataclass(slots=True)
class LedgerScene:
    url: str
    observer: str
    alice: str


@contextmanager
def ledger_played(folder: Path) -> Iterator[LedgerScene]:
    """A ledger as a process of its own, on a server of its own."""
    server = Server.start()
    try:
        database = run_apart(_made(server))
        tenant = uuid4()
        people = {name: LedgerPrincipal(tenant, name, role) for name, role in _PEOPLE.items()}
        run_apart(_published(database, people))
        port = free_port()
        with _served(database, port, folder / "ledger.log") as url:
            run_apart(_Play(database, tenant, people, url).all())
            run_apart(_verified(database))
            yield LedgerScene(url, people["watcher"].key, people["alice"].key)
    finally:
        server.stop()


_PEOPLE = {
    "alice": "principal", "planner": "delegate", "reader": "worker", "merger": "worker", "lead": "principal",
    "watcher": "observer",
}  # fmt: skip


async def _made(server: Server) -> LedgerDatabase:
    await server.make_template()
    return await make_ledger(server)


async def _published(database: LedgerDatabase, people: dict[str, LedgerPrincipal]) -> None:
    upserts: dict[str, list[dict[str, Any]]] = {}
    for principal in people.values():
        for table, rows in principal.rows().items():
            upserts.setdefault(table, []).extend(rows)
    tenants = [
        TenantRow(tenant, "support", datetime(2026, 1, 1, tzinfo=UTC)) for tenant in {p.tenant for p in people.values()}
    ]
    publisher = await Publisher.open(database.database.publisher)
    try:
        await publisher.load()
        await publisher.publish(Change(upserts=upserts, tenants=tenants))
    finally:
        await publisher.close()


async def _verified(database: LedgerDatabase) -> None:
    assert (await verify(database.auditor)).bad is None


@contextmanager
def _served(database: LedgerDatabase, port: int, log: Path) -> Iterator[str]:
    environment = {
        "MEMORYGATE_DATABASE_URL": database.writer,
        "MEMORYGATE_IDENTITY_DATABASE_URL": database.database.identity,
        "MEMORYGATE_PORT": str(port),
        "MEMORYGATE_CONSOLE": "true",
        "MEMORYGATE_DEADLINE_MS": "5000",
    }
    command = [sys.executable, "-c", "from memorygate.main import main; main()", "serve"]
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        try:
            run_apart(_ready(url))
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


async def _ready(url: str) -> None:
    async with asyncio.timeout(60), httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.05)


class _Play:
    """Everything that the scene's ledger holds."""

    def __init__(self, database: LedgerDatabase, tenant: UUID, people: dict[str, LedgerPrincipal], url: str) -> None:
        self._database = database
        self._tenant = tenant
        self._people = people
        self._url = url
        self._last: dict[str, str] = {}

    async def all(self) -> None:
        async with AsyncExitStack() as stack:
            self._sessions = {}
            for gate in ("interrogate", "asyncgate", "depotgate"):
                session = await session_of(self._database, gate)
                stack.push_async_callback(session.connection.close)
                self._sessions[gate] = session
            self._client = await stack.enter_async_context(httpx.AsyncClient(base_url=self._url, timeout=10))
            for number in range(12):
                await self._post("alice", accepted(task_id=f"ticket-{number:03}", principal_ai="alice"))
                await self._post("alice", complete(task_id=f"ticket-{number:03}", principal_ai="alice"))
            await self._refusals()
            await self._refund()
            await self._hostile()
            await self._review()

    async def _post(self, name: str, receipt: dict[str, Any]) -> str:
        answer = await self._client.post("/receipts", json=receipt, headers=self._people[name].headers)
        assert answer.status_code == 201, answer.text
        return str(receipt["receipt_id"])

    async def _emit(self, gate: str, kind: str, phase: str, **fields: Any) -> str:
        body = body_of(self._tenant, f"svc:{gate}", kind, phase, **fields)
        assert await self._sessions[gate].emit(body) == ["STORED"], fields
        return str(json.loads(body)["receipt_id"])

    async def _refusals(self) -> None:
        """InterroGate's own decisions about what alice asked."""
        for causality, limits in (
            ({}, {"maxSpawnDepth": 2}), ({}, {"maxTotalDescendants": 5}), ({"spawn_depth": 1}, {}), ({}, {"maxRepeatsPerCapability": 2}),
            ({"capability_id": "doc.delete"}, {}), ({}, {"maxSpawnDepth": 2}), ({}, {"ancestorWindow": {"size": 4, "maxRepeats": 0}}),
            ({"recursion_budget_remaining": 0}, {}),
        ):  # fmt: skip
            envelope, observed = envelope_from(CHILD, {"causality": causality}), observed_child(repeats=2)
            ruleset = ruleset_of({"limits": limits})
            form = json.loads(
                admission_receipt(
                    envelope, ALICE, decide(envelope, ALICE, ruleset, observed), observed, ruleset, tenant=self._tenant,
                    receipt_id=new_id(), policy_revision=7,
                )
            )  # fmt: skip
            await self._emit(
                "interrogate", "admission", form["phase"], receipt_id=form["receipt_id"], task_id=form["receipt_id"],
                principal_ai="alice", body=form["body"], task_type=form["task_type"],
            )  # fmt: skip

    async def _refund(self) -> None:
        """Waits with a person: moved to the lead, an approval open with alice."""
        begun = await self._post(
            "planner", accepted(task_id=WAITING, principal_ai="alice", recipient_ai="reader", task_type="refund")
        )
        asked = await self._post(
            "planner",
            accepted(
                task_id=f"{WAITING}.approval", parent_task_id=WAITING, principal_ai="alice", recipient_ai="alice",
                task_type="plan.approval", caused_by_receipt_id=begun,
            ),
        )  # fmt: skip
        await self._post("reader", escalate("lead", task_id=WAITING, principal_ai="alice", caused_by_receipt_id=asked))

    async def _hostile(self) -> None:
        task = f"{HOSTILE} {new_id()}"
        begun = await self._post(
            "alice", accepted(task_id=task, principal_ai="alice", recipient_ai="lead", task_type=HOSTILE[:60])
        )
        await self._emit("depotgate", "artifact", "stored", task_id=task, caused_by_receipt_id=begun)

    async def _review(self) -> None:
        """COMPOSITION's table: two documents read, merged, and the plan closed."""
        ended = {"status": "success", "outcome_kind": "none", "completed_at": "2027-01-01T00:00:00Z"}
        admitted = {
            "outcome": "ALLOW", "policy_profile_id": "front-desk", "surface_id": "plans", "caller": {"principal_key": "alice"},
            "derived": {"depth": 0}, "observed": {"descendants": 0}, "capability_id": "plan.review",
        }  # fmt: skip
        plan = REVIEW
        first = await self._emit("interrogate", "admission", "accepted", task_id=plan, body=admitted)
        opened = await self._post(
            "planner",
            accepted(
                task_id=plan,
                principal_ai="alice",
                recipient_ai="planner",
                task_type="plan.run",
                caused_by_receipt_id=first,
            ),
        )
        planning = await self._post(
            "planner",
            accepted(
                task_id=plan, obligation_id=f"{plan}:planning", principal_ai="planner", recipient_ai="planner",
                task_type="plan", caused_by_receipt_id=opened,
            ),
        )  # fmt: skip
        stored = await self._emit(
            "depotgate", "artifact", "stored", task_id=plan, caused_by_receipt_id=planning, body={"role": "plan"}
        )
        planned = await self._post(
            "planner",
            complete(
                task_id=plan, obligation_id=f"{plan}:planning", principal_ai="planner", caused_by_receipt_id=stored,
                metadata={"plan_digest": "sha256:5b1f"},
            ),
        )  # fmt: skip
        steps = ("read-0", "read-1", "merge", "close")
        queued: dict[str, str] = {}
        tasks = {step: f"{plan}.{step}" for step in steps}
        causes: dict[str, str] = dict.fromkeys(steps, planned)
        for step in steps:
            body = {**admitted, "derived": {"depth": 1}, "observed": {"descendants": steps.index(step)}}
            causes[step] = await self._emit(
                "interrogate", "admission", "accepted", task_id=tasks[step], parent_task_id=plan, body=body,
                caused_by_receipt_id=causes[step],
            )  # fmt: skip
        for step in steps:
            causes[step] = await self._post(
                "planner",
                accepted(
                    task_id=tasks[step], parent_task_id=plan, principal_ai="alice", recipient_ai="svc:asyncgate",
                    task_type=f"doc.{step.partition('-')[0]}", caused_by_receipt_id=causes[step],
                ),
            )  # fmt: skip
        for step in steps:
            causes[step] = await self._emit(
                "asyncgate", "obligation", "accepted", task_id=tasks[step], recipient_ai="svc:asyncgate",
                caused_by_receipt_id=causes[step],
            )  # fmt: skip
        for step in steps:
            queued[step] = await self._emit(
                "asyncgate", "lifecycle", "queued", task_id=tasks[step], caused_by_receipt_id=causes[step]
            )

        async def worked(step: str, who: str, cause: str, needs: list[str]) -> tuple[str, str]:
            issued = await self._emit(
                "asyncgate", "lifecycle", "lease_issued", task_id=tasks[step], recipient_ai=who, attempt=1,
                caused_by_receipt_id=cause, body={"evidence": needs, "expires_at": "2999-01-01T00:00:00.000000Z"},
            )  # fmt: skip
            output = await self._emit(
                "depotgate", "artifact", "stored", task_id=tasks[step], caused_by_receipt_id=issued,
                body={"role": "output"},
            )  # fmt: skip
            usage = {"usage": {"calls": 1, "prompt_tokens": 812, "completion_tokens": 96}}
            done = await self._emit(
                "asyncgate", "obligation", "complete", task_id=tasks[step], caused_by_receipt_id=output, metadata=usage,
                **ended,
            )  # fmt: skip
            return done, output

        read_0, _ = await worked("read-0", "reader", queued["read-0"], [])
        read_1, _ = await worked("read-1", "reader", queued["read-1"], [])
        merged, _ = await worked("merge", "merger", read_1, [read_0, read_1])
        closing = await self._emit(
            "asyncgate", "lifecycle", "lease_issued", task_id=tasks["close"], recipient_ai="planner", attempt=1,
            caused_by_receipt_id=merged, body={"evidence": [merged], "expires_at": "2999-01-01T00:00:00.000000Z"},
        )  # fmt: skip
        end = await self._post("planner", complete(task_id=plan, principal_ai="alice", caused_by_receipt_id=closing))
        await self._emit(
            "asyncgate", "obligation", "complete", task_id=tasks["close"], caused_by_receipt_id=end, **ended
        )
