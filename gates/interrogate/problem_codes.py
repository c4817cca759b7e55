"""The error codes of InterroGate: requests about which nothing was decided. A refusal by policy is a decision, not one
of these.
"""

from typing import Final

from legivellum.http import problem_codes
from legivellum.http.problem_codes import ProblemCode


class Code(problem_codes.Code):
    """Those of every gate, and why a request for admission was not decided."""

    HOST_NOT_ALLOWED: Final = ProblemCode(
        421,
        "Host not allowed",
        "`/mcp` was called under a host name that is not this gate's: a page can bind its own name to an address.",
        "Call it under the host of `INTERROGATE_RESOURCE`, or name the host in `INTERROGATE_ALLOWED_HOSTS`.",
    )
    ORIGIN_NOT_ALLOWED: Final = ProblemCode(
        403,
        "Origin not allowed",
        "`/mcp` was called by a page of another site: its `Origin` is not this gate's.",
        "Call it from a program, or name the page's host in `INTERROGATE_ALLOWED_HOSTS`.",
    )
    IDEMPOTENCY_CONFLICT: Final = ProblemCode(
        409,
        "Idempotency conflict",
        "The `Idempotency-Key` was used for another envelope in the last 24 hours (IG-07).",
        "Use a new key for another request; repeat the same bytes to hear the same decision.",
    )
    NO_DOMAIN: Final = ProblemCode(
        422,
        "No domain",
        "`tenant_id`, `surface_id` or `policy_profile_id` is absent, blank or not text (INV-097).",
        "Name all three in the body; no header and no default fills them in.",
    )
