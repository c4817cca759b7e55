"""The five gates as processes of their own on one real PostgreSQL: the ledger, AsyncGate, DepotGate, InterroGate and
DeleGate, which are stopped, killed and started again at the same addresses.

There are two processes of DeleGate: `delegate` takes requests at `/plans` (admission off), `admitting` takes what
InterroGate forwards (admission required). A tenant of a test's own has a principal of each type with a real API key, and
its credential lies in the directory that both read.
"""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

import asyncpg
import httpx
from tests.databases import Server
from tests.integration.depotgate.conftest import DepotDatabase, make_depot
from tests.integration.interrogate.gate_fixture import policy_row
from tests.integration.memorygate.conftest import PASSWORD, _as
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal, free_port
from tests.integration.store.worlds import row

from interrogate.schema import INTERROGATE, WRITER
from legivellum.postgres.migrations import migrate
from metagate_crds.canonical_json import canonical, digest
from metagate_crds.kinds import PLAN_TEMPLATE
from metagate_crds.validation import parse_spec
from metagate_store.publisher import Publisher
from metagate_store.rows import Change, TenantRow

ROOT = Path(__file__).parents[3]
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that never use it: a context with the certificates of the machine takes each of them 20 ms to make."""
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
TYPES = ("principal", "delegate", "worker", "service", "component", "observer", "admin")
CEILING: dict[str, Any] = {
    "spawn": {"max": 10},
    "invokeCognigate": True,
    "exposeTools": ["*"],
    "writeBeyondReceipts": True,
    "maxDepth": 8,
    "sinks": ["depotgate/output", "depotgate/supporting"],
    "cognition": {"models": ["builtin/extract-1", "default", "small"], "calls": 100, "tokens": 100_000, "seconds": 600},
}
"""What AsyncGate lets tasks of every tenant of these tests carry."""
SERVE = "from {module}.main import main; main()"
COMMANDS = {
    "memorygate": "memorygate", "asyncgate": "asyncgate", "depotgate": "depotgate", "interrogate": "interrogate",
    "delegate": "delegate", "admitting": "delegate",
}  # fmt: skip
"""Processes by their name, and the package that each serves."""
REVIEW: dict[str, Any] = {
    "capability": "document.review",
    "parameters": {
        "type": "object",
        "required": ["documents"],
        "properties": {"documents": {"type": "array", "items": {"type": "string"}}},
        "additionalProperties": False,
    },
    "escalation": [{"on": ["failure", "limit", "dependency"], "to": "principal"}],
    "result": "merge",
    "steps": [
        {
            "id": "read",
            "forEach": "documents",
            "capability": "document.summarise",
            "job": {
                "instruction": "Summarise in five sentences.",
                "inputs": [{"name": "document", "pointer": "${item}"}],
            },
        },
        {
            "id": "merge",
            "capability": "document.merge",
            "job": {"instruction": "Merge.", "inputs": [{"name": "parts", "step": "read"}]},
        },
    ],
}
"""A template with a group and a step that needs it."""


def plans_policy(delegate_url: str, capabilities: tuple[str, ...] = ("*",)) -> dict[str, Any]:
    """Requests on the surface `public`, which are forwarded to DeleGate; its steps on the surface `plans`."""
    return {
        "limits": {"maxSpawnDepth": 8, "maxTotalDescendants": 1_000},
        "surfaces": [
            {
                "surfaceId": "public",
                "principals": ["*"],
                "mayBegin": ["*"],
                "capabilities": {"allow": ["*"]},
                "parentage": "Tenant",
                "targets": [{"name": "delegate", "url": delegate_url}],
            },
            {
                "surfaceId": "plans",
                "principals": ["delegate"],
                "capabilities": {"allow": list(capabilities)},
                "parentage": "Tenant",
                # Named and never called: DeleGate hands the tasks over itself.
                "targets": [{"name": "asyncgate", "url": "http://asyncgate:8002/tasks", "forward": False}],
            },
        ],
    }


def template_row(tenant: UUID, name: str, spec: Mapping[str, Any], owner: UUID) -> dict[str, Any]:
    """As the compiler makes it of a PlanTemplate that it serves: with defaults filled in."""
    model, findings = parse_spec(PLAN_TEMPLATE.name, dict(spec))
    assert model is not None, findings
    body = model.declared()
    return row(owner, tenant=str(tenant), name=name, body=body, content_hash=digest(canonical(body)), generation=1)


async def answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.HTTPError:
        return False


class RunningProcess(Protocol):
    """What is asked of a process: `subprocess.Popen` is one."""

    pid: int

    def poll(self) -> int | None: ...
    def send_signal(self, number: int, /) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


def popen(_name: str, command: list[str], environment: dict[str, str], log: Path) -> RunningProcess:
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True)


@dataclass(slots=True)
class GateGroup:
    """The processes by name, each at an address that it keeps."""

    database: DepotDatabase
    directory: Path
    ports: dict[str, int]
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    commands: dict[str, list[str]] = field(default_factory=dict)
    processes: dict[str, RunningProcess] = field(default_factory=dict)
    spawn: Callable[[str, list[str], dict[str, str], Path], RunningProcess] = popen
    """How a process is started, with its name, command, environment and log."""

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    @property
    def credentials(self) -> Path:
        return self.directory / "credentials"

    def log(self, name: str) -> str:
        """What the process has logged so far."""
        return (self.directory / f"{name}.log").read_text(encoding="utf-8")

    def launch(self, name: str, **settings: str) -> None:
        """Start it without waiting. `settings`: variables of this run, without their prefix."""
        prefix = COMMANDS.get(name, name).upper()
        environment = {
            "PATH": os.environ["PATH"],  # noqa: TID251 - the process is a child of this one
            **self.environments[name],
            **{f"{prefix}_{key}": value for key, value in settings.items()},
        }
        command = self.commands.get(name) or [
            sys.executable,
            "-c",
            SERVE.format(module=COMMANDS.get(name, name)),
            "serve",
        ]
        self.processes[name] = self.spawn(name, command, environment, self.directory / f"{name}.log")

    async def start(self, name: str, **settings: str) -> None:
        self.launch(name, **settings)
        await self.until_ready(name)

    async def until_ready(self, *names: str) -> None:
        for name in names:
            async with httpx.AsyncClient(base_url=self.url(name)) as client, asyncio.timeout(60):
                while not await answers(client):
                    assert self.processes[name].poll() is None, f"{name} has ended:\n{self.log(name)[-4_000:]}"
                    await asyncio.sleep(0.05)

    async def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        process = self.processes.pop(name)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        await asyncio.to_thread(process.wait, 30)

    async def kill(self, name: str) -> None:
        await self.stop(name, signal.SIGKILL)

    def suspend(self, name: str) -> None:
        """It keeps its connections and answers nothing."""
        self.processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGCONT)

    @asynccontextmanager
    async def without(self, name: str) -> AsyncIterator[None]:
        """The process is stopped while the block runs."""
        await self.stop(name)
        try:
            yield
        finally:
            await self.start(name)

    async def close(self) -> None:
        for name in list(self.processes):
            await self.kill(name)


@asynccontextmanager
async def serving_gates(postgres: Server, directory: Path, *names: str, **delegate: str) -> AsyncIterator[GateGroup]:
    """The processes of these names (all, where none is named). `delegate`: settings of DeleGate's processes."""
    database = await make_depot(postgres)
    group = await gate_group(database, directory, **delegate)
    chosen = names or tuple(COMMANDS)
    try:
        for name in chosen:
            group.launch(name)
        await group.until_ready(*chosen)
        yield group
    finally:
        await group.close()
        await postgres.drop(database.database)


