"""TLS whose certificate is renewed under it: new handshakes get the new one, connections in flight go on."""

import contextlib
import ssl
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import structlog
from cryptography import x509

_log = structlog.get_logger("metagate.tls")

CertificateObserver = Callable[[datetime], None]
"""Told when the certificate that is served from now on ends."""


def ignore_expiry(_ends: datetime) -> None:
    """Nobody wants to know; a function, because it travels to the workers."""


def context(
    cert: str, key: str, *, look_every: float = 5.0, loaded: CertificateObserver = ignore_expiry
) -> ssl.SSLContext:
    """A server context, TLS 1.2 and newer, that reloads both files when they change. Raises OSError or SSLError now.

    A thread looks: the files are replaced by whoever renews certificates, and nothing tells us.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    made.load_cert_chain(cert, key)
    watch = _Watch(made, Path(cert), Path(key), look_every, loaded)
    watch.tell()
    threading.Thread(target=watch.run, name="certificate", daemon=True).start()
    return made


class _Watch:
    def __init__(self, made: ssl.SSLContext, cert: Path, key: Path, every: float, loaded: CertificateObserver) -> None:
        self._context = made
        self._cert = cert
        self._key = key
        self._every = every
        self._loaded = loaded
        self._seen = self._stamp()

    def run(self) -> None:
        while True:
            threading.Event().wait(self._every)
            with contextlib.suppress(OSError):
                self.look()

    def look(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        try:
            # A throw-away context first: a pair that does not fit must not leave the live one with half of it.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._cert, self._key)
            self._context.load_cert_chain(self._cert, self._key)
        except (ssl.SSLError, ValueError) as error:
            _log.warning("certificate_not_reloaded", error=type(error).__qualname__)
            return
        self._seen = stamp
        self.tell()
        _log.info("certificate_reloaded")

    def tell(self) -> None:
        """What OpenSSL takes and our parser does not is served all the same: only nobody knows when it ends."""
        with contextlib.suppress(OSError, ValueError):
            self._loaded(x509.load_pem_x509_certificate(self._cert.read_bytes()).not_valid_after_utc)

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Kubernetes swaps a symbolic link: the identity of what it points to changes, not only its time."""
        found = [path.stat() for path in (self._cert, self._key)]
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)
