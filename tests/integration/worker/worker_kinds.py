"""The same handlers in three kinds: a function, an `async def`, and a program of `legivellum work`."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.worker.plan_fixture import PlanGates

from legivellum_worker import AsyncWork, Failed, Output, Work, Worker, WorkerSettings

ROOT = Path(__file__).parents[3]
ALONE = "import sys; sys.path[:0] = [{path!r}]; from legivellum_worker.main import main; sys.exit(main())"


@dataclass(frozen=True)
class HandlerForms:
    """What a handler does, from its job and inputs, and the shell script that does the same."""

    of: Callable[[Any, dict[str, bytes]], Output | None]
    script: str


def joined(_: Any, inputs: dict[str, bytes]) -> Output:
    return Output(b"".join(inputs[name] for name in sorted(inputs)).decode(), "text/markdown")


def failing(_: Any, __: dict[str, bytes]) -> Output:
    raise Failed("EXIT_3")


JOIN = HandlerForms(joined, "cat inputs/* > output; printf text/markdown > output.type")
FAIL = HandlerForms(failing, "exit 3")
BYTES = HandlerForms(
    lambda _, __: Output(b"\xff\x00", "image/png"), "printf '\\377\\000' > output; printf image/png > output.type"
)
INSTRUCTION = HandlerForms(
    lambda job, _: Output(job.instruction),
    """sed 's/.*"instruction": "\\([^"]*\\)".*/\\1/' job.json | tr -d '\\n' > output""",
)


class WorkerKind:
    """Starts a worker with one handler for each capability."""

    def __init__(self, gates: PlanGates, folder: Path) -> None:
        self.gates, self.folder = gates, folder

    @contextmanager
    def running(self, handler: HandlerForms, capability: str = "index", needs: str = "success") -> Iterator[None]:
        worker = Worker(WorkerSettings(environ=self.gates.environment(self.folder)), wait_seconds=1, stop_seconds=1)
        worker.on(capability, needs=needs)(self.function(handler))
        thread = threading.Thread(target=worker.run, args=(2,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            worker.stop()
            thread.join(40)
            assert not thread.is_alive()

    def function(self, handler: HandlerForms) -> Any:
        raise NotImplementedError


class SyncKind(WorkerKind):
    def function(self, handler: HandlerForms) -> Any:
        def run(work: Work) -> Output | None:
            return handler.of(work.job, work.inputs())

        return run


class AsyncKind(WorkerKind):
    def function(self, handler: HandlerForms) -> Any:
        async def run(work: AsyncWork) -> Output | None:
            return handler.of(work.job, await work.inputs())

        return run


class ProgramKind(WorkerKind):
    """`legivellum work` without site-packages: what it cannot import it does not have."""

    @contextmanager
    def running(self, handler: HandlerForms, capability: str = "index", needs: str = "success") -> Iterator[None]:
        alone = self.folder / "alone"
        for name in ("metagate_client", "legivellum_worker"):
            source = ROOT / "client" / name
            shutil.copytree(source, alone / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        program = self.folder / "handler.sh"
        program.write_text(f"#!/bin/sh\ncd $LEGIVELLUM_WORK_DIR\n{handler.script}\n")
        program.chmod(0o755)
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", ALONE.format(path=str(alone))),
                *("--capability", capability, "--needs", needs, "--parallel", "2", "--", str(program)),
            ],
            env={
                "PATH": os.environ["PATH"],  # noqa: TID251 - of a child
                "TMPDIR": str(self.folder),
                **self.gates.environment(self.folder),
            },
        )
        try:
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 0
        finally:
            process.kill()
            process.wait()


KINDS = {"sync": SyncKind, "async": AsyncKind, "program": ProgramKind}
