"""How what a task needed has ended: AsyncGate looks only whether it is closed, so the ledger is asked."""

from __future__ import annotations

import logging

from legivellum_worker.gate_client import call, repeat
from legivellum_worker.results import NOT_MET, Failed, Release
from metagate_client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping, Sequence
    from typing import Any

    from legivellum_worker.settings import GateAccess

log = logging.getLogger("legivellum_worker")

NEEDS = ("success", "any")
_PATIENCE_SECONDS = 10.0
"""For a ledger that is started again."""
_SUCCESS = "success"
RETRY_SECONDS = 30
"""A task goes back for so long whose gates do not answer."""


class Evidence:
    """The receipts that closed what a task needed, each read once.

    Its methods raise Release where the receipts cannot be read: because no ledger is configured, which another worker
    may know, or because it is away.
    """

    def __init__(self, receipt_ids: Sequence[str], ledger: GateAccess | None, cancelled: threading.Event) -> None:
        self._receipt_ids, self._ledger, self._cancelled = receipt_ids, ledger, cancelled
        self._receipts: list[dict[str, Any]] | None = None

    def require_success(self) -> None:
        """Raises Failed where something that the task needed did not end as a success."""
        if any(receipt.get("status") != _SUCCESS for receipt in self._read()):
            raise Failed(NOT_MET)

    def of_task(self, task_id: str) -> Mapping[str, Any] | None:
        """The receipt that closed a task."""
        return next((receipt for receipt in self._read() if receipt.get("task_id") == task_id), None)

    def _read(self) -> list[dict[str, Any]]:
        if self._receipts is None:
            self._receipts = [self._receipt(receipt_id) for receipt_id in self._receipt_ids]
        return self._receipts

    def _receipt(self, receipt_id: str) -> dict[str, Any]:
        ledger = self._ledger
        if ledger is None:
            raise Release(RETRY_SECONDS, "the worker knows no ledger, and cannot see how the task's needs ended")
        try:
            return repeat(lambda: call(ledger, "GET", f"/receipts/{receipt_id}"), _PATIENCE_SECONDS, self._cancelled)
        except ClientError as error:
            log.warning("needs_unread reason=%s", error)
            raise Release(RETRY_SECONDS, "the ledger did not say how the task's needs ended") from error
