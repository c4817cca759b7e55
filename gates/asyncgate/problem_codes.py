"""The error codes of AsyncGate: why a task was not taken, why a lease does not carry what was asked under it."""

from typing import Final

from legivellum.http import problem_codes
from legivellum.http.problem_codes import ProblemCode


class Code(problem_codes.Code):
    """Those of every gate, and AsyncGate's own."""

    EMITTER_MISMATCH: Final = ProblemCode(
        403,
        "Emitter mismatch",
        "The task or its obligation belongs to another principal than the caller may enqueue for.",
        "A principal enqueues its own tasks; a delegate those of its tenant.",
    )
    NOT_CUSTODIAN: Final = ProblemCode(
        403,
        "Not custodian",
        "The obligation was not given to `svc:asyncgate`.",
        "Open it with `recipient_ai: svc:asyncgate`.",
    )
    AUTHORITY_EXCEEDED: Final = ProblemCode(
        403,
        "Authority exceeded",
        "The task carries more authority than its namespace may give.",
        "Ask for less; `detail` names the first member beyond the ceiling.",
    )
    ADMISSION_REQUIRED: Final = ProblemCode(
        403,
        "Admission required",
        "Tasks of this namespace need an admission of InterroGate.",
        "Send the receipt's id as `Legivellum-Admission`.",
    )
    ADMISSION_REFUSED: Final = ProblemCode(
        403,
        "Admission refused",
        "The admission is not one of these bytes, of this tenant and task, for this gate, in the last ten minutes.",
        "Ask InterroGate again, with the task as the payload.",
    )
    ESCALATION_NOT_PERMITTED: Final = ProblemCode(
        403,
        "Escalation not permitted",
        "The task does not permit to escalate to this principal.",
        "Escalate to one of the task's `escalation_to`, or complete it as a failure.",
    )
    TASK_CONFLICT: Final = ProblemCode(
        409, "Task conflict", "Another task has this id.", "Choose a new id; the same task again is a replay."
    )
    TASK_MISMATCH: Final = ProblemCode(
        409, "Task mismatch", "The obligation belongs to another task.", "Name the obligation of this task."
    )
    OBLIGATION_NOT_ACCEPTED: Final = ProblemCode(
        409,
        "Obligation not accepted",
        "Nobody has opened the obligation, or one that the task needs.",
        "Emit its accepted receipt first; `detail` names the obligation.",
    )
    OBLIGATION_ALREADY_TERMINATED: Final = ProblemCode(
        409, "Obligation already terminated", "The obligation is over.", "Open a new one."
    )
    ADMISSION_USED: Final = ProblemCode(
        409, "Admission used", "The admission has admitted another task.", "One admission admits one task."
    )
    TOO_MANY_WAIT: Final = ProblemCode(
        409, "Too many wait", "1,024 tasks wait for one obligation already.", "Enqueue it when that is over."
    )
    TASK_ENDED: Final = ProblemCode(
        409, "Task ended", "The task is over, and was not revoked.", "Nothing is left to revoke."
    )
    LEASE_LOST: Final = ProblemCode(
        409,
        "Lease lost",
        "The lease has ended, or never was the caller's: nothing happened.",
        "Stop the work: another worker may have the task.",
    )
    LEASE_EXHAUSTED: Final = ProblemCode(
        409,
        "Lease exhausted",
        "The lease cannot be renewed any more; it lives until `expires_at`.",
        "End the work before that, or release the task.",
    )
    GROUP_REFUSED: Final = ProblemCode(
        409, "Group refused", "Another task of an `all_or_none` batch was refused.", "Mend that one and send all again."
    )
    INVALID_RECEIPT: Final = ProblemCode(
        422,
        "Invalid receipt",
        "What was claimed makes no receipt; `detail` names every bad field.",
        "Send what the field table of receipts allows.",
    )
    RECIPIENT_UNKNOWN: Final = ProblemCode(
        422,
        "Recipient unknown",
        "`escalation_to` names nobody of this tenant.",
        "Name a principal of the tenant, or a gate.",
    )
