"""TLS whose certificate is renewed under it: new handshakes get the new one, connections in flight go on."""

import contextlib
import ssl
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import structlog
from cryptography import x509

_log = structlog.get_logger("gate.tls")

CertificateObserver = Callable[[datetime], None]
"""Called with the time at which the certificate that is served from now on expires."""


def ignore_expiry(_ends: datetime) -> None:
    """Does nothing. A named function, because it is pickled on its way to the workers."""


def server_context(
    cert: str, key: str, *, check_every: float = 5.0, loaded: CertificateObserver = ignore_expiry
) -> ssl.SSLContext:
    """A server context, TLS 1.2 and newer, that reloads both files when they change. Raises OSError or SSLError now.

    A thread compares the files every `check_every` seconds: whoever renews them sends no signal.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(cert, key)
    watcher = _CertificateWatcher(context, Path(cert), Path(key), check_every, loaded)
    watcher.report_expiry()
    threading.Thread(target=watcher.run, name="certificate", daemon=True).start()
    return context


class _CertificateWatcher:
    def __init__(
        self, context: ssl.SSLContext, cert: Path, key: Path, every: float, loaded: CertificateObserver
    ) -> None:
        self._context = context
        self._cert = cert
        self._key = key
        self._every = every
        self._loaded = loaded
        self._seen = self._stamp()

    def run(self) -> None:
        while True:
            threading.Event().wait(self._every)
            with contextlib.suppress(OSError):
                self.check()

    def check(self) -> None:
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
        self.report_expiry()
        _log.info("certificate_reloaded")

    def report_expiry(self) -> None:
        """A certificate that OpenSSL takes and our parser does not is served all the same, without a known expiry."""
        with contextlib.suppress(OSError, ValueError):
            self._loaded(x509.load_pem_x509_certificate(self._cert.read_bytes()).not_valid_after_utc)

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Kubernetes swaps a symbolic link: the identity of what it points to changes, not only its time."""
        statuses = [path.stat() for path in (self._cert, self._key)]
        return tuple((status.st_ino, status.st_mtime_ns, status.st_size) for status in statuses)
