"""The gates beside `metagate dev`, each in a process of its own, as they run in production.

What ends is started again after a pause that grows, and one line of the log says so: one gate that fails leaves the
others serving, and what waits for it waits.
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

import structlog

from legivellum.base.backoff import Backoff
from metagate_cli.gate_child import STOP_SECONDS, settings_line
from metagate_cli.terminal import Stop

READY_SECONDS: Final = 90.0
"""How long a gate may take until it answers the first time. Then the others are served without waiting for it."""
STEADY_SECONDS: Final = 60.0
"""After so long a run the next pause is the first again."""
_POLL_SECONDS: Final = 0.05
_log = structlog.stdlib.get_logger("metagate.dev")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCommand:
    """How one gate is started. `must_start`: what ends before it was ready ends the machine."""

    name: str
    module: str
    url: str
    settings: dict[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables beside those of this process."""
    prepare: Callable[[], None] | None = None
    """Runs in a thread before the first start."""
    must_start: bool = True


@asynccontextmanager
async def running_gates(commands: Sequence[GateCommand], logs: Path | None = None) -> AsyncIterator[None]:
    """Run the gates while the block runs; it begins when each of them is ready. `logs`: the directory of a log file for
    each, instead of standard error.

    Raises Stop where a gate that must start ends before it is ready.
    """
    gates = [_SupervisedGate(command, logs) for command in commands]
    tasks = [asyncio.create_task(gate.supervise(), name=f"supervise {gate.name}") for gate in gates]
    try:
        await asyncio.gather(*(gate.until_ready() for gate in gates))
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _SupervisedGate:
    """One gate, started again whenever it ends."""

    def __init__(self, command: GateCommand, logs: Path | None) -> None:
        self.name = command.name
        self._command = command
        self._logs = logs
        self._ended = asyncio.Event()
        self._code: int | None = None

    async def supervise(self) -> None:
        backoff = Backoff(1.0, 60.0)
        if self._command.prepare is not None:
            await asyncio.to_thread(self._command.prepare)
        while True:
            process, started = await self._start(), time.monotonic()
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                await asyncio.shield(_stop(process))
                raise
            if time.monotonic() - started > STEADY_SECONDS:
                backoff.reset()
            pause = backoff.pause()
            _log.warning("gate_ended", gate=self.name, code=code, again_after_seconds=round(pause, 1))
            self._code = code
            self._ended.set()
            await asyncio.sleep(pause)

    async def until_ready(self) -> None:
        """Wait until it answers that it is ready, or has ended for the first time, or it took too long."""
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until:
            if self._ended.is_set():
                if self._command.must_start:
                    raise Stop(f"{self.name} ended with code {self._code} before it served; its last line says why")
                return
            if await asyncio.to_thread(_is_ready, self._command.url):
                return
            await asyncio.sleep(_POLL_SECONDS)
        _log.warning("gate_not_ready", gate=self.name, seconds=READY_SECONDS)

    async def _start(self) -> asyncio.subprocess.Process:
        log = None if self._logs is None else (self._logs / f"{self.name}.log").open("ab")
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "metagate_cli.gate_child", self._command.module),
                env={**os.environ, **self._command.environment},  # noqa: TID251 - of a child
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal is for this process, which stops the others in order.
                start_new_session=True,
            )
        finally:
            if log is not None:
                log.close()
        assert process.stdin is not None
        with suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(settings_line(self._command.settings))
            await process.stdin.drain()
        return process


async def _stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


def _is_ready(url: str) -> bool:
    # The gate is a child on this machine: whoever its certificate is made for, nothing secret is sent.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with build_opener(ProxyHandler({}), HTTPSHandler(context=context)).open(f"{url}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def chosen_port(name: str, host: str, port: int) -> int:
    """The port of a gate, which must be known before it is started: others are told where it is. 0 takes a free one.

    Raises Stop where somebody listens there.
    """
    from legivellum.gate.serving import require_free

    try:
        return require_free(host, port)
    except OSError as error:
        raise Stop(
            f"{name} cannot listen on port {port} of {host} ({error.strerror}): choose another with {name.upper()}_PORT"
        ) from error
