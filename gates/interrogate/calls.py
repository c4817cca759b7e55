"""The rows of `interrogate.call`: who called which tool, with what outcome (GW-13)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

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
    """Which calls are asked for; None: any. `before`: the admission's receipt id behind which the page begins."""

    principal: str | None = None
    problemata: str | None = None
    tool: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    before: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedCall:
    outcome: CallRecordOutcome
    row: CallRow | None
    """As it is stored now."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CallSettlement:
    """What became of a call, with its canonical receipt (`admission/complete` or `admission/escalate`)."""

    tenant: UUID
    admission_receipt_id: str
    receipt: str
