"""Opening a startup session: one statement resolves, permits, inserts the OPEN receipt and answers (D-38, D-42).

The statement is asked with the digest that this process has checked for the principal; in the steady state it sends
no body back. When another packet is due it inserts nothing, the new body is checked here, and it is asked again: a
receipt is never written for a packet that could not be served.
"""

from dataclasses import replace
from typing import Final, NamedTuple
from uuid import UUID

import uuid_utils

from legivellum.http.batching import Batcher
from legivellum.http.etag import etag_matches
from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from metagate_api.callers import Caller, credential_row, pod_row
from metagate_api.packet_cache import PacketCache
from metagate_crds.packet import etag as packet_etag
from metagate_store.rows import BootstrapOutcome, BootstrapQuery, BootstrapResult, require

ATTEMPTS: Final = 4
"""How often a packet may change between being checked and being served before this process says: come back."""

_OPENED: Final = frozenset({BootstrapOutcome.OPENED, BootstrapOutcome.REPLAYED})


class BootstrapRequest(NamedTuple):
    """A bootstrap request's body and headers, judged."""

    component_key: str
    principal_key: str | None
    last_etag: str | None
    if_none_match: bytes | None
    idempotency_key: str | None

    def has_packet(self, etag: str) -> bool:
        """Whether the client says that it has this packet already."""
        last = None if self.last_etag is None else self.last_etag.encode()
        return etag_matches(self.if_none_match, etag) or etag_matches(last, etag)


class OpenedSession(NamedTuple):
    """A session that was opened, or opened before under the same Idempotency-Key. `body` None: the client has it."""

    result: BootstrapResult
    principal_key: str
    component_key: str
    etag: str
    body: bytes | None


class SessionOpener:
    """Safe for concurrent use."""

    def __init__(
        self, batcher: Batcher[BootstrapQuery, BootstrapResult], packet_cache: PacketCache, *, mirror: bool
    ) -> None:
        self._batcher = batcher
        self._packet_cache = packet_cache
        self._mirror = mirror

    async def open(self, caller: Caller, request: BootstrapRequest, deadline: float) -> OpenedSession | BootstrapResult:
        """The session, or the result that refuses it. `deadline`: the loop's clock."""
        for _ in range(ATTEMPTS):
            expected, checked = self._packet_cache.expected(caller.tenant, caller.principal_key)
            result = await self._batcher.submit(self._query(caller, request, expected), deadline)
            if result.outcome is BootstrapOutcome.PACKET:
                # Checked before anything is inserted: a receipt for a packet that cannot be served would be a lie.
                self._packet_cache.keep(caller.tenant, caller.principal_key, require(result.digest), result.body)
            elif result.outcome in _OPENED:
                return self._opened(caller, request, result, checked if result.digest == expected else None)
            else:
                return result
        raise refuse(Code.UNAVAILABLE, "What this principal boots into is changing right now.")

    async def check(self, caller: Caller, request: BootstrapRequest, deadline: float) -> BootstrapResult:
        """Whether it would be permitted, with nothing written: without an expected digest only the packet comes."""
        return await self._batcher.submit(self._query(caller, request, None), deadline)

    def _opened(
        self, caller: Caller, request: BootstrapRequest, result: BootstrapResult, checked: bytes | None
    ) -> OpenedSession:
        digest = require(result.digest)
        etag = packet_etag(digest, caller.principal_key, request.component_key)
        if request.has_packet(etag):
            body = None
        else:
            # A replay may carry a digest that is this principal's no longer: its body is served, but not remembered.
            cached = checked or self._packet_cache.body(digest)
            body = cached or self._packet_cache.checked(digest, result.body)
        return OpenedSession(result, caller.principal_key, request.component_key, etag, body)

    def _query(self, caller: Caller, request: BootstrapRequest, expected: str | None) -> BootstrapQuery:
        return BootstrapQuery(
            tenant=caller.tenant,
            principal_key=caller.principal_key,
            credential=credential_row(caller),
            component_key=request.component_key,
            startup_id=_new_id(),
            packet_id=_new_id(),
            idempotency_key=request.idempotency_key,
            expected_digest=expected,
            pod=pod_row(caller),
            mirror=self._mirror,
        )


def with_new_ids(query: BootstrapQuery) -> BootstrapQuery:
    """The same question for another try: the first may have been committed although nobody heard of it."""
    return replace(query, startup_id=_new_id(), packet_id=_new_id())


def _new_id() -> UUID:
    """A UUIDv7: ordered ids keep the newest rows together (D-29)."""
    return UUID(int=uuid_utils.uuid7().int)
