"""Serving MetaGate: alone (`metagate serve`), with one worker or several, or inside `metagate dev`."""

import secrets
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from prometheus_client import start_http_server
from pydantic import SecretStr

from legivellum.base import logging_setup
from legivellum.base.gc_tuning import freeze_gc
from legivellum.gate import serving as serving_
from legivellum.gate.serving import bound, multiprocess_metrics, open_at_most, require_free, serve
from legivellum.http.exchange import App
from legivellum.http.limits import Limits
from legivellum.http.metrics import everywhere
from legivellum.http.protocol import GuardedProtocol
from metagate_api import metrics
from metagate_api.composition import compose
from metagate_api.declared_files import DeclaredFiles
from metagate_api.settings import Settings, UnusableSettingError

_log = structlog.get_logger("metagate.server")


class Protocol(GuardedProtocol):
    """The process's protocol; its limits are set when the process is."""


class Worker:
    """The application of one worker process, made where it runs (it is pickled on its way there)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self) -> App:
        logging_setup.configure(self._settings)
        Protocol.limits = limits(self._settings)
        application = compose(self._settings)
        Protocol.router = application.router
        freeze_gc()
        return application.asgi


def limits(settings: Settings) -> Limits:
    return Limits(
        body_bytes=settings.body_bytes,
        header_bytes=settings.header_bytes,
        header_count=settings.header_count,
        url_bytes=settings.url_bytes,
        header_seconds=settings.header_seconds,
        body_seconds=settings.body_seconds,
        connections=open_at_most(settings.connections),
    )


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; requests in flight are answered first. Returns the exit status."""
    logging_setup.configure(settings)
    _log.info("settings", **settings.masked())
    if settings.tls_cert is None:
        _log.info("plain_http", hint="set METAGATE_TLS_CERT and METAGATE_TLS_KEY, or keep this behind a mesh")
    _check(settings)
    settings = _with_a_secret(settings)
    require_free(settings.host, settings.port)
    with bound(settings.host, settings.port) as reservation, multiprocess_metrics(settings.workers), _metrics(settings):
        settings = settings.model_copy(update={"port": reservation.getsockname()[1]})
        _log.info("serving", host=settings.host, port=settings.port, workers=settings.workers)
        serve(_config(settings, Worker(settings), factory=True))
    return 0


def _with_a_secret(settings: Settings) -> Settings:
    """All workers sign the console's cookies alike: a secret that nobody chose is made before there are any."""
    if settings.console_secret is not None or not settings.console:
        return settings
    return settings.model_copy(update={"console_secret": SecretStr(secrets.token_urlsafe(32))})


def _config(settings: Settings, app: Any, *, factory: bool) -> uvicorn.Config:
    told = metrics.certificate_loaded
    return serving_.config(settings, app, protocol=Protocol, factory=factory, certificate=told)


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
def _metrics(settings: Settings) -> Iterator[None]:
    """/metrics on a port of its own, served by a thread of this process: it answers while the workers are busy."""
    if settings.metrics_port is None:
        yield
        return
    server, thread = start_http_server(settings.metrics_port, settings.host, everywhere(metrics.REGISTRY))
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(2)


@asynccontextmanager
async def serving(settings: Settings, *, declared: DeclaredFiles | None = None) -> AsyncIterator[str]:
    """Serve inside this event loop, in one process, until the block is left. Yields the base URL.

    Raises OSError when the address is taken; UnusableSettingError.
    """
    _check(settings)
    Protocol.limits = limits(settings)
    application = compose(settings, declared=declared)
    Protocol.router = application.router
    chosen = _config(settings, application.asgi, factory=False)
    async with serving_.embedded(chosen, name="serve") as url:
        with _metrics(settings):
            yield url
