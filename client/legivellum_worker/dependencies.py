"""How what a task needed has ended: AsyncGate looks only whether it is closed, so the ledger is asked."""

from __future__ import annotations

import logging

from legivellum_worker.gate_client import call
from legivellum_worker.results import Failed, Release
from metagate_client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from legivellum_worker.settings import GateAccess

log = logging.getLogger("legivellum_worker")

NEEDS = ("success", "any")
NOT_MET = "DEPENDENCY_NOT_MET"
_SUCCESS = "success"
_RETRY_SECONDS = 30


def require_success(evidence: Sequence[str], ledger: GateAccess | None) -> None:
    """Raises Failed where something that the task needed did not end as a success.

    Raises Release where that cannot be known, because no ledger is configured: another worker may know it.
    """
    if not evidence:
        return
    if ledger is None:
        raise Release(_RETRY_SECONDS, "the worker knows no ledger, and cannot see how the task's needs ended")
    try:
        met = all(_status(receipt_id, ledger) == _SUCCESS for receipt_id in evidence)
    except ClientError as error:
        log.warning("needs_unread reason=%s", error)
        raise Release(_RETRY_SECONDS, "the ledger did not say how the task's needs ended") from error
    if not met:
        raise Failed(NOT_MET)


def _status(receipt_id: str, ledger: GateAccess) -> object:
    """The status of the receipt that closed what was needed."""
    return call(ledger, "GET", f"/receipts/{receipt_id}").get("status")
