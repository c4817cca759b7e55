"""What a worker asks: leases, and what may be done under one.

A verb under a lease answers LEASE_LOST for whatever is no live lease of the caller, without saying which it is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from asyncgate import metrics, rendering
from asyncgate.batch_items import answered_items, refused_item
from asyncgate.broker_gate import LEASING_TYPES, BrokerGate, require_type
from asyncgate.lease import Claim, EndedTask, EscalationRequest, Lease, LeaseRequest, ReleaseRequest, RenewRequest
from asyncgate.outcomes import EndOutcome, VerbOutcome
from asyncgate.problem_codes import Code
from asyncgate.receipt_forms import claim_form, escalation_form
from asyncgate.request_bodies import (
    Body,
    ClaimBatchBody,
    EscalateBody,
    LeaseBody,
    ReleaseBody,
    RenewBody,
    invalid,
    read_body,
)
from asyncgate.task_handlers import refused_by_ledger
from legivellum.base.canonical_json import Uncanonical, canonical, digest
from legivellum.http import strict_json
from legivellum.http.exchange import ClientGone, Exchange, Response, json_response, wait_for_disconnect
from legivellum.http.problems import RequestRefused, refuse
from legivellum.identity.caller import Caller
from legivellum.identity.request_authenticator import require_caller

_REPLAYED: Final = (b"idempotency-replayed", b"true")
_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}\Z")
_CLAIM_FIELDS: Final = frozenset(
    [
        "status",
        "outcome_kind",
        "outcome_text",
        "artifact_pointer",
        "artifact_location",
        "artifact_mime",
        "artifact_checksum",
        "artifact_size_bytes",
        "started_at",
        "body",
        "metadata",
    ]
)
_BATCH_KEYS: Final = 32 * 200
_SHOWN_FINDINGS: Final = 40


class LeaseHandlers:
    def __init__(self, gate: BrokerGate) -> None:
        self._gate = gate

    async def lease(self, exchange: Exchange) -> Response:
        caller, body = await self._request(exchange, LeaseBody)
        if body.ttl_seconds is not None and body.ttl_seconds > self._gate.settings.max_ttl_seconds:
            raise invalid(f"ttl_seconds: must be at most {self._gate.settings.max_ttl_seconds} here")
        request = LeaseRequest(
            caller.tenant,
            caller.principal_key,
            tuple(dict.fromkeys(body.capabilities)),
            body.most,
            body.ttl_seconds,
            _idempotency_key(exchange),
        )
        leases = await self._gate.verbs.lease.submit(request, exchange.deadline)
        if not leases and body.wait_seconds:
            leases = await self._waited(request, caller, exchange, body.wait_seconds)
        metrics.LEASES.labels("issued").inc(len(leases))
        metrics.LEASES.labels("expired").inc(sum(lease.took_over for lease in leases))
        return json_response(200, b'{"leases":[%s]}' % b",".join(map(rendering.lease, leases)))

    async def renew(self, exchange: Exchange) -> Response:
        caller, body = await self._request(exchange, RenewBody)
        request = RenewRequest(caller.tenant, caller.principal_key, body.lease_id, body.ttl_seconds)
        outcome = await self._gate.verbs.renew.submit(request, exchange.deadline)
        if outcome.name == "LEASE_EXHAUSTED":
            raise refuse(Code.LEASE_EXHAUSTED, "lease_id: it cannot be renewed any more.")
        if outcome.value is None:
            raise _lost("renew", outcome)
        metrics.LEASES.labels("renewed").inc()
        return json_response(200, strict_json.encode(rendering.renewal(outcome.value)))

    async def release(self, exchange: Exchange) -> Response:
        caller, body = await self._request(exchange, ReleaseBody)
        request = ReleaseRequest(
            caller.tenant, caller.principal_key, body.lease_id, body.reason, body.again_after_seconds
        )
        outcome = await self._gate.verbs.release.submit(request, exchange.deadline)
        if outcome.value is None:
            raise _lost("release", outcome)
        metrics.LEASES.labels("released").inc()
        if outcome.value.available_at is None:
            metrics.ENDED.labels("escalated").inc()
        self._gate.waiting.wake()
        return json_response(200, strict_json.encode(rendering.released(outcome.value)))

    async def complete(self, exchange: Exchange) -> Response:
        speaker = await self._gate.process.authenticator.authenticate(exchange)
        exchange.require_json()
        sent = strict_json.parse_object(await exchange.body())
        caller = self._worker(speaker)
        outcome = await self._gate.verbs.complete.submit(read_claim(sent, caller), exchange.deadline)
        return self._ended("complete", "returned", outcome)

    async def complete_batch(self, exchange: Exchange) -> Response:
        speaker = await self._gate.process.authenticator.authenticate(exchange)
        exchange.require_json()
        batch = read_body(ClaimBatchBody, strict_json.parse(await exchange.body(), max_keys=_BATCH_KEYS))
        caller = self._worker(speaker)
        self._gate.process.authenticator.charge_batch(caller, len(batch.items))
        returning = (self._returned(sent, caller, exchange) for sent in batch.items)
        items = answered_items(await asyncio.gather(*returning, return_exceptions=True))
        return json_response(200, strict_json.encode({"items": items}))

    async def escalate(self, exchange: Exchange) -> Response:
        caller, body = await self._request(exchange, EscalateBody)
        held = await self._gate.process.database.held_lease(caller.tenant, caller.principal_key, body.lease_id)
        permitted = () if held is None else held.escalation_to
        to = body.escalation_to or (permitted[0] if permitted else None)
        if to is None and held is not None:
            raise refuse(Code.ESCALATION_NOT_PERMITTED, "escalation_to: the task permits to escalate to nobody.")
        if held is not None and to in permitted and not self._may_get(caller, held.principal_ai, to):
            raise refuse(Code.RECIPIENT_UNKNOWN, "escalation_to: must name a principal of this tenant, or a gate.")
        request = EscalationRequest(
            caller.tenant,
            caller.principal_key,
            body.lease_id,
            body.escalation_class,
            body.escalation_reason,
            # Without a lease nothing is escalated; the statement still knows whether it was, by the same request.
            to or caller.principal_key,
            _digest_of(body.model_dump(mode="json")),
        )
        form = escalation_form(request)
        if not isinstance(form, str):
            raise _invalid_receipt(form)
        outcome = await self._gate.verbs.escalate.submit(request, exchange.deadline)
        if outcome.name == "ESCALATION_NOT_PERMITTED":
            raise refuse(Code.ESCALATION_NOT_PERMITTED, "escalation_to: the task does not permit it.")
        return self._ended("escalate", "escalated", outcome)

    # ── what they have in common ─────────────────────────────────────────────────────────────────────────────────────

    async def _request(self, exchange: Exchange, kind: type[Body]) -> tuple[Caller, Body]:
        speaker = await self._gate.process.authenticator.authenticate(exchange)
        exchange.require_json()
        body = read_body(kind, strict_json.parse(await exchange.body()))
        return self._worker(speaker), body

    @staticmethod
    def _worker(speaker: Caller | RequestRefused) -> Caller:
        caller = require_caller(speaker)
        require_type(caller, LEASING_TYPES, "lease")
        return caller

    def _may_get(self, caller: Caller, principal_ai: str, name: str) -> bool:
        return name == principal_ai or self._gate.is_recipient(caller, name)

    async def _waited(
        self, request: LeaseRequest, caller: Caller, exchange: Exchange, seconds: float
    ) -> tuple[Lease, ...]:
        """Waits beside the edge, which watches neither the client nor the credential of a request that lasts."""
        exchange.leave_at_eof()
        leaving = asyncio.create_task(wait_for_disconnect(exchange.receive), name="wait for the worker to leave")
        try:
            leases = await self._gate.waiting.wait(
                request, has_left=self._has_left(leaving, caller, exchange), leaving=leaving, seconds=seconds
            )
            if leaving.done() and not leases:
                raise ClientGone
            return leases
        finally:
            leaving.cancel()

    def _has_left(
        self, leaving: asyncio.Task[None], caller: Caller, exchange: Exchange
    ) -> Callable[[], Awaitable[bool]]:
        async def has_left() -> bool:
            return leaving.done() or await self._gate.process.authenticator.current(exchange, caller) is None

        return has_left

    async def _returned(self, sent: dict[str, Any], caller: Caller, exchange: Exchange) -> dict[str, Any]:
        """The answer of one item of a batch. Raises what the database raises."""
        try:
            outcome = await self._gate.verbs.complete.submit(read_claim(sent, caller), exchange.deadline)
            return {"status": 200, **rendering.ended(self._end("complete", "returned", outcome))}
        except RequestRefused as refused:
            return refused_item(refused.problem.code, refused.problem.detail)

    def _ended(self, verb: str, how: str, outcome: VerbOutcome[EndOutcome, EndedTask]) -> Response:
        body = strict_json.encode(rendering.ended(self._end(verb, how, outcome)))
        return json_response(200, body, *([_REPLAYED] if outcome.name == "REPLAYED" else []))

    def _end(self, verb: str, how: str, outcome: VerbOutcome[EndOutcome, EndedTask]) -> EndedTask:
        if outcome.value is None:
            raise _lost(verb, outcome)
        if outcome.name == "ENDED":
            metrics.ENDED.labels(how).inc()
            self._gate.waiting.wake()
        return outcome.value


def read_claim(sent: dict[str, Any], caller: Caller) -> Claim:
    """Raises INVALID_REQUEST, INVALID_RECEIPT."""
    lease_id = sent.get("lease_id")
    if not isinstance(lease_id, str) or not 0 < len(lease_id) <= 200:
        raise invalid("lease_id: is required, as text")
    fields = {name: value for name, value in sent.items() if name != "lease_id"}
    unknown = sorted(fields.keys() - _CLAIM_FIELDS)
    if unknown:
        raise invalid(f"{unknown[0][:100]}: is not known")
    for name in ("status", "outcome_kind"):
        if name not in fields:
            raise invalid(f"{name}: is required")
    claim = Claim(caller.tenant, caller.principal_key, lease_id, fields, _digest_of(sent))
    form = claim_form(claim)
    if not isinstance(form, str):
        raise _invalid_receipt(form)
    return replace(claim, form=form)


def _digest_of(sent: Any) -> bytes:
    try:
        return digest(canonical(sent, round_trip=True))
    except Uncanonical:
        raise invalid("The body must hold only numbers and text that JSON carries unchanged") from None


def _invalid_receipt(findings: Any) -> RequestRefused:
    return refuse(Code.INVALID_RECEIPT, "; ".join(map(str, findings[:_SHOWN_FINDINGS])))


def _lost(verb: str, outcome: VerbOutcome[Any, Any]) -> Exception:
    if outcome.name != "LEASE_LOST":
        return refused_by_ledger(outcome.detail)
    metrics.LOST.labels(verb).inc()
    metrics.LEASES.labels("expired").inc(int(outcome.detail in {"EXPIRED", "ESCALATED"}))
    metrics.ENDED.labels("escalated").inc(int(outcome.detail == "ESCALATED"))
    return refuse(Code.LEASE_LOST, "lease_id: it has ended, or is not the caller's.")


def _idempotency_key(exchange: Exchange) -> str | None:
    key = exchange.header(b"idempotency-key")
    text = None if key is None else key.decode("latin-1")
    if text is not None and not _KEY.match(text):
        raise invalid("Idempotency-Key: 1 to 200 visible ASCII characters")
    return text
