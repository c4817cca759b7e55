"""MemoryGate as the kit serves it: its definition, and each endpoint's handler."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from uuid import UUID

from legivellum.base.timestamps import rfc3339
from legivellum.gate.definition import GateDefinition
from legivellum.gate.interview import Interview
from legivellum.http.edge import Edge
from legivellum.http.exchange import App
from legivellum.http.router import Handler
from legivellum.receipts.signers import Signers
from memorygate.endpoints import ENDPOINTS, SCHEMAS
from memorygate.ledger import MemoryGateDatabase, Verification
from memorygate.ledger_gate import LedgerGate, LedgerProcess
from memorygate.metrics import METRICS
from memorygate.problem_codes import Code
from memorygate.schema import LEDGER, WRITER
from memorygate.settings import Settings


def handlers(process: LedgerProcess) -> Mapping[str, Handler]:
    """Raises SignersUnreadable."""
    from memorygate.read_handlers import ObligationLookup, ReadHandlers  # noqa: PLC0415
    from memorygate.receipt_handlers import StoreBatch, StoreReceipt  # noqa: PLC0415 - they import this module
    from memorygate.receipt_stream import ReceiptStream  # noqa: PLC0415

    path = process.settings.signers_file
    gate = LedgerGate(process, Signers.none() if path is None else Signers.from_file(Path(path)))
    if process.settings.console:
        process.in_front.append(partial(_console_in_front, process))
    reading = ReadHandlers(gate)
    return {
        "POST /receipts": StoreReceipt(gate),
        "POST /receipts/batch": StoreBatch(gate),
        "GET /receipts/stream": ReceiptStream(gate),
        "GET /receipts/{receipt_id}": reading.receipt,
        "GET /receipts/task/{task_id}": reading.task,
        "GET /receipts/chain/{receipt_id}": reading.chain,
        "GET /receipts/root/{task_id}": reading.root,
        "GET /v1/receipts": reading.receipts,
        "POST /v1/obligations/lookup": ObligationLookup(gate),
        "GET /inbox": reading.inbox,
        "GET /v1/summary": reading.summary,
    }


def _console_in_front(process: LedgerProcess, edge: Edge) -> App:
    # jinja2 and the pages are loaded where somebody asked for them.
    from memorygate.console.app import ledger_console  # noqa: PLC0415

    return ledger_console(process, edge)


async def interview(process: LedgerProcess, tenant: UUID) -> Interview:
    """Raises Unavailable."""
    as_of, summary, verification = await process.database.interview(tenant)
    counts = {
        "receipts": summary.receipts,
        "obligations_open": summary.open_obligations,
        "obligations_overdue": summary.overdue,
        "obligations_succeeded": summary.succeeded,
        "obligations_failed": summary.failed,
        "obligations_canceled": summary.canceled,
        "startups_open": summary.open_startups,
        "startups_ready": summary.startups_ready,
        "startups_failed": summary.startups_failed,
    }
    return Interview(as_of, counts, {"obligations_open": summary.oldest_open}, _notes(verification))


def _notes(verification: Verification | None) -> list[str]:
    if verification is None:
        return ["The chains were never verified: `memorygate verify`."]
    ended = rfc3339(verification.finished_at)
    if verification.held:
        return [f"The chains held when they were last verified, at {ended}."]
    return [f"The chains did not hold when they were last verified, at {ended}: see GET /v1/summary."]


GATE = GateDefinition(
    module=__name__,
    name="memorygate",
    title="MemoryGate",
    doctrine="MemoryGate remembers. It does not decide.",
    description="The append-only ledger of receipts.",
    settings=Settings,
    schema=LEDGER,
    role=WRITER,
    connect=MemoryGateDatabase.served,
    endpoints=ENDPOINTS,
    handlers=handlers,
    metrics=METRICS,
    codes=Code,
    schemas=SCHEMAS,
    interview=interview,
    database_event="ledger",
    mirrors_startups=True,
)
