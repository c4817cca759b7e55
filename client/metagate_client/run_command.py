"""`metagate run -- command`: boot, hand over the packet, start the command, and report how its start went.

READY is reported from a thread, because a MetaGate that is away must hold up neither signals nor the command. FAILED is
reported before we exit, within the bound of every call, and never changes the exit code.
"""

from __future__ import annotations

import os
import threading
import time

from metagate_client.child_process import (
    ChildProcess,
    NotStartedError,
    SignalQueue,
    StoppedError,
    describe_end,
    exit_code,
)
from metagate_client.errors import ClientError, UnavailableError, print_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from metagate_client.client import Client
    from metagate_client.readiness import Readiness

_READY_ATTEMPTS = 10
"""How often a READY that cannot be delivered is tried again, with pauses that double up to a minute."""


class StartupReporter:
    """Reports one startup: READY once, or FAILED, never both. Without a session there is nothing to report."""

    def __init__(self, client: Client | None, startup_id: str | None, build_version: str) -> None:
        self._client = client
        self._startup_id = startup_id
        self._build_version = build_version
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def ready(self) -> None:
        """Report READY in the background."""
        if self._client is None or self._startup_id is None:
            return
        self._thread = threading.Thread(
            target=self._ready, args=(self._client, self._startup_id), name="ready", daemon=True
        )
        self._thread.start()

    def failed(self, message: str, details: Mapping[str, object]) -> None:
        """Report FAILED now."""
        if self._client is None or self._startup_id is None:
            return
        try:
            self._client.failed(self._startup_id, message, details)
        except ClientError as error:
            if getattr(error, "code", "") != "INVALID_STATE":  # the command itself has reported READY before
                print_error(f"FAILED was not reported: {error}")

    def close(self) -> None:
        """Let a report that is under way end, within the bound of a call."""
        self._closing.set()
        if self._thread is not None and self._client is not None:
            self._thread.join(self._client.settings.timeout + 0.5)

    def _ready(self, client: Client, startup_id: str) -> None:
        for attempt in range(_READY_ATTEMPTS):
            try:
                client.ready(startup_id, self._build_version)
            except UnavailableError as error:
                print_error(f"READY was not reported yet: {error}")
                if self._closing.wait(min(60.0, 5.0 * 2**attempt)):
                    return
            except ClientError as error:
                print_error(f"READY was not reported: {error}")
                return
            else:
                return


def run(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    signals: SignalQueue,
    readiness: Readiness,
    reporter: StartupReporter,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run the command to its end; its exit code. Raises NotStartedError when it cannot be started."""
    began = clock()
    name = os.path.basename(command[0])  # noqa: PTH119 - pathlib is not cheap; arguments may hold what is nobody's business
    try:
        child = ChildProcess(command, environ, signals)
    except NotStartedError as error:
        reporter.failed(f"{name} could not be started", {"exit_code": error.exit_code})
        raise
    reported = False

    def check_readiness() -> float | None:
        nonlocal reported
        if reported:
            return None
        if readiness():
            reported = True
            reporter.ready()
            return None
        return readiness.seconds_to_next_check

    status = child.wait(check_readiness)
    code = exit_code(status)
    if not reported and code == 0 and readiness.ready_when_finished:
        reporter.ready()
    elif not reported:
        seconds = round(clock() - began, 3)
        reporter.failed(f"{name} {describe_end(status)} before it was ready", {"exit_code": code, "seconds": seconds})
    reporter.close()
    return code


def report_stopped(reporter: StartupReporter, error: StoppedError) -> None:
    """Report a start that was called off before there was a command."""
    reporter.failed(str(error), {"exit_code": error.exit_code})
