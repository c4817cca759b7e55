"""How a command says that it is ready: by a file, by a port, or by being alive for a while."""

from __future__ import annotations

import os
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

POLL_SECONDS = 0.1
"""Seconds between two checks of a file or a port."""


class Readiness:
    """Asked again and again until it says yes. `seconds_to_next_check`: how long to wait before the next call."""

    seconds_to_next_check = POLL_SECONDS
    ready_when_finished = False
    """Whether having ended well counts as having been ready: a job that needs no sign is done, not broken."""

    def __call__(self) -> bool:
        raise NotImplementedError


class ReadyFile(Readiness):
    """Ready when this file appears, or is written again. One left over from an earlier start says nothing."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._before = self._state()

    def __call__(self) -> bool:
        now = self._state()
        return now is not None and now != self._before

    def _state(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - pathlib is not cheap
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns


class ReadyPort(Readiness):
    """Ready when something accepts connections on this port of the loopback interface."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __call__(self) -> bool:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                with socket.socket(family, socket.SOCK_STREAM) as probe:
                    probe.settimeout(POLL_SECONDS)
                    probe.connect((host, self._port))
            except OSError:
                continue
            return True
        return False


class ReadyAfter(Readiness):
    """Ready when the command has lived for so many seconds."""

    ready_when_finished = True

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ready_at = clock() + seconds

    @property
    def seconds_to_next_check(self) -> float:  # type: ignore[override]
        return max(0.0, self._ready_at - self._clock())

    def __call__(self) -> bool:
        return self._clock() >= self._ready_at


class ReadyByCommand(Readiness):
    """The command reports READY itself; nobody else does."""

    seconds_to_next_check = 3600.0
    ready_when_finished = True

    def __call__(self) -> bool:
        return False
