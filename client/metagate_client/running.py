"""`metagate run -- command`: boot, hand over the packet, start the command, and witness how its start went.

READY is reported from a thread, because a MetaGate that is away must hold up neither signals nor the command. FAILED is
reported before we exit, within the bound of every call, and never changes the exit code.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from metagate_client.child import Child, NotStartedError, Signals, StoppedError, ending, exit_code
from metagate_client.errors import ClientError, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from metagate_client.client import Client
    from metagate_client.readiness import Readiness

_ROUNDS = 10
"""How often a READY that cannot be delivered is tried again, with pauses that double up to a minute."""


class Witness:
    """Reports one startup: READY once, or FAILED, never both. Without a session there is nothing to report."""

    def __init__(self, client: Client | None, startup_id: str | None, build_version: str) -> None:
        self._client = client
        self._startup_id = startup_id
        self._build_version = build_version
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    @property
    def reported(self) -> bool:
        return self._thread is not None

    def ready(self) -> None:
        """Report READY in the background."""
        if self._client is None or self._startup_id is None:
            return
        self._thread = threading.Thread(
            target=self._ready, args=(self._client, self._startup_id), name="ready", daemon=True
        )
        self._thread.start()

    def failed(self, error: str, details: Mapping[str, object]) -> None:
        """Report FAILED now."""
        if self._client is None or self._startup_id is None:
            return
        try:
            self._client.failed(self._startup_id, error, details)
        except ClientError as trouble:
            if getattr(trouble, "code", "") != "INVALID_STATE":  # the command itself has reported READY before
                say(f"FAILED was not reported: {trouble}")

    def close(self) -> None:
        """Let a report that is under way end, within the bound of a call."""
        self._over.set()
        if self._thread is not None and self._client is not None:
            self._thread.join(self._client.settings.timeout + 0.5)

    def _ready(self, client: Client, startup_id: str) -> None:
        for attempt in range(_ROUNDS):
            try:
                client.ready(startup_id, self._build_version)
            except UnavailableError as trouble:
                say(f"READY was not reported yet: {trouble}")
                if self._over.wait(min(60.0, 5.0 * 2**attempt)):
                    return
            except ClientError as trouble:
                say(f"READY was not reported: {trouble}")
                return
            else:
                return


def run(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    signals: Signals,
    readiness: Readiness,
    witness: Witness,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run the command to its end; its exit code. Raises NotStartedError when it cannot be started."""
    began = clock()
    name = os.path.basename(command[0])  # noqa: PTH119 - pathlib is not cheap; arguments may hold what is nobody's business
    try:
        child = Child(command, environ, signals)
    except NotStartedError as error:
        witness.failed(f"{name} could not be started", {"exit_code": error.exit_code})
        raise
    settled = False

    def look() -> float | None:
        nonlocal settled
        if settled:
            return None
        if readiness():
            settled = True
            witness.ready()
            return None
        return readiness.patience

    status = child.wait(look)
    code = exit_code(status)
    if not settled and code == 0 and readiness.by_itself:
        witness.ready()
    elif not settled:
        seconds = round(clock() - began, 3)
        witness.failed(f"{name} {ending(status)} before it was ready", {"exit_code": code, "seconds": seconds})
    witness.close()
    return code


def stopped(witness: Witness, error: StoppedError) -> None:
    """Report a start that was called off before there was a command."""
    witness.failed(str(error), {"exit_code": error.exit_code})


def say(line: str) -> None:
    """One line for whoever reads the log; standard output belongs to the command."""
    print(f"metagate: {line}", file=sys.stderr, flush=True)
