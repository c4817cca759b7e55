"""The whole system as processes: MetaGate's operator and API on one PostgreSQL; the ledger, AsyncGate, DepotGate,
InterroGate and DeleGate on another; a worker of the library and CogniGate. Each is stopped, killed and started again at
the address that it keeps.

Tenants are declared in files, which the operator publishes: nobody here acts for a part of the product.
"""

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from tests.databases import ROLES, Database, Server
from tests.faults.fault_harness import Postgres
from tests.integration.delegate.gate_fixture import (
    REVIEW,
    GateGroup,
    PlanTenant,
    RunningProcess,
    gate_group,
    plans_policy,
    popen,
)
from tests.integration.depotgate.conftest import DepotDatabase, make_depot
from tests.integration.dev.running import resource
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal, free_port

from legivellum.identity import api_keys

HERE = Path(__file__).parent
GATES = ("memorygate", "asyncgate", "depotgate", "interrogate", "admitting")
"""The gates under the names of their processes; `admitting` is DeleGate as it is served beside InterroGate."""
WORKERS = ("worker", "cognigate")
LEDGER_DATABASE, METAGATE_DATABASE = "ledger database", "metagate database"
SETTINGS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB"}
"""Processes are killed here and never the machine: what was written stays."""
API = "import sys; from metagate_api.server import run; from metagate_api.settings import Settings; sys.exit(run(Settings()))"
COGNIGATE = "from cognigate.main import main; main()"
SINK = {"writeBeyondReceipts": True, "sinks": ["depotgate/output"]}
COGNITION = {"models": ["default"], "calls": 3, "tokens": 9_000, "seconds": 60}
STORY: dict[str, Any] = {
    "capability": "document.review",
    "parameters": REVIEW["parameters"],
    "escalation": [],
    "result": "merge",
    "steps": [
        {
            "id": "read", "forEach": "documents", "capability": "document.read", "authority": SINK,
            "job": {
                "instruction": "Read.", "inputs": [{"name": "document", "pointer": "${item}"}],
                "output": {"mime": "text/markdown"},
            },
        },
        {
            "id": "merge", "capability": "document.merge",
            "authority": {"invokeCognigate": True, **SINK, "cognition": COGNITION},
            "job": {
                "instruction": "Merge.", "inputs": [{"name": "parts", "step": "read"}], "output": {"mime": "text/markdown"},
            },
        },
    ],
}  # fmt: skip
"""Two documents are read by the worker, and merged by CogniGate."""
STORY_TASKS = ("read-0", "read-1", "merge", "close")
BINDING = {
    "principalRef": {"name": "component"}, "profileRef": {"name": "component"}, "manifestRef": {"name": "component"},
    "components": ["*"],
}  # fmt: skip
PROBLEMATA = {
    "version": "1",
    "payloadKind": "task",
    "gateway": {"policyProfileRef": {"name": "front"}, "surfaceId": "desk", "principals": ["service"]},
    "capabilities": [{"id": "document.any"}],
}  # fmt: skip
"""What agents may ask through MCP."""
_TENANT = "SELECT tenant FROM metagate.tenant WHERE namespace = $1"


@dataclass(slots=True)
class DeclaredTenant(PlanTenant):
    """A tenant that is declared in files. Its uid is known once the operator has published it."""

    name: str = ""
    resources: Path = Path()

    @property
    def namespace(self) -> str:
        return self.name

    def declare(self, kind: str, name: str, spec: Mapping[str, Any]) -> None:
        """In one step, so that no half of a file is ever read."""
        path = self.resources / self.name / f"{kind.lower()}-{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_suffix(".new")
        written.write_text(resource(kind, name, spec, self.name), encoding="utf-8")
        written.rename(path)

    def declare_principal(self, principal: LedgerPrincipal) -> None:
        key = {"id": api_keys.id_of(principal.key.encode()), "sha256": api_keys.digest_of(principal.key)}
        self.declare("Principal", principal.name, {"type": principal.type, "apiKeys": [key]})

    async def published(self, dsn: str) -> None:
        """Wait until the tenant is there, and take its uid over."""
        connection = await asyncpg.connect(dsn)
        try:
            async with asyncio.timeout(30):
                while (uid := await connection.fetchval(_TENANT, self.name)) is None:
                    await asyncio.sleep(0.02)
        finally:
            await connection.close()
        self.uid = UUID(str(uid))
        for principal in self.principals.values():
            principal.tenant = self.uid


