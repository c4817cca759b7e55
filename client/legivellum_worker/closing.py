"""The step that ends a plan: any worker asks DeleGate to look at the ledger, and completes the step when it has closed.

The step is leased like any other. As long as the plan cannot be closed, because a step is open or DeleGate is away, it
is given back for longer and longer: its leases, 32 unless AsyncGate is set otherwise, last about four hours.
"""

from __future__ import annotations

import logging

from legivellum_worker.gate_client import GateError, call
from legivellum_worker.results import Failed, Release
from metagate_client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from legivellum_worker.settings import GateAccess
    from legivellum_worker.work import Work

log = logging.getLogger("legivellum_worker")

_STEP = ".close"
_LONGEST_PAUSE = 600
_CALL_SECONDS = 20.0
_NOT_FOUND = 404


def close_plan(work: Work, delegate: GateAccess) -> None:
    """Raises Release until the plan is closed, Failed for a plan that DeleGate does not know."""
    plan_id = work.task_id.removesuffix(_STEP)
    if plan_id == work.task_id:
        raise Failed("PLAN_NOT_FOUND")
    try:
        call(delegate, "POST", f"/plans/{plan_id}/close", {}, seconds=_CALL_SECONDS)
    except ClientError as error:
        if isinstance(error, GateError) and error.status == _NOT_FOUND:
            raise Failed("PLAN_NOT_FOUND") from error
        log.log(
            logging.DEBUG if _is_expected(error) else logging.WARNING,
            "close_delayed plan_id=%s reason=%s",
            plan_id,
            error,
        )
        raise Release(min(_LONGEST_PAUSE, 1 << min(work.number - 1, 10)), "the plan is not closed yet") from error


def _is_expected(error: ClientError) -> bool:
    return isinstance(error, GateError) and error.code == "PLAN_NOT_FINISHED"
