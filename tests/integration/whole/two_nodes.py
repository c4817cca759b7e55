"""The gates on two PostgreSQL nodes: a primary and a standby that streams. Every gate's URL names both hosts and asks
for the one that can be written to, so a promotion needs no change of any setting.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg
from tests.databases import ROLES, Server
from tests.faults.proxy import Proxy
from tests.integration.delegate.gate_fixture import GateGroup, serving_gates
from tests.integration.memorygate.ledger_fixture import free_port
from tests.standby import kill_server, promote, streaming_standby

from memorygate.verifying import verify
from metagate_postgres import EmbeddedPostgres

SETTINGS = {
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "wal_retrieve_retry_interval": "100ms",
    # A process that is killed loses nothing that it gave to the kernel, and no test here ends the kernel.
    "fsync": "off",
}
GATES = ("asyncgate", "depotgate", "interrogate", "admitting")
"""All but the ledger, which is started with a deadline of its own: a test waits for it."""


@dataclass(slots=True)
class TwoNodes:
    """The primary, its standby, and the gates that know both."""

    primary: EmbeddedPostgres
    standby: EmbeddedPostgres
    between: Proxy
    """Through which the standby streams."""
    gates: GateGroup

    async def fail_over(self) -> None:
        """kill -9 of the primary, which does not come back; the standby is promoted."""
        await kill_server(self.primary)
        await promote(self.standby)

    async def until_received(self) -> None:
        """Until the standby has everything that was committed so far."""
        connection = await asyncpg.connect(self.primary.dsn("postgres", database="postgres", tcp=True))
        try:
            written = await connection.fetchval("SELECT pg_current_wal_flush_lsn()")
            query = "SELECT flush_lsn >= $1 FROM pg_stat_replication"
            async with asyncio.timeout(20):
                while not await connection.fetchval(query, written):
                    await asyncio.sleep(0.02)
        finally:
            await connection.close()

    async def column(self, query: str) -> set[str]:
        """The first column of what the node answers that can be written to."""
        return await _first_column(self.gates.database.superuser, query)

    async def on_standby(self, query: str) -> set[str]:
        """The first column of what the standby answers while it streams."""
        name = self.gates.database.database.name
        return await _first_column(self.standby.dsn("postgres", database=name, tcp=True), query)

    async def defect(self) -> object:
        """What `memorygate verify` finds on the node that can be written to; None: everything holds."""
        return (await verify(self.gates.database.tasks.ledger.auditor)).bad


async def _first_column(url: str, query: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        return {str(row[0]) for row in await connection.fetch(query)}
    finally:
        await connection.close()


@asynccontextmanager
async def two_nodes(directory: Path, *, synchronous: bool) -> AsyncIterator[TwoNodes]:
    """A server of the test's own, which is killed; the gates start when the standby streams."""
    directory.chmod(0o755)
    standby_port = free_port()
    with EmbeddedPostgres(directory / "primary", settings=SETTINGS) as primary:
        passwords = {role: primary.password(role) for role in ROLES}
        secret = quote(primary.password("postgres"), safe="")
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby_port}"
        url = f"postgresql://postgres:{secret}@{hosts}/postgres?target_session_attrs=read-write"
        server = Server(url, passwords, primary)
        await server.make_template()
        streaming = streaming_standby(primary, port=standby_port, synchronous=synchronous, settings=SETTINGS)
        async with streaming as (standby, between), serving_gates(server, directory, *GATES) as gates:
            await gates.start("memorygate", DEADLINE_MS="1500")
            yield TwoNodes(primary, standby, between, gates)
