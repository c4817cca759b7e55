"""The error codes of MemoryGate."""

from typing import Final

from legivellum.http import problem_codes
from legivellum.http.problem_codes import ProblemCode


class Code(problem_codes.Code):
    """Those of every gate, and what only a receipt is refused with."""

    EMITTER_MISMATCH: Final = ProblemCode(
        403,
        "Emitter mismatch",
        "A receipt names an emitter or owner that is not the credential's to name (D-07).",
        "Leave `emitter` out, or use the credential of that emitter.",
    )
    MAY_NOT_EMIT: Final = ProblemCode(
        403,
        "May not emit",
        "The principal's role may not emit this kind and phase of receipt (INV-045, INV-122).",
        "Use a principal of a type that may emit this kind and phase.",
    )
    NOT_CUSTODIAN: Final = ProblemCode(
        403,
        "Not custodian",
        "Somebody else has custody of the obligation (D-08, D-35).",
        "Look at who has custody: `GET /receipts/task/{task_id}`.",
    )
    SIGNATURE_REFUSED: Final = ProblemCode(
        403,
        "Signature refused",
        "The receipt's signature is missing where it is required, or does not hold (D-28).",
        "Sign with a key that the signers file lists for this emitter.",
    )
    RECEIPT_CONFLICT: Final = ProblemCode(
        409,
        "Receipt conflict",
        "Another receipt is stored under this receipt_id.",
        "Use a new `receipt_id` for another receipt.",
    )
    DEDUPE_CONFLICT: Final = ProblemCode(
        409,
        "Dedupe conflict",
        "The emitter used this dedupe_key for another receipt.",
        "Use a new `dedupe_key` for another receipt.",
    )
    OBLIGATION_NOT_ACCEPTED: Final = ProblemCode(
        409, "Obligation not accepted", "Nobody has accepted the obligation yet.", "Emit the `accepted` receipt first."
    )
    OBLIGATION_ALREADY_TERMINATED: Final = ProblemCode(
        409,
        "Obligation already terminated",
        "The obligation was completed; what is over stays over (EXT-12).",
        "Nothing: it is closed. Open a new obligation for more work.",
    )
    TASK_MISMATCH: Final = ProblemCode(
        409,
        "Task mismatch",
        "The obligation belongs to another task than the receipt says.",
        "Name the task of the obligation.",
    )
    INVALID_RECEIPT: Final = ProblemCode(
        422,
        "Invalid receipt",
        "The receipt breaks its rules; `detail` names every bad field.",
        "Correct the fields that `detail` names.",
    )
    RECIPIENT_UNKNOWN: Final = ProblemCode(
        422,
        "Recipient unknown",
        "The receipt gives custody to nobody: no principal of the tenant, no gate (D-71).",
        "Name a declared principal of this tenant or a gate in `recipient_ai` or `escalation_to`.",
    )
