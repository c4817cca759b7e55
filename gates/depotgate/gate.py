"""DepotGate as the kit serves it: its definition, and each endpoint's handler."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from depotgate.database import DepotGateDatabase
from depotgate.deposit_handler import DepositHandler
from depotgate.depot_gate import DepotGate, DepotGateProcess
from depotgate.endpoints import ENDPOINTS, SCHEMAS
from depotgate.metrics import METRICS
from depotgate.problem_codes import Code
from depotgate.read_handlers import ArtifactReadHandlers
from depotgate.schema import DEPOTGATE, KEEPER
from depotgate.settings import Settings
from legivellum.gate.definition import GateDefinition
from legivellum.gate.interview import Interview
from legivellum.http.router import Handler
from legivellum.identity.caller import TYPES_BUT_WITNESS

_COUNTED = 10_000


async def interview(process: DepotGateProcess, tenant: UUID) -> Interview:
    """Raises Unavailable."""
    totals = await process.database.totals(tenant)
    notes = ["There are more artifacts than are counted."] if totals.kept + totals.retired > _COUNTED else []
    counts = {"artifacts_kept": totals.kept, "artifacts_retired": totals.retired}
    return Interview(totals.as_of, counts, {}, notes)


def handlers(process: DepotGateProcess) -> Mapping[str, Handler]:
    """Raises UnusableStore."""
    gate = DepotGate.of(process)
    reading = ArtifactReadHandlers(gate)
    return {
        "POST /artifacts": DepositHandler(gate),
        "GET /artifacts": reading.artifacts,
        "GET /artifacts/{pointer}": reading.content,
        "GET /artifacts/{pointer}/manifest": reading.manifest,
    }


GATE = GateDefinition(
    module=__name__,
    name="depotgate",
    title="DepotGate",
    doctrine="DepotGate keeps. It does not read.",
    description="Artifacts: plans, inputs and outputs, content-checked and immutable.",
    settings=Settings,
    connect=DepotGateDatabase.served,
    schema=DEPOTGATE,
    role=KEEPER,
    requires=("memorygate.schema:LEDGER",),
    endpoints=ENDPOINTS,
    handlers=handlers,
    interview=interview,
    callers=TYPES_BUT_WITNESS,
    schemas=SCHEMAS,
    codes=Code,
    metrics=METRICS,
)
