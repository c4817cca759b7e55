"""Serving MetaGate: alone (`metagate serve`), with one worker or several, or inside `metagate dev`."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
from prometheus_client import start_http_server

from legivellum.gate.server import run_gate, serve_embedded
from legivellum.gate.serving import open_at_most
from legivellum.http.limits import Limits
from legivellum.http.metrics import combined_registry
from metagate_api import metrics
from metagate_api.composition import compose
from metagate_api.declared_files import DeclaredFiles
from metagate_api.settings import Settings

_log = structlog.get_logger("metagate.server")


def limits(settings: Settings) -> Limits:
    # All bounds of the edge are settings here: MetaGate stands in front of every pod of a cluster. Other gates choose
    # two.
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
    return run_gate(
        settings,
        compose,
        limits=limits,
        logger="metagate.server",
        check=_check,
        beside=_metrics(settings),
        certificate=metrics.certificate_loaded,
    )


def _check(settings: Settings) -> None:
    if settings.tls_cert is None:
        _log.info("plain_http", hint="set METAGATE_TLS_CERT and METAGATE_TLS_KEY, or keep this behind a mesh")


@contextmanager
def _metrics(settings: Settings) -> Iterator[None]:
    """/metrics on a port of its own, served by a thread of this process: it answers while the workers are busy."""
    if settings.metrics_port is None:
        yield
        return
    server, thread = start_http_server(settings.metrics_port, settings.host, combined_registry(metrics.REGISTRY))
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
    application = compose(settings, declared=declared)
    async with serve_embedded(
        settings, application, limits=limits(settings), name="serve", certificate=metrics.certificate_loaded
    ) as url:
        with _metrics(settings):
            yield url
