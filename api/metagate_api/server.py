"""Serving: uvicorn with our protocol, one process or several, alone (`metagate serve`) or inside `metagate dev`.

Each worker listens on a socket of its own on the same address (SO_REUSEPORT): the kernel spreads connections evenly,
where a shared socket lets one worker take them all; a worker that dies takes only its own waiting connections along.
"""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from prometheus_client import start_http_server
from uvicorn.supervisors import Multiprocess

from legivellum_http import tls
from legivellum_http.edge import Edge
from legivellum_http.limits import Limits
from legivellum_http.protocol import GuardedProtocol
from metagate_api import journal, metrics
from metagate_api.composition import compose
from metagate_api.declared_files import DeclaredFiles
from metagate_api.metrics import MULTIPROCESS_DIRECTORY
from metagate_api.settings import Settings, UnusableSettingError

_log = structlog.get_logger("metagate.server")

_FILES_BESIDE_CONNECTIONS = 128


class Protocol(GuardedProtocol):
    """The process's protocol; its limits are set when the process is."""


class Address:
    """A listening place that becomes a socket wherever it is unpickled: each worker gets one of its own."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    def __reduce__(self) -> tuple[Callable[[str, int], socket.socket], tuple[str, int]]:
        return bound, (self.host, self.port)


def bound(host: str, port: int) -> socket.socket:
    """A bound socket that shares its address with the other workers'. Raises OSError when somebody else has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named asyncio sets TCP_NODELAY; without it an answer's second packet waits 40 ms for an ACK.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6 and host == "::":
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    listening.setblocking(False)
    return listening


def _free(host: str, port: int) -> None:
    """Raises OSError when somebody listens there already: SO_REUSEPORT alone would share the port with a stranger."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


class Worker:
    """The application of one worker process, made where it runs (it is pickled on its way there)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self) -> Edge:
        journal.configure(self._settings)
        Protocol.limits = limits(self._settings)
        return compose(self._settings).asgi


def limits(settings: Settings) -> Limits:
    return Limits(
        body_bytes=settings.body_bytes,
        header_bytes=settings.header_bytes,
        header_count=settings.header_count,
        url_bytes=settings.url_bytes,
        header_seconds=settings.header_seconds,
        body_seconds=settings.body_seconds,
        connections=_connections(settings.connections),
    )


def _connections(wanted: int) -> int:
    """As many connections as there may be open files: raised to the hard limit first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return wanted if soft == resource.RLIM_INFINITY else max(16, min(wanted, soft - _FILES_BESIDE_CONNECTIONS))


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
        ssl_context_factory=_tls if settings.tls_cert else None,
    )


def _tls(config: uvicorn.Config, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    return tls.context(str(config.ssl_certfile), str(config.ssl_keyfile))


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; requests in flight are answered first. Returns the exit status."""
    journal.configure(settings)
    _log.info("settings", **settings.masked())
    if settings.tls_cert is None:
        _log.info("plain_http", hint="set METAGATE_TLS_CERT and METAGATE_TLS_KEY, or keep this behind a mesh")
    _check(settings)
    _free(settings.host, settings.port)
    with bound(settings.host, settings.port) as reservation, _added_up(settings.workers), _metrics(settings):
        port = reservation.getsockname()[1]
        settings = settings.model_copy(update={"port": port})
        _log.info("serving", host=settings.host, port=port, workers=settings.workers)
        config = _config(settings, Worker(settings), factory=True)
        if settings.workers == 1:
            _Alone(config).run([bound(settings.host, port)])
        else:
            Multiprocess(config, [Address(settings.host, port)]).run()  # type: ignore[list-item]
    return 0


def _check(settings: Settings) -> None:
    """What settings name must be usable before a worker starts: one that cannot start would be started for ever.

    Raises UnusableSettingError; OSError for a file that cannot be read.
    """
    compose(settings)
    if settings.tls_cert is None or settings.tls_key is None:
        return
    for name in (settings.tls_cert, settings.tls_key):
        Path(name).read_bytes()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except ssl.SSLError as error:
        raise UnusableSettingError(
            "METAGATE_TLS_CERT and METAGATE_TLS_KEY are not a certificate and its key in PEM"
        ) from error


@contextmanager
def _added_up(workers: int) -> Iterator[None]:
    """Several workers count into files that /metrics adds up."""
    if workers == 1:
        yield
        return
    directory = tempfile.mkdtemp(prefix="metagate-metrics-")
    os.environ[MULTIPROCESS_DIRECTORY] = directory  # noqa: TID251  # prometheus-client reads it at import, in each worker
    try:
        yield
    finally:
        del os.environ[MULTIPROCESS_DIRECTORY]  # noqa: TID251
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _metrics(settings: Settings) -> Iterator[None]:
    """/metrics on a port of its own, served by a thread of this process: it answers while the workers are busy."""
    if settings.metrics_port is None:
        yield
        return
    server, thread = start_http_server(settings.metrics_port, settings.host, metrics.registry())
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(2)


class _Alone(uvicorn.Server):
    """Ends in order on SIGTERM and SIGINT, and does not raise the signal again afterwards: that end was asked for."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Embedded(uvicorn.Server):
    """Leaves signals to whoever embeds it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(settings: Settings, *, declared: DeclaredFiles | None = None) -> AsyncIterator[str]:
    """Serve inside this event loop, in one process, until the block is left. Yields the base URL.

    Raises OSError when the address is taken.
    """
    _check(settings)
    _free(settings.host, settings.port)
    listening = bound(settings.host, settings.port)
    host, port = listening.getsockname()[:2]
    Protocol.limits = limits(settings)
    server = _Embedded(
        _config(settings.model_copy(update={"workers": 1}), compose(settings, declared=declared).asgi, factory=False)
    )
    task = asyncio.create_task(server.serve([listening]), name="serve")
    try:
        while not server.started:
            if task.done():
                task.result()
                raise RuntimeError("the server ended before it started")
            await asyncio.sleep(0.005)
        scheme = "https" if settings.tls_cert else "http"
        with _metrics(settings):
            yield f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        server.should_exit = True
        await asyncio.wait({task})
        listening.close()
