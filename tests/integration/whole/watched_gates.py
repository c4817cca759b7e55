"""The gates and MetaGate's API on a PostgreSQL of their own, which tests stop and empty; every connection that a process
opens is on record, as its interpreter announces it.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
from tests.databases import Server
from tests.integration.delegate.gate_fixture import COMMANDS, GateGroup, PlanTenant, plan_tenant, serving_gates
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal, free_port

API = "import sys; from metagate_api.server import run; from metagate_api.settings import Settings; sys.exit(run(Settings()))"
# uvloop calls the kernel without telling the interpreter, so these processes do without it.
GUARD = """
import asyncio, os, sys, types
sys.modules["uvloop"] = types.ModuleType("uvloop")
sys.modules["uvloop"].new_event_loop = asyncio.new_event_loop
def watch(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.sendmsg"}:
        with open(os.environ["CONNECTIONS"], "a") as log:
            log.write(event + " " + repr(arguments[1:] if event == "socket.connect" else arguments) + "\\n")
sys.addaudithook(watch)
"""


@dataclass(slots=True)
class WatchedGates:
    gates: GateGroup
    server: Server

    @property
    def superuser(self) -> str:
        return self.gates.database.superuser

    def connections(self) -> dict[str, list[str]]:
        """By process: what it has opened that does not lead to the database."""
        opened = {name: self.log_of(name).read_text(encoding="utf-8").splitlines() for name in self.gates.processes}
        assert all(opened.values()), "the guard sees what it should see: each process has connected to the database"
        return {name: [line for line in lines if ".s.PGSQL." not in line] for name, lines in opened.items()}

    def log_of(self, name: str) -> Path:
        return self.gates.directory / f"{name}.connections"

    async def rows(self) -> dict[str, int]:
        """How many rows each table has, of every schema."""
        connection = await asyncpg.connect(self.superuser)
        try:
            names = await connection.fetch(
                "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables "
                "WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
            )
            return {row["name"]: await connection.fetchval(f"SELECT count(*) FROM {row['name']}") for row in names}
        finally:
            await connection.close()

    async def until_up(self) -> None:
        """Until every gate has its database again."""
        for name in self.gates.processes:
            async with httpx.AsyncClient(base_url=self.gates.url(name)) as client, asyncio.timeout(60):
                while (answer := await client.get("/readyz")).json().get(
                    "database"
                ) == "down" or answer.status_code != 200:
                    await asyncio.sleep(0.05)

    async def tenant(self) -> PlanTenant:
        """With a principal of each type, and the `witness`."""
        tenant = await plan_tenant(self.gates)
        tenant.principals["witness"] = LedgerPrincipal(tenant.uid, "witness", "service", rights=("witness",))
        await tenant.publish()
        for gate in self.gates.processes:
            await tenant.until(lambda answer: answer.status_code != 401, "witness", "GET", gate, "/v1/interview")
        return tenant


@asynccontextmanager
async def watched_gates(directory: Path) -> AsyncIterator[WatchedGates]:
    (directory / "guard").mkdir()
    (directory / "guard" / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
    server = Server.start()
    try:
        await server.make_template()
        async with serving_gates(server, directory, "memorygate") as gates:
            await gates.stop("memorygate")
            gates.ports["metagate"] = free_port()
            gates.commands["metagate"] = [sys.executable, "-c", API]
            gates.environments["metagate"] = {
                "DATABASE_URL": gates.database.database.api, "METAGATE_PORT": str(gates.ports["metagate"]),
                "METAGATE_RATE_PER_SECOND": "0",
            }  # fmt: skip
            watched = WatchedGates(gates, server)
            for name, environment in gates.environments.items():
                environment |= {"PYTHONPATH": str(directory / "guard"), "CONNECTIONS": str(watched.log_of(name))}
            for name in (*COMMANDS, "metagate"):
                gates.launch(name)
            await gates.until_ready(*COMMANDS, "metagate")
            yield watched
    finally:
        server.stop()
