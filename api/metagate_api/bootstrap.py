"""POST /v1/bootstrap: one statement resolves, permits, inserts the OPEN receipt and answers (D-42).

A plain ASGI route: framework, models and dependency injection would cost more than the work (docs/performance.md).
"""

import re
from dataclasses import replace
from typing import Any, Final, NamedTuple
from uuid import UUID

import uuid_utils

from legivellum.http import strict_json
from legivellum.http.batching import Batcher
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.problem_codes import Code
from legivellum.http.problems import SECURITY_HEADERS, Headers, RequestRefused, refuse
from metagate_api import metrics
from metagate_api.callers import Caller, CallerAuthenticator, credential_row, pod_row, principal_suspended
from metagate_api.packets import PacketCache, Signs, etag_matches, render_packet, require, rfc3339, signature_headers
from metagate_api.schemas import COMPONENT_PATTERN
from metagate_crds.packet import etag as packet_etag
from metagate_store.rows import BootstrapOutcome, BootstrapQuery, BootstrapResult

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}\Z")
_COMPONENT: Final = re.compile(COMPONENT_PATTERN)
_ROUNDS: Final = 4
"""How often a packet may change between being checked and being served before this process says: come back."""

_REFUSALS: Final = {
    BootstrapOutcome.UNKNOWN_PRINCIPAL: (Code.PRINCIPAL_UNKNOWN, "No Principal answers to this credential any more."),
    BootstrapOutcome.SUSPENDED: (Code.PRINCIPAL_SUSPENDED, "This principal is suspended."),
    BootstrapOutcome.CREDENTIAL_REVOKED: (Code.CREDENTIAL_REVOKED, "What this credential rests on was withdrawn."),
    BootstrapOutcome.NO_BINDING: (Code.NO_BINDING, "This principal has no active binding."),
    BootstrapOutcome.BINDING_INCOMPLETE: (
        Code.BINDING_INCOMPLETE,
        "The binding refers to something missing or invalid.",
    ),
    BootstrapOutcome.COMPONENT_NOT_PERMITTED: (
        Code.COMPONENT_NOT_PERMITTED,
        "The binding does not permit this component.",
    ),
    BootstrapOutcome.IDEMPOTENCY_CONFLICT: (
        Code.IDEMPOTENCY_CONFLICT,
        "This Idempotency-Key was used for another request.",
    ),
    BootstrapOutcome.NOT_THIS_POD: (Code.NOT_THIS_POD, "The session of this Idempotency-Key belongs to another pod."),
}


Opened = tuple[BootstrapResult, bytes | None]
"""The answer, and the checked body of its digest where this process had it when it asked."""


class BootstrapRequest(NamedTuple):
    """A bootstrap request's body and headers, judged."""

    component_key: str
    principal_key: str | None
    last_etag: str | None
    if_none_match: bytes | None
    idempotency_key: str | None

    def knows(self, etag: str) -> bool:
        return etag_matches(self.if_none_match, etag) or (
            self.last_etag is not None and etag_matches(self.last_etag.encode(), etag)
        )


