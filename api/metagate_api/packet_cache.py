"""The packets this process has checked, and which of them it expects for whom (D-38).

A digest is checked once, before a receipt is written for it. In the steady state the database is asked with the
digest that is expected and sends no body; what is served is what was checked, with the request's fields spliced in.
"""

from collections import OrderedDict
from uuid import UUID

import structlog

from legivellum.http.problems import refuse
from metagate_api import metrics
from metagate_api.problem_codes import Code
from metagate_crds import packet

_log = structlog.get_logger("metagate.packets")


class PacketCache:
    """Checked bodies by digest, bounded in bytes; and the last digest of each principal, bounded in number."""

    def __init__(self, *, limit_bytes: int, principals: int = 200_000) -> None:
        self._bodies: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._limit = limit_bytes
        self._expected: OrderedDict[tuple[UUID, str], str] = OrderedDict()
        self._principals = principals

    def expected(self, tenant: UUID, principal_key: str) -> tuple[str, bytes] | tuple[None, None]:
        """The digest and checked body this process has for that principal.

        Hold the body while asking: by the time of the answer it may have been forgotten here, and a session be open.
        """
        digest = self._expected.get((tenant, principal_key))
        body = None if digest is None else self.body(digest)
        return (None, None) if digest is None or body is None else (digest, body)

    def body(self, digest: str) -> bytes | None:
        body = self._bodies.get(digest)
        if body is not None:
            self._bodies.move_to_end(digest)
        return body

    def keep(self, tenant: UUID, principal_key: str, digest: str, body: bytes | None) -> bytes:
        """The checked body of `digest`, remembered for that principal. Raises PACKET_REFUSED (503)."""
        checked = self.body(digest)
        if checked is None:
            checked = self.checked(digest, body)
            self._insert(digest, checked)
        self._expected[tenant, principal_key] = digest
        # Whoever is forgotten costs one body from the database at its next boot, and nothing else.
        if len(self._expected) > self._principals:
            self._expected.popitem(last=False)
        return checked

    @staticmethod
    def checked(digest: str, body: bytes | None) -> bytes:
        """`body`, if it is what its digest says and holds no forbidden key (INV-032)."""
        defect = "it is missing" if body is None else packet.check_body(body, digest)
        if body is None or defect is not None:
            metrics.PACKETS_REFUSED.inc()
            _log.error("packet_refused", digest=digest, defect=str(defect))
            raise refuse(Code.PACKET_REFUSED, "The stored packet failed its check and is not served.")
        return body

    def _insert(self, digest: str, body: bytes) -> None:
        self._bodies[digest] = body
        self._bytes += len(body)
        # The newest stays even when it alone is larger: it is about to be served.
        while self._bytes > self._limit and len(self._bodies) > 1:
            _, oldest = self._bodies.popitem(last=False)
            self._bytes -= len(oldest)
