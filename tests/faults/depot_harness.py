"""DepotGate where the faults play: rows and receipts in the ledger's database, bytes in a directory, identity followed from MetaGate's.

The two databases are two servers. No process of the ledger runs.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from tests.faults import depot_promises
from tests.faults.database_sides import DatabaseSide, GateHarness, database_server
from tests.faults.depot_load import DepotLoad
from tests.faults.depot_promises import StoredDeposit
from tests.faults.gate import ServedGate, serving_process, through
from tests.faults.wire import KeptConnections
from tests.integration.api.processes import free_port
from tests.integration.depotgate.conftest import DepotDatabase, make_depot
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal

from depotgate.artifact import EMITTER
from depotgate.schema import KEEPER
from metagate_store.publisher import Publisher
from metagate_store.rows import Change, TenantRow

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
MEGABYTES = 64
COMMAND = [sys.executable, "-c", "from depotgate.main import main; main()", "serve"]


@dataclass
class DepotHarness(GateHarness):
    database: DepotDatabase
    store: Path
    store_is_small: bool
    """It is a file system of its own that can be filled."""

    @asynccontextmanager
    async def serving(self, *, workers: int = 2, **environment: str) -> AsyncIterator[ServedGate]:
        port = free_port()
        environ = {
            "DEPOTGATE_DATABASE_URL": through(self.database.keeper, self.proxy.port),
            "DEPOTGATE_IDENTITY_DATABASE_URL": self.identity,
            "DEPOTGATE_STORE": self.store.as_uri(),
            "DEPOTGATE_PORT": str(port),
            "DEPOTGATE_WORKERS": str(workers),
            "DEPOTGATE_DEADLINE_MS": "500",
            "DEPOTGATE_QUEUE": "32",
            "DEPOTGATE_UPLOADS": "64",
            "DEPOTGATE_RATE_PER_SECOND": "0",
            "DEPOTGATE_LOG_FORMAT": "json",
            **environment,
        }
        async with serving_process(COMMAND, environ, port=port, workers=workers) as gate:
            yield gate

    def make_load(self, line: KeptConnections, row: str, pause: Callable[[int], float]) -> DepotLoad:
        return DepotLoad(line, self.principals, row, pause)

    async def stored(self, prefix: str) -> tuple[list[StoredDeposit], str]:
        async with self.sides["ledger"].superuser() as connection:
            rows = await connection.fetch("SELECT tenant::text, body FROM memorygate.receipt ORDER BY position")
        receipts = [(row["tenant"], json.loads(row["body"])) for row in rows]
        text = "\n".join(row["body"] for row in rows)
        return [self._stored(tenant, receipt) for tenant, receipt in receipts if receipt["emitter"] == EMITTER], text

    def _stored(self, tenant: str, receipt: dict[str, object]) -> StoredDeposit:
        body = receipt["body"]
        assert isinstance(body, dict)
        path = self.store / str(body["blob"])
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
        client = f"{tenant}/{body['depositor']}"
        return StoredDeposit(str(receipt["receipt_id"]), client, str(receipt["artifact_pointer"]), digest)

    def own(self, load: DepotLoad, stored: Sequence[StoredDeposit]) -> list[StoredDeposit]:
        deposited = {life.artifact_id for life in load.lives}
        return [receipt for receipt in stored if receipt.artifact_id in deposited]

    broken = staticmethod(depot_promises.broken)
    figures = staticmethod(depot_promises.figures)


def is_mounted(directory: Path) -> bool:
    """Whether a small file system could be mounted there: that needs root."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m,mode=755", "tmpfs", str(directory)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


@asynccontextmanager
async def depot_harness() -> AsyncIterator[DepotHarness]:
    async with database_server() as ledger, database_server() as metagate:
        database = await make_depot(ledger[1])
        published = await metagate[1].make()
        sides = {
            "ledger": DatabaseSide("ledger", ledger[0], ledger[2], database.superuser, KEEPER, "depotgate.artifact"),
            "metagate": DatabaseSide(
                "metagate", metagate[0], metagate[2], published.superuser, "metagate_identity", "metagate.principal"
            ),
        }
        tenants = [uuid4(), uuid4()]
        types = {"alice": "principal", "bob": "principal", "watcher": "observer"}
        principals = [LedgerPrincipal(tenant, name, type_) for tenant in tenants for name, type_ in types.items()]
        await _publish(published.publisher, principals)
        store = Path(tempfile.mkdtemp(prefix="depot-faults-"))
        small = is_mounted(store)
        identity = through(published.identity, metagate[2].port)
        harness = DepotHarness(sides, identity, principals, database, store, small)
        try:
            async with harness.serving() as gate:
                harness.gate = gate
                yield harness
        finally:
            if small:
                subprocess.run(["umount", "-l", str(store)], check=False)
            shutil.rmtree(store, ignore_errors=True)


async def _publish(dsn: str, principals: Sequence[LedgerPrincipal]) -> None:
    upserts: dict[str, list[dict[str, object]]] = {}
    for principal in principals:
        for table, values in principal.rows().items():
            upserts.setdefault(table, []).extend(values)
    tenants = {principal.tenant for principal in principals}
    rows = tuple(TenantRow(tenant, f"team-{tenant.hex[:8]}", CREATED) for tenant in tenants)
    publisher = await Publisher.open(dsn)
    try:
        await publisher.load()
        await publisher.publish(Change(tenants=rows, upserts=upserts))
    finally:
        await publisher.close()