@dataclass(slots=True)
class WholeSystem:
    gates: GateGroup
    metagate: Database
    databases: dict[str, Postgres]
    resources: Path
    tenants: dict[str, DeclaredTenant] = field(default_factory=dict)

    @property
    def hold(self) -> Path:
        """While it exists, steps of the worker wait before their output."""
        return self.gates.directory / "hold"

    async def stop(self, name: str) -> None:
        """A process or a database, as an administrator stops it."""
        if (database := self.databases.get(name)) is not None:
            await database.stop()
        else:
            await self.gates.stop(name)

    async def start(self, *names: str) -> None:
        for name in names:
            if (database := self.databases.get(name)) is not None:
                await database.start()
            else:
                self.gates.launch(name)
        await self.gates.until_ready(*(name for name in names if name in self.gates.ports))

    async def tenant(self, name: str, *, forwards: bool) -> DeclaredTenant:
        """A new one whose requests InterroGate forwards to DeleGate, or only admits."""
        tenant = self.tenants[name] = DeclaredTenant(self.gates, name=name, resources=self.resources)
        for principal in tenant.principals.values():
            tenant.declare_principal(principal)
        policy = plans_policy(f"{self.gates.url('admitting')}/intents/{name}")
        public = policy["surfaces"][0]
        public["targets"][0]["forward"] = forwards
        policy["surfaces"].append({**public, "surfaceId": "desk", "kind": "McpGateway"})
        tenant.declare("PolicyProfile", "front", policy)
        tenant.declare("PlanTemplate", "review", STORY)
        tenant.declare("Problemata", "desk", PROBLEMATA)
        tenant.declare("Profile", "component", {"capabilities": {"read": True}})
        tenant.declare("Manifest", "component", {"deploymentKey": "d", "services": {}})
        tenant.declare("PrincipalBinding", "component", BINDING)
        await tenant.published(self.metagate.superuser)
        tenant.serve()
        return tenant

    async def start_workers(self, tenant: DeclaredTenant, *more: str) -> None:
        """A worker of the library and CogniGate work for this tenant, and `more` of them."""
        key = self.gates.directory / "worker.key"
        key.write_text(tenant.principals["worker"].key, encoding="ascii")
        for name in (*WORKERS, *more):
            self.gates.environments.setdefault(name, {}).update(_worker_environment(self.gates, key))
        await self.start(*WORKERS, *more)

    def another(self, kind: str) -> str:
        """The name of one more worker of this kind, to be started."""
        gates, name = self.gates, f"another {kind}"
        gates.environments[name] = dict(gates.environments.get(kind, {}))
        gates.commands[name] = gates.commands[kind]
        if kind == "cognigate":
            gates.ports[name] = free_port()
            gates.environments[name]["COGNIGATE_PORT"] = str(gates.ports[name])
        return name


def _worker_environment(gates: GateGroup, key: Path) -> dict[str, str]:
    names = {"admitting": "delegate"}
    urls = {f"METAGATE_{names.get(gate, gate).upper()}_URL": gates.url(gate) for gate in GATES}
    return {**urls, "METAGATE_API_KEY_FILE": str(key), "METAGATE_SPAWN_PROFILE": "front"}


@asynccontextmanager
async def _postgres() -> AsyncIterator[tuple[Postgres, Server]]:
    directory = Path(tempfile.mkdtemp(prefix="metagate-whole-"))
    postgres = Postgres.launcher(directory, settings=SETTINGS)
    try:
        await postgres.start()
        embedded = postgres.embedded
        passwords = {role: embedded.password(role) for role in ROLES}
        server = Server(embedded.dsn("postgres", database="postgres", tcp=True), passwords, embedded)
        await server.make_template()
        yield postgres, server
    finally:
        await postgres.stop()
        shutil.rmtree(directory, ignore_errors=True)


async def _databases(ledger: Server, metagate: Server) -> tuple[DepotDatabase, Database]:
    """The gates' database, whose identities are those of MetaGate's."""
    depot, published = await asyncio.gather(make_depot(ledger), metagate.make())
    followed = replace(depot.database, identity=published.identity, publisher=published.publisher, api=published.api)
    tasks = replace(depot.tasks, ledger=replace(depot.tasks.ledger, database=followed))
    return replace(depot, tasks=tasks), published


@asynccontextmanager
async def whole_system(
    directory: Path, spawn: Callable[[str, list[str], dict[str, str], Path], RunningProcess] = popen, **settings: str
) -> AsyncIterator[WholeSystem]:
    """Everything but the workers, which need a tenant. `settings`: more variables of every gate, with their prefix."""
    async with AsyncExitStack() as stack:
        (ledger, ledger_server), (metagate, metagate_server) = [
            await stack.enter_async_context(_postgres()) for _ in range(2)
        ]
        database, published = await _databases(ledger_server, metagate_server)
        gates = await gate_group(database, directory)
        gates.spawn = spawn
        resources = directory / "resources"
        resources.mkdir()
        gates.ports |= {"metagate": free_port(), "cognigate": free_port()}
        gates.commands |= {
            "operator": [sys.executable, "-m", "tests.integration.whole.file_operator", str(resources), published.publisher],
            "metagate": [sys.executable, "-c", API],
            "cognigate": [sys.executable, "-c", COGNIGATE, "serve"],
            "worker": [sys.executable, str(HERE / "step_worker.py"), str(directory / "hold")],
        }  # fmt: skip
        gates.environments |= {
            "operator": {},
            "metagate": {"DATABASE_URL": published.api, "METAGATE_PORT": str(gates.ports["metagate"])},
            "cognigate": {
                "COGNIGATE_PORT": str(gates.ports["cognigate"]), "COGNIGATE_BUILTIN_MODEL": "true",
                "COGNIGATE_CAPABILITIES": "document.merge",
            },
        }  # fmt: skip
        for environment in gates.environments.values():
            environment.update(settings)
        stack.push_async_callback(gates.close)
        system = WholeSystem(gates, published, {LEDGER_DATABASE: ledger, METAGATE_DATABASE: metagate}, resources)
        await system.start("operator", "metagate", *GATES)
        yield system


def story_body(documents: list[str]) -> bytes:
    return json.dumps({"documents": documents}).encode()
