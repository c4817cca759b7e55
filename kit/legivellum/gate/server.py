"""Serving a gate's application: as a process of its own with one worker or several, or inside somebody's event loop."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import structlog

from legivellum.base import logging_setup, tls_reload
from legivellum.base.gc_tuning import freeze_gc
from legivellum.base.settings import UnusableSettingError
from legivellum.gate import serving
from legivellum.http.exchange import App
from legivellum.http.limits import Limits
from legivellum.http.protocol import GuardedProtocol
from legivellum.http.router import Router


class ServedSettings(serving.ServingSettings, logging_setup.LoggingSettings, Protocol):
    """What serving needs of a gate's settings (`legivellum.base.settings.GateSettings`)."""

    @classmethod
    def variable(cls, field: str) -> str: ...
    def masked(self) -> dict[str, Any]: ...
    def model_copy(self, *, update: dict[str, Any]) -> Any: ...


class Application(Protocol):
    """What is served: the ASGI application, and its routes, which know how large a body may be."""

    @property
    def asgi(self) -> App: ...
    @property
    def router(self) -> Router: ...


SettingsT = TypeVar("SettingsT", bound=ServedSettings)
Compose = Callable[[SettingsT], Application]
LimitsOf = Callable[[SettingsT], Limits]


class ProcessProtocol(GuardedProtocol):
    """The protocol of a process that serves one gate. Its limits are set where the process runs: a class is pickled by
    its name on its way there.
    """


class WorkerApplication(Generic[SettingsT]):
    """Makes the application in the worker process that serves it; it is pickled on its way there."""

    def __init__(self, settings: SettingsT, compose: Compose[SettingsT], limits: LimitsOf[SettingsT]) -> None:
        self._settings = settings
        self._compose = compose
        self._limits = limits

    def __call__(self) -> App:
        logging_setup.configure(self._settings)
        application = self._compose(self._settings)
        ProcessProtocol.limits = self._limits(self._settings)
        ProcessProtocol.router = application.router
        freeze_gc()
        return application.asgi


def run_gate(
    settings: SettingsT,
    compose: Compose[SettingsT],
    *,
    limits: LimitsOf[SettingsT],
    logger: str,
    check: Callable[[SettingsT], None] = lambda _settings: None,
    beside: AbstractContextManager[Any] | None = None,
    certificate: tls_reload.CertificateObserver = tls_reload.ignore_expiry,
) -> int:
    """Serve until SIGTERM or SIGINT; requests in flight are answered first. Returns the exit status.

    `check` may refuse the settings, or say what they lack; `beside` is entered while the workers
    serve. Raises UnusableSettingError; OSError for an address that is taken or a file that cannot be read.
    """
    log = structlog.get_logger(logger)
    logging_setup.configure(settings)
    log.info("settings", **settings.masked())
    # A worker that cannot start would be started again for ever, so what it needs is tried here.
    compose(settings)
    check(settings)
    check_certificate(settings)
    serving.require_free(settings.host, settings.port)
    with (
        serving.bound(settings.host, settings.port) as reservation,
        serving.multiprocess_metrics(settings.workers),
        beside or nullcontext(),
    ):
        # Port 0 is resolved here: each worker binds for itself, and all must bind the same port.
        settings = settings.model_copy(update={"port": reservation.getsockname()[1]})
        log.info("serving", host=settings.host, port=settings.port, workers=settings.workers)
        worker = WorkerApplication(settings, compose, limits)
        serving.serve(serving.config(settings, worker, protocol=ProcessProtocol, factory=True, certificate=certificate))
    return 0


def check_certificate(settings: ServedSettings) -> None:
    """Raises UnusableSettingError for what is no certificate with its key; OSError for a file that cannot be read."""
    if settings.tls_cert is None or settings.tls_key is None:
        return
    for name in (settings.tls_cert, settings.tls_key):
        Path(name).read_bytes()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except ssl.SSLError as error:
        names = f"{settings.variable('tls_cert')} and {settings.variable('tls_key')}"
        raise UnusableSettingError(f"{names} are not a certificate and its key in PEM") from error


@asynccontextmanager
async def serve_embedded(
    settings: ServedSettings,
    application: Application,
    *,
    limits: Limits,
    name: str,
    certificate: tls_reload.CertificateObserver = tls_reload.ignore_expiry,
) -> AsyncIterator[str]:
    """Serve inside this event loop, in one process, until the block is left. Yields the base URL.

    Raises OSError, UnusableSettingError.
    """
    check_certificate(settings)
    # A class of its own: several gates may be served in one process.
    protocol = type("EmbeddedProtocol", (GuardedProtocol,), {"limits": limits, "router": application.router})
    config = serving.config(settings, application.asgi, protocol=protocol, factory=False, certificate=certificate)
    async with serving.embedded(config, name=name) as url:
        yield url
