"""The second commit of a tool call: its outcome, before the caller is answered (GW-12, GW-14)."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from interrogate.admission_receipt import RecordedAdmission
from interrogate.calls import CallRow
from interrogate.database import InterrogateDatabase
from interrogate.tool_call import CallOutcome


class OutcomeUnrecorded(Exception):  # noqa: N818 - what the outcome is
    """The outcome could not be stored within OUTCOME_MS. The tool may have run: its result must be withheld.

    The row stays `pending`, and the sweep escalates OUTCOME_UNKNOWN.
    """


class CallRecorder:
    """One per process. Outcomes that arrive together share one commit."""

    def __init__(self, database: Callable[[], InterrogateDatabase], *, outcome_seconds: float) -> None:
        self._database = database
        self._outcome_seconds = outcome_seconds

    async def record(self, tenant: UUID, admission: RecordedAdmission, outcome: CallOutcome) -> CallRow:
        """The stored row of the call; its `outcome_receipt_id` is never None.

        Where the call has an outcome already (the sweep was faster), that one. The attempts go on when the caller is
        gone: call it from an owned task. Raises OutcomeUnrecorded.
        """
        raise NotImplementedError

    async def outcome_of(self, tenant: UUID, admission_receipt_id: str) -> CallRow | None:
        """How a call that is repeated with the same key ended (GW-15: RESULT_NOT_KEPT). Raises Unavailable."""
        raise NotImplementedError
