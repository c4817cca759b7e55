"""What a handler returns goes into the sink that the task's authority grants: under the lease, before the end is sent.

The artifact's id is derived from task and lease number. So a deposit whose answer was lost is found again, and a second
try of the task, which may have another result, stores another artifact.
"""

from __future__ import annotations

import math

from legivellum_worker.dependencies import RETRY_SECONDS
from legivellum_worker.gate_client import GateError, GateUnavailableError
from legivellum_worker.results import (
    AUTHORITY_INSUFFICIENT,
    OUTPUT_REFUSED,
    OUTPUT_TOO_LARGE,
    Failed,
    Output,
    Release,
)
from legivellum_worker.ulids import derived_ulid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from legivellum_worker.artifacts import StoredArtifact
    from legivellum_worker.leased_work import LeasedWork

SINK = "depotgate/output"
_FORBIDDEN, _UNAUTHENTICATED, _TOO_LARGE = 403, 401, 413
_LEASE_LOST = "LEASE_LOST"


def is_granted(work: LeasedWork) -> bool:
    """Whether the authority lets the task store an output. DepotGate judges; this only chooses what is tried."""
    return bool(work.authority.get("writeBeyondReceipts")) and SINK in (work.authority.get("sinks") or ())


def store_output(work: LeasedWork, output: Output) -> Output:
    """The output as it is claimed: named by its pointer where it has to be stored.

    Without any sink in the authority a text goes with the receipt, and bytes are refused. So is every output of a task
    that was granted other sinks, but not this one. Raises Failed, Release, GateError for a lease that is lost.
    """
    if output.pointer is not None or not (output.text or output.content is not None):
        return output
    if not is_granted(work):
        if output.content is None and not work.authority.get("sinks"):
            return output
        raise Failed(AUTHORITY_INSUFFICIENT, usage=output.usage)
    if output.content is None and not work.knows_depot:
        return output
    content = output.content if output.content is not None else (output.text or "").encode("utf-8", "surrogatepass")
    try:
        return Output.of(deposit(work, content, output.media_type, len(content)), usage=output.usage)
    except Failed as failure:
        # What the work cost was spent, whatever became of the output.
        raise Failed(failure.code, failure.text, usage=output.usage) from failure


def deposit(work: LeasedWork, source: bytes | IO[bytes], media_type: str, size: int) -> StoredArtifact:
    """Repeated until it is answered or the lease has ended: the same again is a replay."""
    most = work.job.max_output_bytes
    if most is not None and size > most:
        raise Failed(OUTPUT_TOO_LARGE)
    # A process that was stopped past the end of its lease sends nothing when it goes on.
    work.check()
    number = f"{work.task.get('tenant_id')}/{work.task_id}/{work.number}"
    try:
        return work.depot(patience_seconds=math.inf).put(
            source, media_type=media_type, artifact_id=derived_ulid(number, work.issued_at_ms)
        )
    except GateError as error:
        raise _outcome(error) from error
    except GateUnavailableError as error:
        raise Release(RETRY_SECONDS, "DepotGate did not answer") from error


def _outcome(error: GateError) -> Exception:
    if error.code == _LEASE_LOST:
        return error
    if error.status == _UNAUTHENTICATED:
        return Release(RETRY_SECONDS, "DepotGate does not know the worker")
    return Failed({_FORBIDDEN: AUTHORITY_INSUFFICIENT, _TOO_LARGE: OUTPUT_TOO_LARGE}.get(error.status, OUTPUT_REFUSED))
