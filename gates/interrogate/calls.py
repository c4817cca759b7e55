"""The rows of `interrogate.call`: who called which tool, with what outcome (GW-13)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from interrogate.admission_receipt import RecordedAdmission
from interrogate.decision import AdmissionOutcome
from interrogate.tool_call import DENIED, PENDING, CallOutcome

CallRecordOutcome = Literal["STORED", "SETTLED_BEFORE", "UNKNOWN", "REFUSED"]
"""STORED: now. SETTLED_BEFORE: the call has another outcome already, see `row`. UNKNOWN: there is no such call.
REFUSED: the ledger refused the receipt, which is a bug of this gate."""


@dataclass(frozen=True, slots=True)
class CallRow:
    """A tool call that was decided. Never its arguments or result, only their digests."""

    admission_receipt_id: str
    outcome_receipt_id: str | None
    """None: denied or pending."""
    at: datetime
    principal_key: str
    problemata: str
    tool: str
    """The name at its MCP server."""
    task_id: str
    outcome: str
    """`denied`, `pending`, `success`, `tool_error`, `protocol_error`, or an escalate's reason."""
    reason_code: str | None
    """Of a denied call."""
    duration_us: int | None
    arguments_sha256: str
    arguments_bytes: int
    result_sha256: str | None
    result_bytes: int | None


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls are asked for; None: any."""

    principal: str | None = None
    problemata: str | None = None
    tool: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    before: tuple[datetime, str] | None = None
    """Time and admission of the call behind which the page begins."""


@dataclass(frozen=True, slots=True)
class CallPage:
    """Newest first. `next`: what `before` is for the next page; None: this is the last one."""

    items: tuple[CallRow, ...]
    next: tuple[datetime, str] | None


@dataclass(frozen=True, slots=True)
class SettledCall:
    outcome: CallRecordOutcome
    row: CallRow | None
    """As it is stored now."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CallSettlement:
    """What became of a call, with its canonical receipt (`admission/complete` or `admission/escalate`)."""

    tenant: UUID
    admission_receipt_id: str
    receipt_id: str
    receipt: str
    outcome: CallOutcome


class StaleCall(NamedTuple):
    """A call whose outcome nobody stored in time. `body`: the receipt of its admission."""

    tenant: UUID
    receipt_id: str
    stored_at: datetime
    body: str


class DecidedCall(NamedTuple):
    """The part of a call's row that is written with its decision, in the order of `interrogate.record_calls`."""

    problemata: str
    tool: str
    task_id: str
    outcome: str
    reason_code: str | None
    timeout_ms: int
    arguments_sha256: str
    arguments_bytes: int


class EndedCall(NamedTuple):
    """The part that is written with its outcome, in the order of `interrogate.settle_calls`."""

    outcome: str
    duration_us: int | None
    result_sha256: str | None
    result_bytes: int | None


def decided_call(admission: RecordedAdmission) -> DecidedCall | None:
    """None for a request that is no call of a tool."""
    tool, decision = admission.tool, admission.decision
    if tool is None:
        return None
    return DecidedCall(
        problemata=tool.problemata,
        tool=tool.name,
        task_id=admission.task_id,
        outcome=PENDING if decision.outcome is AdmissionOutcome.ALLOW else DENIED,
        reason_code=decision.reason_code,
        timeout_ms=tool.timeout_ms,
        arguments_sha256=admission.envelope.payload_sha256,
        arguments_bytes=admission.payload_bytes,
    )


def ended_call(outcome: CallOutcome) -> EndedCall:
    name: str | None = outcome.state or outcome.reason
    assert name is not None  # one of them is set
    return EndedCall(name, outcome.duration_us, outcome.result_sha256, outcome.result_bytes)


def call_row(row: Any) -> CallRow:
    """Of the columns of `interrogate.call`."""
    return CallRow(**{name: row[name] for name in CallRow.__slots__})
