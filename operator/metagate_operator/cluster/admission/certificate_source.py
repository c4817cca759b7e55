"""Where the webhook's certificate comes from: files that somebody mounts, or a Secret that the replicas keep together.

Either way it is loaded into the live TLS context: connections that are open stay, new ones show the new certificate.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog
from cryptography import x509
from prometheus_client import Gauge

from metagate_operator.cluster.admission.certificates import CertificateBundle, issue_certificates, renew_certificates
from metagate_operator.cluster.kubernetes_client import KubernetesClient, KubernetesError, KubernetesRefused

log = structlog.get_logger(__name__)

CERTIFICATE_EXPIRY = Gauge(
    "metagate_certificate_not_after_timestamp_seconds", "When the certificate that is served ends; 0: none"
)
JSON_PATCH = "application/json-patch+json"


class CertificateSource(Protocol):
    """Keeps a TLS context supplied with a certificate."""

    async def reload(self, context: ssl.SSLContext) -> bool:
        """Load the certificate as it should be now; True when it changed."""
        ...


async def keep_reloading(source: CertificateSource, context: ssl.SSLContext, *, every: float) -> None:
    """Supply the context again and again; a failure keeps what is loaded."""
    while True:
        await asyncio.sleep(every * random.uniform(0.8, 1.2))  # noqa: S311 - two replicas need not meet
        try:
            if await source.reload(context):
                log.info("certificate_reloaded")
        except (KubernetesError, OSError, ssl.SSLError, ValueError) as error:
            log.warning("certificate_not_renewed", error=f"{type(error).__name__}: {error}")


class MountedCertificate:
    """A certificate and key that others (cert-manager, the chart) put into files and replace there."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self._loaded: tuple[bytes, bytes] | None = None

    async def reload(self, context: ssl.SSLContext) -> bool:
        pair = (self._certificate.read_bytes(), self._key.read_bytes())
        if pair == self._loaded:
            return False
        load_certificate(
            context, *pair
        )  # raises while the two do not belong together, as in the middle of a replacement
        self._loaded = pair
        return True


class SecretCertificate:
    """A CA and leaf of our own in a Secret; whoever finds it due renews it, and the API server decides between two who
    do.
    """

    def __init__(
        self,
        kubernetes: KubernetesClient,
        *,
        namespace: str,
        secret: str,
        webhook: str | None,
        names: Sequence[str],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kubernetes = kubernetes
        self._collection = f"/api/v1/namespaces/{namespace}/secrets"
        self._secret = secret
        self._webhook = webhook
        self._names = tuple(names)
        self._clock = clock
        self._loaded: bytes | None = None

    async def reload(self, context: ssl.SSLContext) -> bool:
        material = await self._agreed()
        if self._webhook is not None:
            await self._trust(material.authorities)
        if material.leaf == self._loaded:
            return False
        load_certificate(context, material.leaf, material.leaf_key)
        self._loaded = material.leaf
        return True

    async def _agreed(self) -> CertificateBundle:
        """What lies in the Secret, renewed when due. Of two writers one is refused (409) and takes what the other
        wrote.
        """
        while True:
            now = self._clock()
            try:
                secret = await self._kubernetes.get(f"{self._collection}/{self._secret}")
            except KubernetesRefused as error:
                if error.status != 404:
                    raise
                material = issue_certificates(self._names, now)
                body = {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "type": "kubernetes.io/tls",
                    "metadata": {"name": self._secret},
                }
                if await self._kubernetes.write("POST", self._collection, {**body, "data": _encoded(material)}):
                    return material
                continue
            stored = CertificateBundle.from_secret(
                {name: base64.b64decode(value) for name, value in (secret.get("data") or {}).items()}
            )
            material = (
                renew_certificates(stored, self._names, now)
                if stored is not None
                else issue_certificates(self._names, now)
            )
            if material is stored:
                return material
            place = f"{self._collection}/{self._secret}"
            if await self._kubernetes.write("PUT", place, {**secret, "data": _encoded(material)}):
                log.info("certificate_renewed")
                return material

    async def _trust(self, authorities: bytes) -> None:
        """Let the API server trust our CA, wherever its configuration does not yet."""
        path = f"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{self._webhook}"
        try:
            configuration = await self._kubernetes.get(path)
        except KubernetesRefused as error:
            if error.status == 404:
                log.warning("webhook_configuration_missing", name=self._webhook)
                return
            raise
        wanted = base64.b64encode(authorities).decode()
        changes = [
            {"op": "add", "path": f"/webhooks/{number}/clientConfig/caBundle", "value": wanted}
            for number, webhook in enumerate(configuration.get("webhooks") or ())
            if webhook["clientConfig"].get("caBundle") != wanted
        ]
        if changes:
            await self._kubernetes.call("PATCH", path, body=changes, content_type=JSON_PATCH)


def load_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Into a live context, through memory: the key never reaches a disk."""
    chain, private = os.memfd_create("certificate"), os.memfd_create("key")
    try:
        for descriptor, content in ((chain, certificate), (private, key)):
            os.write(descriptor, content)
        for target in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):
            # first into a scratch one: a pair that does not match would leave the live context with half of it
            target.load_cert_chain(f"/proc/self/fd/{chain}", f"/proc/self/fd/{private}")
        CERTIFICATE_EXPIRY.set(x509.load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp())
    finally:
        os.close(chain)
        os.close(private)


def _encoded(material: CertificateBundle) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in material.secret().items()}
