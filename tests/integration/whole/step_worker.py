"""A worker of the library as a process: it reads documents, a step at a time, and ends plans.

Argument: a file. As long as it exists, steps wait before their output, under their lease.
"""

import sys
import time
from pathlib import Path

from legivellum_worker import Output, Release, Work, Worker

LEASE_SECONDS = 5


def serve(hold: Path) -> None:
    worker = Worker(ttl_seconds=LEASE_SECONDS, wait_seconds=1, stop_seconds=0.2)

    @worker.on("document.read")
    def read(work: Work) -> Output:
        content = work.inputs()
        while hold.exists():
            if work.cancelled.is_set():
                raise Release(reason="the worker stops")
            time.sleep(0.02)
        return Output(b" ".join(content[name] for name in sorted(content)).decode(), "text/markdown")

    worker.run(parallel=8)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
