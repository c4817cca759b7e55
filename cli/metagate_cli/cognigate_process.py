"""`metagate dev --with cognigate`: a worker in a process of its own beside the gates.

It ends by itself when AsyncGate refuses it, and with it the machine would end: so it is a child, which is started again
after a pause that grows.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import structlog

from legivellum.base.backoff import Backoff
from metagate_cli.gates import COGNIGATE

_SERVE: Final = """
import os, signal, sys, threading
def stop_with_parent():
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=stop_with_parent, daemon=True).start()
from cognigate.main import main
main()
"""
"""Its standard input ends with this process, also with one that is killed: then it gives its leases back and ends."""
_STOP_SECONDS: Final = 25.0
"""Jobs have 20 seconds of it."""
_READY_SECONDS: Final = 15.0
_log = structlog.stdlib.get_logger("metagate.dev")


@asynccontextmanager
async def cognigate_running(urls: Mapping[str, str], key_file: Path, settings: Any) -> AsyncIterator[str]:
    """Run it while the block runs. `urls`: of the gates beside it, by name. Yields its own URL, once it serves or has
    ended for the first time.
    """
    port = settings.port or _free_port(settings.host)
    environment = process_environment(urls, key_file, port)
    ended = asyncio.Event()
    supervising = asyncio.create_task(_supervise(urls["asyncgate"], key_file, environment, ended), name=COGNIGATE)
    try:
        await _wait_until_served(settings.host, port, ended)
        yield f"http://{settings.host}:{port}"
    finally:
        supervising.cancel()
        await asyncio.gather(supervising, return_exceptions=True)


def process_environment(urls: Mapping[str, str], key_file: Path, port: int) -> dict[str, str]:
    """What the child sees: this process's variables, and what one machine adds where they say nothing."""
    given = dict(os.environ)  # noqa: TID251 - of a child
    local = {f"METAGATE_{gate.upper()}_URL": url for gate, url in urls.items()}
    if not any(name.startswith("METAGATE_") and name.endswith(("TOKEN_FILE", "API_KEY_FILE")) for name in given):
        local["METAGATE_API_KEY_FILE"] = str(key_file)
    # Without a declared model it works all the same, and says in every output that no language model wrote it.
    local["COGNIGATE_BUILTIN_MODEL"] = "true"
    if sys.stderr.isatty():
        local["COGNIGATE_LOG_FORMAT"] = "console"
    return {**local, **given, "COGNIGATE_PORT": str(port)}


async def _supervise(asyncgate: str, key_file: Path, environment: Mapping[str, str], ended: asyncio.Event) -> None:
    await asyncio.to_thread(_wait_until_known, asyncgate, key_file)
    backoff = Backoff(1.0, 60.0)
    while True:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _SERVE, "serve"),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _stop(process)
            raise
        ended.set()
        pause = backoff.pause()
        _log.warning("gate_ended", gate=COGNIGATE, code=code, again_after_seconds=round(pause, 1))
        await asyncio.sleep(pause)


async def _wait_until_served(host: str, port: int, ended: asyncio.Event) -> None:
    until = time.monotonic() + 2 * _READY_SECONDS
    while time.monotonic() < until and not ended.is_set():
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


def _wait_until_known(asyncgate: str, key_file: Path) -> None:
    """A worker that is refused ends: so it is started when AsyncGate has read of its Principal, or after a while."""
    from legivellum_worker.gate_client import call
    from legivellum_worker.settings import GateFinder
    from metagate_client.errors import ClientError

    until = time.monotonic() + _READY_SECONDS
    while time.monotonic() < until:
        with suppress(ClientError):
            access = GateFinder(api_key_file=str(key_file), environ={}).find("asyncgate", asyncgate)
            assert access is not None
            call(access, "GET", "/v1/interview")
            return
        time.sleep(0.1)


async def _stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])
