"""POST /receipts and POST /receipts/batch: the only ways into the ledger.

The order of refusals is D-42's: credential, body, permission, custody. What the body may not say about itself (tenant
and emitter belong to the credential, D-07) is a 403 and never corrected silently.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from legivellum.http import strict_json
from legivellum.http.batching import Batcher, BatchLimits
from legivellum.http.deadline import Deadline
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.problem_codes import ProblemCode
from legivellum.http.problems import RequestRefused, refuse
from legivellum.identity.caller import Caller
from legivellum.identity.request_authenticator import require_caller
from legivellum.receipts.phase_rules import ReceiptFinding
from legivellum.receipts.receipt import Receipt, examine
from legivellum.receipts.rights import GATES, PLAN, Kind, Right, is_gate_name, right_to_emit, role_of
from memorygate import metrics
from memorygate.ledger import Appended, Entry, Outcome, entry
from memorygate.ledger_gate import LedgerGate
from memorygate.problem_codes import Code
from memorygate.rendering import render_acknowledgement

_SHOWN_FINDINGS: Final = 40

REFUSALS: Final = {
    Outcome.RECEIPT_CONFLICT: (Code.RECEIPT_CONFLICT, "receipt_id: another receipt is stored under this id."),
    Outcome.DEDUPE_CONFLICT: (Code.DEDUPE_CONFLICT, "dedupe_key: this emitter used it for something else."),
    Outcome.MAY_NOT_OPEN: (
        Code.MAY_NOT_EMIT,
        "obligation_id: there is no such obligation, and only principals and delegates open one.",
    ),
    Outcome.NOT_FOR_OTHERS: (
        Code.EMITTER_MISMATCH,
        "principal_ai: a principal opens obligations of its own; on behalf of others a delegate does.",
    ),
    Outcome.NOT_CUSTODIAN: (Code.NOT_CUSTODIAN, "obligation_id: somebody else has custody."),
    Outcome.NOT_ITS_PRINCIPAL: (Code.EMITTER_MISMATCH, "principal_ai: the obligation belongs to another principal."),
    Outcome.OBLIGATION_NOT_ACCEPTED: (Code.OBLIGATION_NOT_ACCEPTED, "obligation_id: nobody has accepted it."),
    Outcome.OBLIGATION_ALREADY_TERMINATED: (
        Code.OBLIGATION_ALREADY_TERMINATED,
        "obligation_id: it was completed; what is over stays over.",
    ),
    Outcome.TASK_MISMATCH: (Code.TASK_MISMATCH, "task_id: the obligation belongs to another task."),
}

RECIPIENT_UNKNOWN: Final = (
    Code.RECIPIENT_UNKNOWN,
    "recipient_ai: must name a principal of this tenant or a gate; custody cannot be given to nobody.",
)

_NOBODY = ("00000000-0000-0000-0000-000000000000", "nobody")


def describe_findings(findings: Sequence[ReceiptFinding]) -> str:
    """Every bad field in one sentence each; a hostile body does not get a long answer."""
    described = "; ".join(map(str, findings[:_SHOWN_FINDINGS]))
    return described if len(findings) <= _SHOWN_FINDINGS else f"{described}; and {len(findings) - _SHOWN_FINDINGS} more"


def examine_sent(sent: Any, caller: Caller | RequestRefused) -> Receipt:
    """Raises INVALID_RECEIPT (422), naming every bad field."""
    if not isinstance(sent, dict):
        raise refuse(Code.INVALID_RECEIPT, "A receipt must be a JSON object.")
    tenant, emitter = _NOBODY if isinstance(caller, RequestRefused) else (str(caller.tenant), caller.principal_key)
    receipt = examine(sent, tenant=tenant, emitter=emitter)
    if isinstance(receipt, Receipt):
        return receipt
    raise refuse(Code.INVALID_RECEIPT, describe_findings(receipt))


def authorize(gate: LedgerGate, receipt: Receipt, caller: Caller) -> Entry:
    """The receipt as it goes to the database. Raises the 403s that need no look at custody."""
    fields = receipt.fields
    role = role_of(caller.type, caller.rights)
    if fields["tenant_id"] != str(caller.tenant) and role != "witness":
        raise refuse(Code.TENANT_MISMATCH, "tenant_id: is not the credential's.")
    if fields["emitter"] != caller.principal_key:
        raise refuse(Code.EMITTER_MISMATCH, "emitter: is not the credential's principal.")
    if is_gate_name(fields["emitter"]):
        # Whoever declared such a Principal would write in a gate's name (D-59).
        raise refuse(Code.EMITTER_MISMATCH, "emitter: names that begin with svc: are the gates' own.")
    right = right_to_emit(role, fields["kind"], fields["phase"], fields["task_type"])
    if right is Right.NONE:
        raise refuse(Code.MAY_NOT_EMIT, f"phase: a {role} may not emit {_described(fields)}.")
    wrong = gate.signers.judge(fields["tenant_id"], fields["emitter"], receipt.form, receipt.signature)
    if wrong is not None:
        raise refuse(Code.SIGNATURE_REFUSED, f"signature: {wrong}")
    return entry(receipt, right)


def _described(fields: Mapping[str, Any]) -> str:
    """What was to be emitted; the type of task only where it is what makes the difference."""
    described = f"{fields['kind']}/{fields['phase']}"
    return f"{described} of task_type plan" if fields["task_type"] == PLAN else described


def to_unknown_recipients(gate: LedgerGate, entries: Sequence[Entry]) -> list[int]:
    """Places of the receipts that would give custody to nobody, as far as the process knows (D-71). Asks nobody."""
    return [place for place, entry in enumerate(entries) if _gives_custody(entry) and not _is_known(gate, entry)]


async def not_stored_yet(gate: LedgerGate, entries: Sequence[Entry], places: Sequence[int]) -> list[int]:
    """Those of the places whose receipt is new: a replay is answered as it was, whoever has left since."""
    stored = await gate.ledger.stored_digests(
        [(UUID(entries[place].tenant), entries[place].receipt_id) for place in places]
    )
    return [place for place, digest in zip(places, stored, strict=True) if digest != entries[place].digest]


def _gives_custody(entry: Entry) -> bool:
    return entry.kind == Kind.OBLIGATION and entry.phase != "complete" and entry.recipient_ai != entry.emitter


def _is_known(gate: LedgerGate, entry: Entry) -> bool:
    return entry.recipient_ai in GATES or gate.is_principal(UUID(entry.tenant), entry.recipient_ai)


class StoreReceipt:
    """One receipt. 201 stored, 200 replayed."""

    def __init__(self, gate: LedgerGate) -> None:
        self._gate = gate
        settings = gate.settings
        self._outer = Deadline(settings.deadline_seconds)
        self._batcher: Batcher[Entry, Appended] = Batcher(
            self._append, name="append", limits=BatchLimits(queue=settings.queue)
        )

    async def __call__(self, exchange: Exchange) -> Response:
        caller = await self._gate.authenticator.authenticate(exchange)
        exchange.require_json()
        receipt = examine_sent(strict_json.parse(await exchange.body()), caller)
        asked = authorize(self._gate, receipt, require_caller(caller))
        places = to_unknown_recipients(self._gate, [asked])
        if places and await self._outer.run(not_stored_yet(self._gate, [asked], places), name="recipient"):
            raise refuse(*RECIPIENT_UNKNOWN)
        answer = await self._batcher.submit(asked, exchange.deadline)
        if answer.outcome in REFUSALS:
            raise refuse(*REFUSALS[answer.outcome])
        acknowledgement = render_acknowledgement(asked, answer)
        if answer.outcome is Outcome.REPLAYED:
            return json_response(200, acknowledgement, (b"idempotency-replayed", b"true"))
        return json_response(201, acknowledgement, (b"location", b"/receipts/" + answer.receipt_id.encode()))

    async def _append(self, entries: Sequence[Entry]) -> list[Appended]:
        return await append_entries(self._gate, entries)


class StoreBatch:
    """Many receipts in one transaction, each answered by itself: what a relay needs after an outage."""

    def __init__(self, gate: LedgerGate, *, in_flight: int = 2) -> None:
        self._gate = gate
        self._outer = Deadline(gate.settings.deadline_seconds)
        self._turns = asyncio.Semaphore(in_flight)

    async def __call__(self, exchange: Exchange) -> Response:
        caller = await self._gate.authenticator.authenticate(exchange)
        exchange.require_json()
        most = self._gate.settings.batch_receipts
        body = strict_json.parse(await exchange.body(), max_keys=most * 200, max_depth=34)
        if not isinstance(body, dict) or set(body) != {"receipts"} or not isinstance(body["receipts"], list):
            raise refuse(Code.INVALID_REQUEST, "The body must be an object with one member, receipts: a list.")
        if not 0 < len(body["receipts"]) <= most:
            raise refuse(Code.INVALID_REQUEST, f"receipts: must hold 1 to {most} receipts.")
        speaker = require_caller(caller)
        self._gate.authenticator.charge_batch(speaker, len(body["receipts"]))
        items = [b""] * len(body["receipts"])
        asked: list[tuple[int, Entry]] = []
        for place, sent in enumerate(body["receipts"]):
            try:
                asked.append((place, authorize(self._gate, examine_sent(sent, speaker), speaker)))
            except RequestRefused as refused:
                items[place] = _refused(refused.problem.code, refused.problem.detail)
        entries = [entry for _, entry in asked]
        if places := to_unknown_recipients(self._gate, entries):
            unknown = await self._outer.run(not_stored_yet(self._gate, entries, places), name="recipients")
            for number in reversed(unknown):
                items[asked.pop(number)[0]] = _refused(*RECIPIENT_UNKNOWN)
        if asked:
            for (place, entry), answer in zip(
                asked, await self._outer.run(self._append(asked), name="batch"), strict=True
            ):
                items[place] = (
                    _refused(*REFUSALS[answer.outcome])
                    if answer.outcome in REFUSALS
                    else b'{"status":%d,' % (200 if answer.outcome is Outcome.REPLAYED else 201)
                    + render_acknowledgement(entry, answer)[1:]
                )
        return json_response(200, b'{"items":[%s]}' % b",".join(items))

    async def _append(self, asked: Sequence[tuple[int, Entry]]) -> list[Appended]:
        async with self._turns:
            return await append_entries(self._gate, [entry for _, entry in asked])


async def append_entries(gate: LedgerGate, entries: Sequence[Entry]) -> list[Appended]:
    metrics.BATCH_ROWS.observe(len(entries))
    answers = await gate.ledger.append(entries)
    metrics.stored((entry.kind, answer.outcome.value) for entry, answer in zip(entries, answers, strict=True))
    return answers


def _refused(code: ProblemCode, detail: str) -> bytes:
    return strict_json.encode({"status": code.status, "code": code.name, "title": code.title, "detail": detail})
