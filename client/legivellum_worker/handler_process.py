"""`legivellum work`: a program as the handler. Task and lease are files, its exit code is the end of the work.

In the directory `LEGIVELLUM_WORK_DIR` the program finds `task.json`, `lease.json`, `job.json` and the job's inputs in
`inputs/`, and writes its result to `output` and, unless that is `text/plain`, the media type to `output.type`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile

from legivellum_worker.outputs import deposit, is_granted
from legivellum_worker.results import LARGEST_TEXT, OUTPUT_TOO_LARGE, Failed, Output, Release
from metagate_client.errors import ClientError
from metagate_client.settings import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO

    from legivellum_worker.work import Work

WORK_DIR = "LEGIVELLUM_WORK_DIR"
LEASE = "LEGIVELLUM_LEASE"
CAPABILITY = "LEGIVELLUM_CAPABILITY"
EXIT_RELEASE = 75
"""EX_TEMPFAIL of sysexits.h: not now."""
_INVALID = "OUTPUT_INVALID"
_LONGEST_TYPE = 1_024
_KILL_SECONDS = 2.0
_LOOK_SECONDS = 0.1


class HandlerMissingError(ClientError):
    """The program cannot be started."""

    exit_code = 2


class HandlerProcess:
    """Runs the program once for each task, in a session of its own, so that all that it started can be ended."""

    def __init__(self, command: Sequence[str]) -> None:
        if shutil.which(command[0]) is None:
            raise HandlerMissingError(f"there is no program {command[0]} that can be started")
        self._command = list(command)

    def __call__(self, work: Work) -> Output:
        """Raises Failed and Release by the exit code of the program."""
        folder = tempfile.mkdtemp(prefix="legivellum-")
        try:
            _write(folder, "task.json", dict(work.task))
            _write(folder, "lease.json", {name: value for name, value in work.lease.items() if name != "task"})
            _write(folder, "job.json", dict(work.job.document))
            os.mkdir(f"{folder}/inputs")
            work.write_inputs(f"{folder}/inputs")
            code = self._run(work, folder)
            if work.cancelled.is_set() or code == EXIT_RELEASE:
                raise Release(reason="the handler gives the task back")
            if code != 0:
                raise Failed(f"EXIT_{code}" if code > 0 else signal.Signals(-code).name)
            return _output(work, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, work: Work, folder: str) -> int:
        environ = {**environment(), WORK_DIR: folder, LEASE: work.lease_id, CAPABILITY: work.capability}
        process = subprocess.Popen(self._command, env=environ, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - the command that the caller named
        try:
            while not work.cancelled.wait(_LOOK_SECONDS):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(0)
            _signal_group(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_KILL_SECONDS / 2)
            return -signal.SIGKILL
        finally:
            # Also what the program left running in its session: it works for a lease that has an end now.
            _signal_group(process, signal.SIGKILL)
            process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _write(folder: str, name: str, content: object) -> None:
    with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False)


def _output(work: Work, folder: str) -> Output:
    """Into the sink where one is granted, of whatever size and kind; else a text for the receipt."""
    media_type = _media_type(folder)
    with _opened(f"{folder}/output") as file:
        if file is None:
            return Output()
        if is_granted(work) and work.knows_depot and (size := os.fstat(file.fileno()).st_size):
            return Output.of(deposit(work, file, media_type, size))
        content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise Failed(OUTPUT_TOO_LARGE)
    try:
        return Output(content.decode(), media_type)
    except UnicodeDecodeError:
        return Output(content, media_type)  # which needs a sink


def _media_type(folder: str) -> str:
    with _opened(f"{folder}/output.type") as file:
        content = b"text/plain" if file is None else file.read(_LONGEST_TYPE)
    try:
        return content.decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise Failed(_INVALID) from error


@contextlib.contextmanager
def _opened(path: str) -> Iterator[IO[bytes] | None]:
    """A regular file; a link out of the directory is not followed. None: there is none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise Failed(_INVALID) from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Failed(_INVALID)
        yield file
