"""POST /v1/bootstrap: one statement resolves, permits, inserts the OPEN receipt and answers (D-42).

A plain ASGI route: framework, models and dependency injection would cost more than the work (docs/performance.md).
"""

import re
from typing import Any, Final

from legivellum.http import strict_json
from legivellum.http.batching import Batcher
from legivellum.http.exchange import Exchange, Response
from legivellum.http.problems import refuse
from metagate_api import metrics
from metagate_api.callers import Caller, CallerAuthenticator, require_caller
from metagate_api.packet_cache import PacketCache
from metagate_api.packet_rendering import Signer, bootstrap_response
from metagate_api.problem_codes import Code
from metagate_api.schemas import COMPONENT_PATTERN
from metagate_api.session_opener import BootstrapRequest, OpenedSession, SessionOpener
from metagate_store.rows import BootstrapOutcome, BootstrapQuery, BootstrapResult

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}\Z")
_COMPONENT: Final = re.compile(COMPONENT_PATTERN)

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


class BootstrapHandler:
    """The walk of a boot goes one way: edge, caller, this module, session opener, store, packet rendering."""

    def __init__(
        self,
        *,
        caller_authenticator: CallerAuthenticator,
        batcher: Batcher[BootstrapQuery, BootstrapResult],
        packet_cache: PacketCache,
        mirror: bool,
        signer: Signer | None = None,
    ) -> None:
        self._signer = signer
        self._caller_authenticator = caller_authenticator
        self._opener = SessionOpener(batcher, packet_cache, mirror=mirror)
        self._counters = {outcome: metrics.BOOTSTRAPS.labels(outcome.value) for outcome in BootstrapOutcome}

    async def __call__(self, exchange: Exchange) -> Response:
        # The order of the checks is D-42's: credential, body, permission.
        caller = await self._caller_authenticator.authenticate(exchange)
        request = parse_request(exchange, await self._body(exchange))
        opened = await self._open(require_caller(caller), request, exchange.deadline)
        return bootstrap_response(opened, self._signer)

    async def _body(self, exchange: Exchange) -> dict[str, Any]:
        exchange.require_json()
        return strict_json.parse_object(await exchange.body())

    async def _open(self, caller: Caller, request: BootstrapRequest, deadline: float) -> OpenedSession:
        contradicted = request.principal_key not in {None, caller.principal_key}
        # Who names another principal gets its refusals as always, and opens nothing.
        opened = await (self._opener.check if contradicted else self._opener.open)(caller, request, deadline)
        outcome = opened.result.outcome if isinstance(opened, OpenedSession) else opened.outcome
        self._counters[outcome].inc()
        if outcome in _REFUSALS:
            raise refuse(*_REFUSALS[outcome])
        if not isinstance(opened, OpenedSession):
            raise refuse(Code.PRINCIPAL_MISMATCH, "principal_key is not who the credential says.")
        return opened


def parse_request(exchange: Exchange, body: dict[str, Any]) -> BootstrapRequest:
    """Raises INVALID_REQUEST."""
    # At most one: of two keys neither could be said to be the key of this request.
    key = exchange.header(b"idempotency-key")
    idempotency_key = None if key is None else key.decode("latin-1")
    if idempotency_key is not None and not _KEY.match(idempotency_key):
        raise refuse(Code.INVALID_REQUEST, "Idempotency-Key: 1 to 255 visible ASCII characters.")
    # A list header may come in several fields, which mean the same as one with commas (RFC 9110 §5.3).
    tags = b",".join(value for name, value in exchange.headers if name == b"if-none-match")
    return BootstrapRequest(
        component_key=component_key(body),
        principal_key=_optional_text(body, "principal_key"),
        last_etag=_optional_text(body, "last_packet_etag"),
        if_none_match=tags or None,
        idempotency_key=idempotency_key,
    )


def component_key(body: dict[str, Any]) -> str:
    """INV-005, D-65."""
    value = body.get("component_key")
    if not isinstance(value, str) or not _COMPONENT.fullmatch(value):
        raise refuse(
            Code.INVALID_REQUEST,
            "component_key: required, 1 to 253 of A-Z a-z 0-9 . _ : -, the first and the last a letter or a digit.",
        )
    return value


def _optional_text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None or (isinstance(value, str) and 0 < len(value) <= 512):
        return value
    raise refuse(Code.INVALID_REQUEST, f"{name}: a string of 1 to 512 characters, or left out.")
