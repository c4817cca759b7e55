"""The second commit of a tool call: its outcome, before the caller is answered (GW-12, GW-14)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog

from interrogate.admission_receipt import ReceiptInvalid, RecordedAdmission
from interrogate.call_receipt import outcome_receipt
from interrogate.calls import CallRow, CallSettlement, SettledCall
from interrogate.database import InterrogateDatabase
from interrogate.policies import PoliciesUnknown, PolicyReplica
from interrogate.tool_call import CallOutcome
from legivellum.gate.snapshot_poller import LOST
from legivellum.http.batching import Batcher
from legivellum.http.deadline import DeadlineExceeded, Overloaded

_RETRY_SECONDS: Final = 0.1
_NOT_NOW: Final = (*LOST, DeadlineExceeded, Overloaded)

_log = structlog.get_logger("interrogate.calls")


class OutcomeUnrecorded(Exception):  # noqa: N818 - what the outcome is
    """The outcome could not be stored within OUTCOME_MS. The tool may have run: its result must be withheld.

    The row stays `pending`, and the sweep escalates OUTCOME_UNKNOWN.
    """


class CallRecorder:
    """One per process. Outcomes that arrive together share one commit."""

    def __init__(
        self, database: Callable[[], InterrogateDatabase], policies: PolicyReplica, *, outcome_seconds: float
    ) -> None:
        self._database = database
        self._policies = policies
        self._outcome_seconds = outcome_seconds
        self._settling: Batcher[CallSettlement, SettledCall] = Batcher(self._settle, name="settle calls")

    async def record(self, tenant: UUID, admission: RecordedAdmission, outcome: CallOutcome) -> CallRow:
        """The stored row of the call; its `outcome_receipt_id` is never None.

        Where the call has an outcome already (the sweep was faster), that one: compare `outcome` of the row. The
        attempts end with whoever awaits this: call it from a task that does not end with the caller.
        Raises OutcomeUnrecorded.
        """
        deadline = asyncio.get_running_loop().time() + self._outcome_seconds
        try:
            settlement = self._settlement(tenant, admission, outcome)
        except ReceiptInvalid as error:
            _log.error("call_outcome_unwritable", receipt_id=admission.receipt_id, reason=str(error))
            raise OutcomeUnrecorded from error
        while True:
            try:
                recorded = await self._settling.submit(settlement, deadline)
            except _NOT_NOW as error:
                # The same receipt again: where only the answer was lost, its row names this very receipt.
                if asyncio.get_running_loop().time() + _RETRY_SECONDS >= deadline:
                    raise OutcomeUnrecorded from error
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if recorded.row is None or recorded.row.outcome_receipt_id is None:
                _log.error("call_outcome_refused", receipt_id=admission.receipt_id, refusal=recorded.detail)
                raise OutcomeUnrecorded
            return recorded.row

    async def outcome_of(self, tenant: UUID, admission_receipt_id: str) -> CallRow | None:
        """How a call that is repeated with the same key ended (GW-15: RESULT_NOT_KEPT). Raises Unavailable."""
        return await self._database().calls.find(tenant, admission_receipt_id)

    def _settlement(self, tenant: UUID, admission: RecordedAdmission, outcome: CallOutcome) -> CallSettlement:
        receipt_id, receipt = outcome_receipt(
            admission,
            outcome,
            tenant=str(tenant),
            escalate_to=self._escalate_to(tenant, admission),
            completed_at=datetime.now(UTC),
        )
        return CallSettlement(tenant, admission.receipt_id, receipt_id, receipt, outcome)

    def _escalate_to(self, tenant: UUID, admission: RecordedAdmission) -> str | None:
        """As the policy says now; an outcome is recorded whether policies are known or not."""
        try:
            ruleset = self._policies.find(tenant, admission.envelope.policy_profile_id)
        except PoliciesUnknown:
            return None
        surface = None if ruleset is None else ruleset.surfaces.get(admission.envelope.surface_id)
        return None if surface is None else surface.escalate_to

    async def _settle(self, settlements: Sequence[CallSettlement]) -> list[SettledCall]:
        return await self._database().calls.settle(settlements)