async def gate_group(database: DepotDatabase, directory: Path, **delegate: str) -> GateGroup:
    """The gates on this database, none of them started."""
    owner = database.tasks.ledger.owner
    await migrate(INTERROGATE, owner, passwords={WRITER: PASSWORD})
    group = GateGroup(database, directory, {name: free_port() for name in COMMANDS})
    group.credentials.mkdir()
    group.environments.update(environments(group, _as(owner, WRITER), delegate))
    return group


def environments(group: GateGroup, interrogate: str, delegate: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The settings of each process, as variables."""
    ceilings = group.directory / "ceilings.yaml"
    ceilings.write_text(json.dumps([{"namespaces": ["*"], "authority": CEILING}]), encoding="utf-8")
    tasks = group.database.tasks
    urls = {f"{name.upper()}_URL": group.url(name) for name in ("memorygate", "asyncgate", "depotgate", "interrogate")}
    common = {
        "IDENTITY_DATABASE_URL": group.database.database.identity,
        "IDENTITY_POLL_MS": "20",
        "RATE_PER_SECOND": "0",
    }
    own: dict[str, dict[str, str]] = {
        "memorygate": {"DATABASE_URL": tasks.ledger.writer, "DEADLINE_MS": "10000"},
        "asyncgate": {
            "DATABASE_URL": tasks.broker, "CEILINGS_FILE": str(ceilings), "PASS_SECONDS": "0.2", "DEADLINE_MS": "10000",
        },
        "depotgate": {
            "DATABASE_URL": group.database.keeper, "STORE": f"file://{group.directory}/artifacts", "DEADLINE_MS": "10000",
            "PUBLIC_URL": group.url("depotgate"),
        },
        "interrogate": {
            "DATABASE_URL": interrogate, "TARGET_HOSTS": f"127.0.0.1:{group.ports['admitting']}", "DEADLINE_MS": "10000",
            "FORWARD_MS": "20000",
        },
        "delegate": {**urls, "ADMISSION": "off", "CREDENTIALS": str(group.credentials), **delegate},
        "admitting": {**urls, "ADMISSION": "required", "CREDENTIALS": str(group.credentials), **delegate},
    }  # fmt: skip
    return {
        name: {
            f"{COMMANDS[name].upper()}_{key}": value
            for key, value in {**common, "PORT": str(group.ports[name]), **settings}.items()
        }
        for name, settings in own.items()
    }


@dataclass(slots=True)
class PlanTenant:
    """A tenant of a test's own, with one principal of each type and three more: `other`, who works too, `approver` and
    `stranger`, who are principals.
    """

    gates: GateGroup
    uid: UUID = field(default_factory=uuid4)
    principals: dict[str, LedgerPrincipal] = field(default_factory=dict)
    _owners: dict[str, UUID] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.principals = {name: LedgerPrincipal(self.uid, name, name) for name in TYPES}
        self.principals["other"] = LedgerPrincipal(self.uid, "other", "worker")
        self.principals |= {name: LedgerPrincipal(self.uid, name) for name in ("approver", "stranger")}

    @property
    def namespace(self) -> str:
        return f"team-{self.uid.hex[:8]}"

    async def publish(
        self,
        templates: Mapping[str, Mapping[str, Any]] | None = None,
        policies: Mapping[str, Mapping[str, Any]] | None = None,
        gone: tuple[str, ...] = (),
    ) -> int:
        """The tenant, its principals, templates and policies by name; `gone`: names of templates that are removed."""
        tables: dict[str, list[dict[str, Any]]] = {}
        for principal in self.principals.values():
            for table, values in principal.rows().items():
                tables.setdefault(table, []).extend(values)
        for name, spec in (templates or {}).items():
            owner = self._owners.setdefault(f"template {name}", uuid4())
            tables.setdefault("plan_template", []).append(template_row(self.uid, name, spec, owner))
        for name, spec in (policies or {}).items():
            owner = self._owners.setdefault(f"policy {name}", uuid4())
            tables.setdefault("policy_profile", []).append(policy_row(self.uid, name, spec, owner))
        publisher = await Publisher.open(self.gates.database.database.publisher)
        try:
            await publisher.load()
            return await publisher.publish(
                Change(
                    tenants=(TenantRow(self.uid, self.namespace, CREATED),),
                    upserts=tables,
                    deletes={"plan_template": [[str(self.uid), name] for name in gone]},
                )
            )
        finally:
            await publisher.close()

    def serve(self, credential: str | None = None) -> None:
        """Write the credential of its delegate (or another text) where DeleGate reads it: in one step, as a Secret is."""
        path = self.gates.credentials / self.namespace
        written = path.with_name(f".{self.namespace}.new")
        written.write_text(f"{credential or self.principals['delegate'].key}\n", encoding="ascii")
        written.rename(path)

    async def ask(
        self, who: str | None, method: str, gate: str, path: str, body: Any = None, **headers: str
    ) -> httpx.Response:
        """One request of a principal (None: of nobody). Bytes are sent as they are, anything else as JSON."""
        sent = {} if who is None else dict(self.principals[who].headers)
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if content is not None:
            sent.setdefault("content-type", "application/json")
        async with httpx.AsyncClient(base_url=self.gates.url(gate), timeout=40, verify=PLAIN) as client:
            return await client.request(method, path, content=content, headers=sent)

    async def until(self, check: Callable[[httpx.Response], bool], *request: Any) -> httpx.Response:
        """Ask again and again until the answer is as it should be."""
        answer = await self.ask(*request)
        async with asyncio.timeout(20):
            while not check(answer):
                await asyncio.sleep(0.02)
                answer = await self.ask(*request)
        return answer

    async def until_known(self) -> "PlanTenant":
        """Waits until every gate that runs knows its principals, and DeleGate its newest templates."""
        for gate in self.gates.processes:
            await self.until(lambda answer: answer.status_code == 200, "delegate", "GET", gate, "/v1/interview")
        return self

    async def receipts(self, **where: Any) -> list[dict[str, Any]]:
        """What the ledger holds of the tenant, oldest first; only receipts with these fields."""
        connection = await asyncpg.connect(self.gates.database.superuser)
        try:
            rows = await connection.fetch(
                "SELECT body FROM memorygate.receipt WHERE tenant = $1 ORDER BY stored_at, position", self.uid
            )
        finally:
            await connection.close()
        receipts = [json.loads(item["body"]) for item in rows]
        return [receipt for receipt in receipts if all(receipt.get(name) == value for name, value in where.items())]


async def plan_tenant(
    gates: GateGroup,
    *,
    templates: Mapping[str, Mapping[str, Any]] | None = None,
    policies: Mapping[str, Mapping[str, Any]] | None = None,
) -> PlanTenant:
    """A new tenant that is served, known to every gate that runs. Without `templates` it has REVIEW as `review`; its
    policy `front` lets everything pass.
    """
    tenant = PlanTenant(gates)
    forwarding = f"{gates.url('admitting')}/intents/{tenant.namespace}"
    await tenant.publish(
        templates={"review": REVIEW} if templates is None else templates,
        policies={"front": plans_policy(forwarding)} if policies is None else policies,
    )
    tenant.serve()
    return await tenant.until_known()
