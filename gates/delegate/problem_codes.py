"""The error codes of DeleGate: why a plan is not taken, why nothing is minted, why a plan cannot be closed."""

from typing import Final

from legivellum.http import problem_codes
from legivellum.http.problem_codes import ProblemCode

_FINDINGS: Final = {
    "findings": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["path", "reason", "message"],
            "properties": {
                "path": {"type": "string"},
                "reason": {"type": "string"},
                "message": {"type": "string"},
            },
        },
    }
}
_OPEN: Final = {"open": {"type": "array", "items": {"type": "string"}, "maxItems": 20}}


class Code(problem_codes.Code):
    """Those of every gate, and DeleGate's own."""

    ADMISSION_REQUIRED: Final = ProblemCode(
        403,
        "Admission required",
        "Requests for plans come through InterroGate here.",
        "Ask InterroGate on the surface that its policy opens for plans.",
    )
    ADMISSION_REFUSED: Final = ProblemCode(
        403,
        "Admission refused",
        "The receipt that was named admits nothing here: unknown, rejected, for somebody else or for another body.",
        "Let InterroGate forward the request; do not send it on by hand.",
    )
    AUTHORITY_EXCEEDED: Final = ProblemCode(
        403,
        "Authority exceeded",
        "A step asks for more than this namespace, or the worker that asks, may give.",
        "Lessen the `authority` of the step that `detail` names, or let an administrator raise the ceiling.",
    )
    TENANT_NOT_SERVED: Final = ProblemCode(
        403,
        "Tenant not served",
        "This gate has no good credential of the tenant's `delegate` Principal.",
        "Put the key or token of a Principal of type `delegate` of that namespace into the gate's credentials.",
    )
    TEMPLATE_NOT_FOUND: Final = ProblemCode(
        404,
        "Template not found",
        "The tenant has no PlanTemplate of this name or capability that is served.",
        "Compare with `kubectl get plantemplates`, or send a draft.",
    )
    PLAN_NOT_FOUND: Final = ProblemCode(
        404, "Plan not found", "This gate opened no plan of this id in this tenant.", "Compare the id; ask again."
    )
    PLAN_CONFLICT: Final = ProblemCode(
        409,
        "Plan conflict",
        "Another request was taken under this `plan_id`.",
        "Choose a new `plan_id`; the same request again is a replay.",
    )
    NOT_APPROVED: Final = ProblemCode(
        409,
        "Not approved",
        "The plan is held, and its approver has not decided.",
        "Wait for the approver; `legivellum done` shows and approves.",
    )
    PLAN_NOT_FINISHED: Final = ProblemCode(
        409,
        "Plan not finished",
        "Steps of the plan are open; `open` names up to twenty.",
        "Close it when they are over, or abandon the plan.",
        extension=_OPEN,
    )
    OBLIGATION_ALREADY_TERMINATED: Final = ProblemCode(
        409, "Obligation already terminated", "The plan is over, and what is over stays over.", "Nothing is left to do."
    )
    INVALID_PLAN: Final = ProblemCode(
        422,
        "Invalid plan",
        "What was asked for is no plan that may run; `findings` says why.",
        "Correct what `findings` names; `POST /plans/validate` says the same and writes nothing.",
        extension=_FINDINGS,
    )
