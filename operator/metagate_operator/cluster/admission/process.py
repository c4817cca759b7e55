"""`metagate admission`: uvicorn with TLS over the webhook's application, its certificate kept fresh in the live
context.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from metagate_crds.world import CompileSettings
from metagate_operator.cluster.admission.custody import Custody, MountedFiles, SharedSecret, keep
from metagate_operator.cluster.admission.neighbours import Neighbours
from metagate_operator.cluster.admission.webhook import Application
from metagate_operator.cluster.connection import Kubernetes, KubernetesError
from metagate_operator.cluster.rbac import CERTIFICATES, WEBHOOK

log = structlog.get_logger(__name__)

RECURSION_LIMIT = 30_000
RETRY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the webhook is told. With `certificate` and `key` those files are used, else a Secret is kept
    for `names`.
    """

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str = "metagate-system"
    host: str = "0.0.0.0"  # noqa: S104 - the API server calls from outside the pod
    port: int = 9443
    certificate: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()
    secret: str = CERTIFICATES
    webhook: str | None = WEBHOOK
    check_seconds: float = 30.0
    warnings: bool = True
    compile: CompileSettings = field(default_factory=CompileSettings)


def run(options: Options) -> None:
    """Serve until a signal."""
    sys.setrecursionlimit(RECURSION_LIMIT)
    asyncio.run(admit(options))


async def admit(options: Options) -> None:
    """Get a certificate, then serve and keep it."""
    kubernetes = await _connection(options)
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        custody = _custody(kubernetes, options)
        await _first(custody, context)
        warn = Neighbours(kubernetes, options.compile).warnings if kubernetes is not None and options.warnings else None
        server = _Server(
            uvicorn.Config(
                Application(options.compile, warn=warn),
                host=options.host,
                port=options.port,
                ssl_context_factory=lambda *_: context,
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=5,
            )
        )
        keeping = asyncio.create_task(keep(custody, context, every=options.check_seconds), name="certificate")
        try:
            await server.serve()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
    finally:
        if kubernetes is not None:
            await kubernetes.close()


class _Server(uvicorn.Server):
    """Says where it listens, for those who asked for any free port."""

    async def startup(self, *arguments: Any, **named: Any) -> None:
        await super().startup(*arguments, **named)
        for each in self.servers:
            for socket in each.sockets:
                log.info("admission_listens", port=socket.getsockname()[1])


async def _connection(options: Options) -> Kubernetes | None:
    """None where there is no cluster to ask: with mounted files the webhook can judge, if not warn, without one."""
    try:
        return await Kubernetes.connect(options.kubeconfig, options.context)
    except KubernetesError:
        if options.certificate is None:
            raise
        log.warning("no_cluster", consequence="references are not looked up")
        return None


def _custody(kubernetes: Kubernetes | None, options: Options) -> Custody:
    if options.certificate is not None and options.key is not None:
        return MountedFiles(options.certificate, options.key)
    assert kubernetes is not None
    return SharedSecret(
        kubernetes,
        namespace=options.namespace,
        secret=options.secret,
        webhook=options.webhook,
        names=options.names,
    )


async def _first(custody: Custody, context: ssl.SSLContext) -> None:
    """Without a certificate there is nothing to serve: wait for one."""
    while True:
        try:
            await custody.supply(context)
        except (KubernetesError, OSError, ssl.SSLError, ValueError) as error:
            log.warning("certificate_awaited", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return
