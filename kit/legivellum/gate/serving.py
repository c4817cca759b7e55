"""Serving a gate: uvicorn with the guarded protocol, one process or several, alone or inside somebody's loop.

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
from functools import partial
from typing import Any, Protocol

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.supervisors import Multiprocess

from legivellum.base import tls_reload
from legivellum.http.metrics import MULTIPROCESS_DIRECTORY
from legivellum.http.protocol import GuardedProtocol

_FILES_BESIDE = 128


class ServingSettings(Protocol):
    """What serving needs of a gate's settings."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def workers(self) -> int: ...
    @property
    def backlog(self) -> int: ...
    @property
    def keep_alive_seconds(self) -> int: ...
    @property
    def drain_seconds(self) -> int: ...
    @property
    def tls_cert(self) -> str | None: ...
    @property
    def tls_key(self) -> str | None: ...


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


def require_free(host: str, port: int) -> int:
    """The port, and a free one for 0. Raises OSError when somebody listens there already: SO_REUSEPORT alone would
    share the port with a stranger.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])


def open_at_most(connections: int) -> int:
    """As many connections as there may be open files: that limit is raised to the hard one first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return connections if soft == resource.RLIM_INFINITY else max(16, min(connections, soft - _FILES_BESIDE))


def config(
    settings: ServingSettings,
    app: Any,
    *,
    protocol: type[GuardedProtocol],
    factory: bool,
    certificate: tls_reload.CertificateObserver = tls_reload.ignore_expiry,
) -> uvicorn.Config:
    """How uvicorn is run. `factory`: `app` makes the application, in the process that serves it.

    `certificate` is told there when the one that is served ends.
    """
    return uvicorn.Config(
        app,
        factory=factory,
        host=settings.host,
        port=settings.port,
        http=protocol,
        ws="none",
        loop="uvloop",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        workers=settings.workers if factory else 1,
        backlog=settings.backlog,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.drain_seconds,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        ssl_context_factory=partial(_tls, certificate) if settings.tls_cert else None,
    )


def _tls(
    certificate: tls_reload.CertificateObserver, chosen: uvicorn.Config, _default: Callable[[], ssl.SSLContext]
) -> ssl.SSLContext:
    return tls_reload.server_context(str(chosen.ssl_certfile), str(chosen.ssl_keyfile), loaded=certificate)


def serve(chosen: uvicorn.Config) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are answered first."""
    if chosen.workers == 1:
        _Alone(chosen).run([bound(chosen.host, chosen.port)])
    else:
        _Workers(chosen, [Address(chosen.host, chosen.port)]).run()  # type: ignore[list-item]


@contextmanager
def multiprocess_metrics(workers: int) -> Iterator[None]:
    """Several workers count into files that /metrics adds up."""
    if workers == 1:
        yield
        return
    directory = tempfile.mkdtemp(prefix="gate-metrics-")
    os.environ[MULTIPROCESS_DIRECTORY] = directory  # noqa: TID251  # prometheus-client reads it at import, in each worker
    try:
        yield
    finally:
        del os.environ[MULTIPROCESS_DIRECTORY]  # noqa: TID251
        shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def embedded(chosen: uvicorn.Config, *, name: str) -> AsyncIterator[str]:
    """Serve inside this event loop, in one process, until the block is left. Yields the base URL.

    Raises OSError when the address is taken.
    """
    require_free(chosen.host, chosen.port)
    listening = bound(chosen.host, chosen.port)
    host, port = listening.getsockname()[:2]
    server = _Embedded(chosen)
    task = asyncio.create_task(server.serve([listening]), name=name)
    try:
        while not server.started:
            if task.done():
                task.result()
                raise RuntimeError("the server ended before it started")
            await asyncio.sleep(0.005)
        scheme = "https" if chosen.ssl_certfile else "http"
        yield f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        server.should_exit = True
        await asyncio.wait({task})
        listening.close()


class _Workers(Multiprocess):
    """Forgets what a worker that ended said of its own present: it cannot correct it any more."""

    def keep_subprocess_alive(self) -> None:
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for ended in before - {process.pid for process in self.processes}:
            mark_process_dead(ended)  # type: ignore[no-untyped-call]


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
