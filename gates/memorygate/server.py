"""Serving the ledger: alone (`memorygate serve`), with one worker or several, or inside `metagate dev`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog

from legivellum.base import logging_setup
from legivellum.base.gc_tuning import freeze_gc
from legivellum.gate import serving as serving_
from legivellum.gate.serving import bound, multiprocess_metrics, open_at_most, require_free, serve
from legivellum.http.limits import Limits
from legivellum.http.protocol import GuardedProtocol
from memorygate.composition import compose
from memorygate.settings import Settings

_log = structlog.get_logger("memorygate.server")


class Protocol(GuardedProtocol):
    """The process's protocol; its limits are set when the process is."""


class Worker:
    """The application of one worker process, made where it runs (it is pickled on its way there)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self) -> Any:
        logging_setup.configure(self._settings)
        Protocol.limits = _limits(self._settings)
        application = compose(self._settings)
        Protocol.router = application.router
        freeze_gc()
        return application.asgi


def _limits(settings: Settings) -> Limits:
    return Limits(body_bytes=settings.body_bytes, connections=open_at_most(settings.connections))


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; requests in flight are answered first. Returns the exit status."""
    logging_setup.configure(settings)
    _log.info("settings", **settings.masked())
    compose(settings)  # a worker that cannot start would be started for ever
    require_free(settings.host, settings.port)
    with bound(settings.host, settings.port) as reservation, multiprocess_metrics(settings.workers):
        settings = settings.model_copy(update={"port": reservation.getsockname()[1]})
        _log.info("serving", host=settings.host, port=settings.port, workers=settings.workers)
        serve(serving_.config(settings, Worker(settings), protocol=Protocol, factory=True))
    return 0


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[str]:
    """Serve inside this event loop, in one process, until the block is left. Yields the base URL. Raises OSError."""
    Protocol.limits = _limits(settings)
    application = compose(settings)
    Protocol.router = application.router
    chosen = serving_.config(settings, application.asgi, protocol=Protocol, factory=False)
    async with serving_.embedded(chosen, name="serve the ledger") as url:
        yield url