class BootstrapHandler:
    def __init__(
        self,
        *,
        door: CallerAuthenticator,
        batcher: Batcher[BootstrapQuery, BootstrapResult],
        packet_cache: PacketCache,
        body_bytes: int,
        mirror: bool,
        signer: Signs | None = None,
    ) -> None:
        self._signer = signer
        self._door = door
        self._batcher = batcher
        self._packet_cache = packet_cache
        self._body_bytes = body_bytes
        self._mirror = mirror
        self._counters = {outcome: metrics.BOOTSTRAPS.labels(outcome.value) for outcome in BootstrapOutcome}

    async def __call__(self, exchange: Exchange) -> Response:
        caller = await self._door.authenticate(exchange)
        wish = await self._wish(exchange)
        if isinstance(caller, RequestRefused):
            raise caller
        if caller.suspended:
            raise principal_suspended()
        contradicted = wish.principal_key is not None and wish.principal_key != caller.principal_key
        answer, held = await (
            self._permitted(exchange, caller, wish) if contradicted else self._open(exchange, caller, wish)
        )
        self._counters[answer.outcome].inc()
        if answer.outcome in _REFUSALS:
            raise refuse(*_REFUSALS[answer.outcome])
        if contradicted:
            raise refuse(Code.PRINCIPAL_MISMATCH, "principal_key is not who the credential says.")
        return self._welcome(caller, wish, answer, held)

    async def _wish(self, exchange: Exchange) -> BootstrapRequest:
        exchange.require_json()
        body = strict_json.parse_object(await exchange.body(self._body_bytes))
        key = exchange.header(b"idempotency-key")
        idempotency_key = None if key is None else key.decode("latin-1")
        if idempotency_key is not None and not _KEY.match(idempotency_key):
            raise refuse(Code.INVALID_REQUEST, "Idempotency-Key: 1 to 255 visible ASCII characters.")
        tags = b",".join(value for name, value in exchange.headers if name == b"if-none-match")
        return BootstrapRequest(
            component_key=component_key(body),
            principal_key=_optional_text(body, "principal_key"),
            last_etag=_optional_text(body, "last_packet_etag"),
            if_none_match=tags or None,
            idempotency_key=idempotency_key,
        )

    async def _open(self, exchange: Exchange, caller: Caller, wish: BootstrapRequest) -> Opened:
        """Ask with the digest that is expected; when another one is due, check it first, then ask again (D-38)."""
        for _ in range(_ROUNDS):
            expected, held = self._packet_cache.expected(caller.tenant, caller.principal_key)
            answer = await self._batcher.ask(self._ask(caller, wish, expected), exchange.deadline)
            if answer.outcome is not BootstrapOutcome.PACKET:
                return answer, held if answer.digest == expected else None
            self._packet_cache.keep(caller.tenant, caller.principal_key, require(answer.digest), answer.body)
        raise refuse(Code.UNAVAILABLE, "What this principal boots into is changing right now.")

    async def _permitted(self, exchange: Exchange, caller: Caller, wish: BootstrapRequest) -> Opened:
        """Whether it would be permitted, with nothing written: who expects no digest only gets the packet."""
        ask = self._ask(caller, wish, None)
        return await self._batcher.ask(ask, exchange.deadline), None

    def _ask(self, caller: Caller, wish: BootstrapRequest, expected: str | None) -> BootstrapQuery:
        return BootstrapQuery(
            tenant=caller.tenant,
            principal_key=caller.principal_key,
            credential=credential_row(caller),
            component_key=wish.component_key,
            startup_id=new_id(),
            packet_id=new_id(),
            idempotency_key=wish.idempotency_key,
            expected_digest=expected,
            pod=pod_row(caller),
            mirror=self._mirror,
        )

    def _welcome(self, caller: Caller, wish: BootstrapRequest, answer: BootstrapResult, held: bytes | None) -> Response:
        digest = require(answer.digest)
        startup_id, deadline_at = require(answer.startup_id), require(answer.deadline_at)
        etag = packet_etag(digest, caller.principal_key, wish.component_key)
        headers: Headers = (
            (b"etag", b'"%s"' % etag.encode()),
            (b"metagate-startup-id", str(startup_id).encode()),
            (b"metagate-startup-deadline", rfc3339(deadline_at).encode()),
        )
        if answer.outcome is BootstrapOutcome.REPLAYED:
            headers = (*headers, (b"idempotency-replayed", b"true"))
        if wish.knows(etag):
            return Response(304, [*SECURITY_HEADERS, *headers], b"")
        # A replay may carry a digest that is no longer this principal's: served from the answer, not remembered for it.
        body = held or self._packet_cache.body(digest) or self._packet_cache.checked(digest, answer.body)
        packet = render_packet(
            body,
            principal_key=caller.principal_key,
            component_key=wish.component_key,
            packet_id=require(answer.packet_id),
            startup_id=startup_id,
            issued_at=require(answer.issued_at),
            deadline_at=deadline_at,
            digest=digest,
            revision=require(answer.revision),
            compiled_at=require(answer.compiled_at),
        )
        return json_response(200, packet, *headers, *signature_headers(self._signer, packet))


def component_key(body: dict[str, Any]) -> str:
    """INV-005: a string with something to read in it."""
    value = body.get("component_key")
    if not isinstance(value, str) or not _COMPONENT.fullmatch(value):
        raise refuse(
            Code.INVALID_REQUEST,
            "component_key: required, 1 to 253 characters, no blank at either end, no control characters.",
        )
    return value


def _optional_text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None or (isinstance(value, str) and 0 < len(value) <= 512):
        return value
    raise refuse(Code.INVALID_REQUEST, f"{name}: a string of 1 to 512 characters, or left out.")


def new_id() -> UUID:
    """A UUIDv7: ordered ids keep the newest rows together (D-29)."""
    return UUID(int=uuid_utils.uuid7().int)


def renewed(ask: BootstrapQuery) -> BootstrapQuery:
    """The same question for another try: the first may have been committed although nobody heard of it."""
    return replace(ask, startup_id=new_id(), packet_id=new_id())
