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

from metagate_crds.objects import CompileSettings
from metagate_operator.cluster.admission.certificate_source import (
    CertificateSource,
    MountedCertificate,
    SecretCertificate,
    keep_reloading,
)
from metagate_operator.cluster.admission.reference_checker import ReferenceChecker
from metagate_operator.cluster.admission.webhook import AdmissionApp
from metagate_operator.cluster.kubernetes_client import KubernetesClient, KubernetesError
from metagate_operator.cluster.rbac import CERTIFICATES, WEBHOOK

log = structlog.get_logger(__name__)

RECURSION_LIMIT = 30_000
RETRY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class AdmissionOptions:
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


def run(options: AdmissionOptions) -> None:
    """Serve until a signal."""
    sys.setrecursionlimit(RECURSION_LIMIT)
    asyncio.run(serve_admission(options))


async def serve_admission(options: AdmissionOptions) -> None:
    """Get a certificate, then serve and keep it."""
    kubernetes = await _connection(options)
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        source = _certificate_source(kubernetes, options)
        await _first(source, context)
        warn = (
            ReferenceChecker(kubernetes, options.compile).warnings
            if kubernetes is not None and options.warnings
            else None
        )
        server = _Server(
            uvicorn.Config(
                AdmissionApp(options.compile, warn=warn),
                host=options.host,
                port=options.port,
                ssl_context_factory=lambda *_: context,
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=5,
            )
        )
        keeping = asyncio.create_task(keep_reloading(source, context, every=options.check_seconds), name="certificate")
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
        for listener in self.servers:
            for socket in listener.sockets:
                log.info("admission_listens", port=socket.getsockname()[1])


async def _connection(options: AdmissionOptions) -> KubernetesClient | None:
    """None where there is no cluster to ask: with mounted files the webhook can judge, if not warn, without one."""
    try:
        return await KubernetesClient.connect(options.kubeconfig, options.context)
    except KubernetesError:
        if options.certificate is None:
            raise
        log.warning("no_cluster", consequence="references are not looked up")
        return None


def _certificate_source(kubernetes: KubernetesClient | None, options: AdmissionOptions) -> CertificateSource:
    if options.certificate is not None and options.key is not None:
        return MountedCertificate(options.certificate, options.key)
    assert kubernetes is not None
    return SecretCertificate(
        kubernetes,
        namespace=options.namespace,
        secret=options.secret,
        webhook=options.webhook,
        names=options.names,
    )


async def _first(source: CertificateSource, context: ssl.SSLContext) -> None:
    """Without a certificate there is nothing to serve: wait for one."""
    while True:
        try:
            await source.reload(context)
        except (KubernetesError, OSError, ssl.SSLError, ValueError) as error:
            log.warning("certificate_awaited", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return
