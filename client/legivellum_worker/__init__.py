"""Leases for any agent: take work from AsyncGate, do it under a lease, hand over one end.

    from legivellum_worker import Output, Work, Worker

    worker = Worker.from_packet()

    @worker.on("document.summarise")            # an `async def` gets an AsyncWork, and awaits its methods
    def summarise(work: Work) -> Output:
        text = work.inputs()["document"].decode()
        return Output(summary_of(text, work.job.instruction), "text/markdown")

    worker.run(parallel=4)                      # until SIGTERM

A handler returns an Output (or None), or raises Failed, Escalate or Release. While it runs, its lease is renewed; when
the lease is lost, the handler is cancelled and nothing more is sent: another worker has the task.

An output goes into the sink that the task's authority grants, under the lease. `work.artifacts.put(…)` deposits a file
there, and `Output.of(artifact)` names it as the result.

Who takes no leases needs the ledger alone: `Ledger`, `AsyncLedger` and `receipted` record what any code does.

Only the standard library. asyncio is imported when the first `async def` handler runs.
"""

from legivellum_worker.leased_work import LeaseLostError
from legivellum_worker.ledger import Ledger
from legivellum_worker.ledger_calls import Answer, NotRecorded, OpenObligation, Question, RecordedReceipt, Refused
from legivellum_worker.obligation import Obligation, current_obligation
from legivellum_worker.receipted import receipted
from legivellum_worker.results import Escalate, Failed, Output, Release
from legivellum_worker.settings import WorkerSettings
from legivellum_worker.work import AsyncWork, Work
from legivellum_worker.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from legivellum_worker.async_ledger import AsyncLedger, AsyncObligation

__all__ = [
    "Answer",
    "AsyncLedger",
    "AsyncObligation",
    "AsyncWork",
    "Escalate",
    "Failed",
    "LeaseLostError",
    "Ledger",
    "NotRecorded",
    "Obligation",
    "OpenObligation",
    "Output",
    "Question",
    "RecordedReceipt",
    "Refused",
    "Release",
    "Work",
    "Worker",
    "WorkerSettings",
    "current_obligation",
    "receipted",
]


def __getattr__(name: str) -> object:
    # asyncio costs more than everything else of this package.
    if name in {"AsyncLedger", "AsyncObligation"}:
        from legivellum_worker import async_ledger

        return getattr(async_ledger, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
