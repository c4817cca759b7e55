"""Error codes: every refusal that leaves a gate carries exactly one of them (docs/errors.md).

A code belongs to one status and one title, so that a caller can switch on the code alone. The codes of every gate are
here; a gate registers its own in a subclass:

    class Code(problem_codes.Code):
        LEASE_LOST: Final = ProblemCode(409, "Lease lost", "Somebody else has the lease.", "Take a new lease.")

`docs/errors.md` shows the tables of all gates and a test compares them. Codes may be added, never renamed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True, eq=False)
class ProblemCode:
    """The HTTP status that a code always comes with, its title, when it is sent, and what its receiver can do."""

    status: int
    title: str
    meaning: str
    remedy: str
    extension: Mapping[str, Any] = field(default_factory=dict)
    """JSON schemas of the members that its problems may have beside the five of all problems (RFC 9457 §3.2)."""
    name: str = field(default="", init=False)

    def __set_name__(self, owner: type, name: str) -> None:
        object.__setattr__(self, "name", name)

    def __str__(self) -> str:
        return self.name


class Code:
    """The codes that every gate answers with."""

    MALFORMED_REQUEST: Final = ProblemCode(
        400,
        "Malformed request",
        "The bytes are not one unambiguous HTTP/1.1 request.",
        "Send one request in HTTP/1.1 as RFC 9112 has it; `detail` names what is wrong.",
    )
    MALFORMED_JSON: Final = ProblemCode(
        400,
        "Malformed JSON",
        "The body is not strict JSON in UTF-8: syntax, duplicate members, NaN, NUL, lone surrogates.",
        "Write the body with a JSON library, in UTF-8.",
    )
    SEVERAL_CREDENTIALS: Final = ProblemCode(
        400,
        "Several credentials",
        "More than one credential in one request; none is picked (D-32).",
        "Send one credential: an API key or a Bearer token.",
    )
    CREDENTIAL_MISSING: Final = ProblemCode(
        401,
        "Credential missing",
        "Neither an API key nor a Bearer token was sent.",
        "Send `X-API-Key` or `Authorization: Bearer`.",
    )
    CREDENTIAL_INVALID: Final = ProblemCode(
        401,
        "Credential invalid",
        "The API key or token does not verify at this gate.",
        "Compare the key with its Principal, or the token's issuer, audience and signature with the TokenIssuer.",
    )
    CREDENTIAL_EXPIRED: Final = ProblemCode(
        401, "Credential expired", "The API key or token was good once.", "Get a new token, or declare a new key."
    )
    CREDENTIAL_REVOKED: Final = ProblemCode(
        401,
        "Credential revoked",
        "What the credential rests on was withdrawn since it was verified (D-45).",
        "Get a new credential; find out who withdrew the old one.",
    )
    PRINCIPAL_UNKNOWN: Final = ProblemCode(
        403,
        "Principal unknown",
        "The token is genuine; no Principal names its subject.",
        "Declare a Principal that names the token's subject.",
    )
    PRINCIPAL_SUSPENDED: Final = ProblemCode(
        403, "Principal suspended", "The Principal is declared `suspended: true`.", "Ask whoever suspended it."
    )
    ROLE_REQUIRED: Final = ProblemCode(
        403,
        "Role required",
        "The principal's type or scope does not permit this endpoint.",
        "Use a principal of the type that the endpoint requires.",
    )
    TENANT_MISMATCH: Final = ProblemCode(
        403,
        "Tenant mismatch",
        "The request names a tenant that is not the caller's (D-07).",
        "Leave the tenant out, or name your own.",
    )
    NOT_FOUND: Final = ProblemCode(
        404,
        "Not found",
        "No such path, or no such object in this tenant.",
        "Compare path and name with what was declared.",
    )
    METHOD_NOT_ALLOWED: Final = ProblemCode(
        405, "Method not allowed", "The path exists, this method on it does not.", "Use a method that `Allow` names."
    )
    REQUEST_TIMEOUT: Final = ProblemCode(
        408,
        "Request timeout",
        "Header or body did not arrive in time.",
        "Send the request in one go; look at the network between.",
    )
    BODY_TOO_LARGE: Final = ProblemCode(
        413, "Body too large", "The body exceeds the limit of bytes.", "Send less than the limit that `detail` names."
    )
    URL_TOO_LONG: Final = ProblemCode(
        414, "URL too long", "The request target exceeds the limit of bytes.", "Send a shorter path or query."
    )
    UNSUPPORTED_MEDIA_TYPE: Final = ProblemCode(
        415, "Unsupported media type", "The body is not `application/json`.", "Send `Content-Type: application/json`."
    )
    INVALID_REQUEST: Final = ProblemCode(
        422,
        "Invalid request",
        "A field, parameter or header is missing, of the wrong type or out of range.",
        "Correct what `detail` names.",
    )
    INVALID_CURSOR: Final = ProblemCode(
        422,
        "Invalid cursor",
        "The cursor was not issued by this endpoint.",
        "Send `next_cursor` of the same list back, unchanged, or begin again without.",
    )
    JSON_TOO_DEEP: Final = ProblemCode(422, "JSON too deep", "The body nests deeper than the limit.", "Nest less.")
    JSON_TOO_MANY_KEYS: Final = ProblemCode(
        422,
        "JSON has too many keys",
        "The body has more members than the limit.",
        "Send fewer members, or several requests.",
    )
    RATE_LIMITED: Final = ProblemCode(
        429,
        "Rate limited",
        "This principal asks faster than its token bucket refills.",
        "Wait `Retry-After`, then ask less often.",
    )
    HEADERS_TOO_LARGE: Final = ProblemCode(
        431, "Headers too large", "Too many header fields, or too many bytes of them.", "Send fewer or shorter headers."
    )
    INTERNAL_ERROR: Final = ProblemCode(
        500,
        "Internal error",
        "A defect of the gate. Never sent on purpose.",
        "Report it with the `X-Request-Id`; retry once.",
    )
    UNAVAILABLE: Final = ProblemCode(
        503,
        "Unavailable",
        "The database cannot be reached or refused; nothing was answered.",
        "Wait `Retry-After` and retry; look at the database.",
    )
    DEADLINE_EXCEEDED: Final = ProblemCode(
        503,
        "Deadline exceeded",
        "No answer within the deadline. The session may exist: retry with the same key.",
        "Wait `Retry-After` and retry with the same `Idempotency-Key`.",
    )
    OVERLOADED: Final = ProblemCode(
        503,
        "Overloaded",
        "The bounded queue or the connection limit is full.",
        "Wait `Retry-After` and retry; add replicas if it stays.",
    )
    NOT_READY: Final = ProblemCode(
        503,
        "Not ready",
        "The database was not reached yet, or its schema does not fit (D-52).",
        "Wait; run `migrate` if `detail` names the schema.",
    )

    def __init_subclass__(cls) -> None:
        """Raises TypeError for a gate that gives a code of all gates another meaning."""
        for name in vars(cls):
            if isinstance(getattr(super(cls, cls), name, None), ProblemCode):
                raise TypeError(f"{name} is a code of every gate already")

    @classmethod
    def registered(cls) -> dict[str, ProblemCode]:
        """The gate's codes by name, those of every gate included."""
        classes = reversed(cls.__mro__)
        return {name: code for owner in classes for name, code in vars(owner).items() if isinstance(code, ProblemCode)}
