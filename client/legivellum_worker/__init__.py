"""Leases for any agent: take work from AsyncGate, do it under a lease, hand over one end.

    from legivellum_worker import Output, Work, Worker

    worker = Worker.from_packet()

    @worker.on("document.summarise")            # the handler may be `async def`
    def summarise(work: Work) -> Output:
        return Output(f"read {work.payload_pointer}")

    worker.run(parallel=4)                      # until SIGTERM

A handler returns an Output (or None), or raises Failed, Escalate or Release. While it runs, its lease is renewed; when
the lease is lost, the handler is cancelled and nothing more is sent: another worker has the task.

`work.artifacts.put(…)` deposits a file in DepotGate under the lease, and `Output.of(artifact)` names it as the result.

Only the standard library. asyncio is imported when the first `async def` handler runs.
"""

from legivellum_worker.results import Escalate, Failed, Output, Release
from legivellum_worker.settings import WorkerSettings
from legivellum_worker.work import LeaseLostError, Work
from legivellum_worker.worker import Worker

__all__ = ["Escalate", "Failed", "LeaseLostError", "Output", "Release", "Work", "Worker", "WorkerSettings"]
