"""The error codes of DepotGate: why an artifact was not taken, why there are no bytes to read."""

from typing import Final

from legivellum.http import problem_codes
from legivellum.http.problem_codes import ProblemCode


class Code(problem_codes.Code):
    """Those of every gate, and DepotGate's own."""

    ROLE_NOT_PERMITTED: Final = ProblemCode(
        403,
        "Role not permitted",
        "Principals of the caller's type deposit no artifacts of this role.",
        "Plans come from delegates, inputs from principals and delegates, outputs from workers.",
    )
    LEASE_REQUIRED: Final = ProblemCode(
        403,
        "Lease required",
        "Outputs and supporting artifacts are deposited under the lease of their task.",
        "Send the lease's id as `Legivellum-Lease`.",
    )
    LEASE_AUTHORITY: Final = ProblemCode(
        403,
        "Lease authority",
        "The lease does not let its holder deposit this: another task, or not in its authority.",
        "Give the task an authority with `writeBeyondReceipts` and the sink that `detail` names.",
    )
    ARTIFACT_CONFLICT: Final = ProblemCode(
        409,
        "Artifact conflict",
        "Another content was stored under this `artifact_id`.",
        "Choose a new id; the same bytes, media type, role and task again are a replay.",
    )
    LEASE_LOST: Final = ProblemCode(
        409,
        "Lease lost",
        "The lease has ended, or never was the caller's: nothing was stored.",
        "Stop the work: another worker may have the task. Renew leases while uploads run.",
    )
    ARTIFACT_RETIRED: Final = ProblemCode(
        410,
        "Artifact retired",
        "The artifact's bytes were retired; its manifest stays.",
        "Read the manifest; make the artifact again if it is needed.",
    )
    RANGE_NOT_SATISFIABLE: Final = ProblemCode(
        416,
        "Range not satisfiable",
        "The range begins behind the end of the artifact.",
        "Ask for bytes that exist; `Content-Range` says how many there are.",
    )
    DIGEST_MISMATCH: Final = ProblemCode(
        422,
        "Digest mismatch",
        "The bytes that arrived are not those of the Content-Digest that was sent.",
        "Send them again; if it stays, something between changes them.",
    )
    CAUSE_UNKNOWN: Final = ProblemCode(
        422,
        "Cause unknown",
        "`caused_by_receipt_id` is no receipt of the task that was named.",
        "Name a receipt of `task_id`, or none.",
    )
    STORE_FULL: Final = ProblemCode(
        503,
        "Store full",
        "The store has no room for the bytes.",
        "An administrator makes room or a larger volume; then send it again.",
    )
