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

Only the standard library. asyncio is imported when the first `async def` handler runs.
"""

from legivellum_worker.leased_work import LeaseLostError
from legivellum_worker.results import Escalate, Failed, Output, Release
from legivellum_worker.settings import WorkerSettings
from legivellum_worker.work import AsyncWork, Work
from legivellum_worker.worker import Worker

__all__ = ["AsyncWork", "Escalate", "Failed", "LeaseLostError", "Output", "Release", "Work", "Worker", "WorkerSettings"]
