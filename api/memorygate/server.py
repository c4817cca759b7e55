"""Serving: uvicorn with the guarded protocol, one process or several (`memorygate serve`), or inside `metagate dev`.

Each worker listens on a socket of its own on the same address (SO_REUSEPORT): the kernel spreads connections evenly,
where a shared socket lets one worker take them all.
"""

import asyncio
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import structlog
import uvicorn
from uvicorn.supervisors import Multiprocess

from legivellum_http.limits import Limits
from legivellum_http.protocol import GuardedProtocol
from memorygate.composition import compose
from memorygate.settings import Settings

_log = structlog.get_logger("memorygate.server")


class Protocol(GuardedProtocol):
    """The process's protocol; its limits are set when the process is."""


class Address:
    """A listening place that becomes a socket wherever it is unpickled: each worker gets one of its own."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    def __reduce__(self) -> tuple[Callable[[str, int], socket.socket], tuple[str, int]]:
        return bound, (self.host, self.port)


def bound(host: str, port: int, *, shared: bool = True) -> socket.socket:
    """A bound socket. Raises OSError when somebody else has the address."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    listening.setblocking(False)
    return listening


class Worker:
    """The application of one worker process, made where it runs (it is pickled on its way there)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self) -> Any:
        configure_log(self._settings)
        Protocol.limits = _limits(self._settings)
        return compose(self._settings).asgi


def _limits(settings: Settings) -> Limits:
    return Limits(body_bytes=settings.body_bytes, connections=settings.connections)


def _config(settings: Settings, app: Any, *, factory: bool) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=factory,
        host=settings.host,
        port=settings.port,
        http=Protocol,
        ws="none",
        loop="uvloop",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        workers=settings.workers,
        backlog=settings.backlog,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.drain_seconds,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; requests in flight are answered first. Returns the exit status."""
    configure_log(settings)
    _log.info("settings", **settings.masked())
    bound(settings.host, settings.port, shared=False).close()  # SO_REUSEPORT alone would share it with a stranger
    with bound(settings.host, settings.port) as reservation, _added_up(settings.workers):
        settings = settings.model_copy(update={"port": reservation.getsockname()[1]})
        _log.info("serving", host=settings.host, port=settings.port, workers=settings.workers)
        config = _config(settings, Worker(settings), factory=True)
        if settings.workers == 1:
            uvicorn.Server(config).run([bound(settings.host, settings.port)])
        else:
            Multiprocess(config, [Address(settings.host, settings.port)]).run()  # type: ignore[list-item]
    return 0


@contextmanager
def _added_up(workers: int) -> Iterator[None]:
    """Several workers count into files that /metrics adds up."""
    if workers == 1:
        yield
        return
    directory = tempfile.mkdtemp(prefix="memorygate-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory  # noqa: TID251 - prometheus-client reads it at import, in each worker
    try:
        yield
    finally:
        del os.environ["PROMETHEUS_MULTIPROC_DIR"]  # noqa: TID251
        shutil.rmtree(directory, ignore_errors=True)


class _Embedded(uvicorn.Server):
    """Leaves signals to whoever embeds it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[str]:
    """Serve inside this event loop, in one process, until the block is left. Yields the base URL. Raises OSError."""
    bound(settings.host, settings.port, shared=False).close()
    listening = bound(settings.host, settings.port)
    host, port = listening.getsockname()[:2]
    Protocol.limits = _limits(settings)
    alone = settings.model_copy(update={"workers": 1})
    server = _Embedded(_config(alone, compose(settings).asgi, factory=False))
    task = asyncio.create_task(server.serve([listening]), name="serve the ledger")
    try:
        while not server.started:
            if task.done():
                task.result()
                raise RuntimeError("the server ended before it started")
            await asyncio.sleep(0.005)
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        server.should_exit = True
        await asyncio.wait({task})
        listening.close()


def configure_log(settings: Settings) -> None:
    """One event name and key/values per line, to stderr; once per process."""
    last = structlog.processors.JSONRenderer() if settings.log_format == "json" else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if settings.debug else logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
