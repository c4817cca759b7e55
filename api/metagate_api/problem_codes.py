"""The error codes of MetaGate."""

from typing import Final

from legivellum.http import problem_codes
from legivellum.http.problem_codes import ProblemCode


class Code(problem_codes.Code):
    """Those of every gate, and what only a boot, a report or a declaration is refused with."""

    NO_BINDING: Final = ProblemCode(
        403,
        "No binding",
        "The principal has no active PrincipalBinding.",
        "Declare an active PrincipalBinding for the principal.",
    )
    COMPONENT_NOT_PERMITTED: Final = ProblemCode(
        403,
        "Component not permitted",
        "The binding's `components` do not cover the component_key (D-16).",
        "Add the component to the binding's `components`, or correct the key.",
    )
    NOT_YOURS: Final = ProblemCode(
        403,
        "Not yours",
        "The startup session belongs to another principal of the same tenant.",
        "Use the credential that opened the session.",
    )
    NOT_THIS_POD: Final = ProblemCode(
        403,
        "Not this pod",
        "The session was opened with another pod's token; only that pod may report (D-43).",
        "Report from the pod that booted, or boot again in this one.",
    )
    NOT_ITS_GATEWAY: Final = ProblemCode(
        403,
        "Not its gateway",
        "The principal may not announce instances of this Problemata.",
        "Name the principal in `spec.gateway.principals` of the Problemata, or use the gateway's own credential.",
    )
    SESSION_NOT_FOUND: Final = ProblemCode(
        404,
        "Session not found",
        "No such startup session in this tenant.",
        "Send the `startup_id` of the packet; boot again when the session is older than what is kept.",
    )
    DECLARED_BY_RESOURCE: Final = ProblemCode(
        405,
        "Declared by resource",
        "In a cluster the custom resource named in `detail` is the way to write (D-12).",
        "`kubectl apply` or `kubectl delete` the resource that `detail` names.",
    )
    NOT_REBUILT: Final = ProblemCode(
        409,
        "Not rebuilt",
        "What was declared does not give the packet that was served, so it cannot be explained.",
        "Ask again after the next revision; if it stays, report it: an alert says so too.",
    )
    BINDING_INCOMPLETE: Final = ProblemCode(
        409,
        "Binding incomplete",
        "The binding refers to a Profile or Manifest that is missing or invalid.",
        "Look at the binding's status: it names what is missing or invalid.",
    )
    PRINCIPAL_MISMATCH: Final = ProblemCode(
        409,
        "Principal mismatch",
        "`principal_key` in the body is not who the credential says (INV-006).",
        "Leave `principal_key` out, or use the credential of that principal.",
    )
    IDEMPOTENCY_CONFLICT: Final = ProblemCode(
        409,
        "Idempotency conflict",
        "The Idempotency-Key was used for another component or principal (D-03).",
        "Use a new `Idempotency-Key` for another request.",
    )
    OTHER_VERSION: Final = ProblemCode(
        409,
        "Other version",
        "The announced version, or one of its capabilities, is not what is declared of the Problemata.",
        "Read the Problemata again and announce its version; a rollout brings the two together.",
    )
    INVALID_STATE: Final = ProblemCode(
        409,
        "Invalid state",
        "The startup session already ended in the other state.",
        "Nothing: the first report stays. Boot again for a new session.",
    )
    INVALID_RESOURCE: Final = ProblemCode(
        422,
        "Invalid resource",
        "The declared resource breaks a rule; `detail` names the path.",
        "Correct the path that `detail` names; `metagate validate` says the same before.",
    )
    FORBIDDEN_KEYS: Final = ProblemCode(
        422,
        "Forbidden keys",
        "The declared resource contains a forbidden key (D-17).",
        "Remove the key: work, schedules and secrets are not declared here.",
    )
    PACKET_REFUSED: Final = ProblemCode(
        503,
        "Packet refused",
        "The stored packet failed its own check and is not served (D-38).",
        "Follow the runbook of the alert MetaGatePacketsRefused.",
    )
