"""The endpoint table of a gate: each endpoint is written down once. From its entry it is routed (`router`), described
(`openapi`) and compared with the docs (a test).

A gate declares a tuple of endpoints as a constant and binds each to a handler when its application is composed:

    ENDPOINTS = (Endpoint("GET", "/things/{thing_id}", "One thing", "any principal", (Reply(200, "It.", "Thing"),)),)
    router = Router.bind(ENDPOINTS, {"GET /things/{thing_id}": read_thing}, defaults=limits)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from legivellum.http.problem_codes import Code, ProblemCode

Schema = dict[str, Any]
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

ANYBODY: Final = "none"
ANY_PRINCIPAL: Final = "any principal"

EDGE_CODES: Final = (
    Code.MALFORMED_REQUEST,
    Code.REQUEST_TIMEOUT,
    Code.BODY_TOO_LARGE,
    Code.URL_TOO_LONG,
    Code.HEADERS_TOO_LARGE,
    Code.OVERLOADED,
    Code.DEADLINE_EXCEEDED,
)
"""What any request may be refused with before a handler sees it."""

CREDENTIAL_CODES: Final = (
    Code.SEVERAL_CREDENTIALS,
    Code.CREDENTIAL_MISSING,
    Code.CREDENTIAL_INVALID,
    Code.CREDENTIAL_EXPIRED,
    Code.CREDENTIAL_REVOKED,
    Code.PRINCIPAL_UNKNOWN,
    Code.PRINCIPAL_SUSPENDED,
    Code.RATE_LIMITED,
    Code.UNAVAILABLE,
)
"""What any request that needs a credential may be refused with."""

JSON_CODES: Final = (
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.MALFORMED_JSON,
    Code.JSON_TOO_DEEP,
    Code.JSON_TOO_MANY_KEYS,
    Code.INVALID_REQUEST,
)
"""What any request with a JSON body may be refused with."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One success: status, what it means, the name of its schema (None: no body), the names of its headers."""

    status: int
    description: str
    schema: str | None = None
    headers: tuple[str, ...] = ()
    media: str = "application/json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method on one path. HEAD and OPTIONS are not declared: the router adds them.

    `path` is a template: a segment `{name}` matches one non-empty segment and becomes a path parameter. `auth` is
    "none", "any principal" or the type of principal that is required. `body` is the name of the schema of the body.
    """

    method: Method
    path: str
    summary: str
    auth: str
    replies: tuple[Reply, ...]
    codes: tuple[ProblemCode, ...] = ()
    """What this endpoint refuses with beside the codes that follow from `auth` and from the edge."""
    parameters: tuple[Schema, ...] = ()
    body: str | None = None
    media: tuple[str, ...] = ("application/json",)
    """Media types of the body."""
    body_bytes: int | None = None
    """Most bytes of a body; None: the gate's default, like the next two."""
    body_seconds: float | None = None
    """Total time in which the body must arrive."""
    deadline_seconds: float | None = None
    reader_rate: int = 0
    """Bytes a second that a client must take of a large answer, as `RouteLimits` has it."""
    callers: frozenset[str] | None = None
    """Types of principals that may call it at all (docs/edges.md); None: all. Others are refused with ROLE_REQUIRED."""
    keeps_deadline: bool = False
    """The handler itself ends by `exchange.deadline` (a batcher does), so the edge starts no task to watch it."""
    name: str | None = None
    """The operationId; None: made of method and path."""

    @property
    def key(self) -> str:
        """How a handler is bound to it: `GET /things/{thing_id}`."""
        return f"{self.method} {self.path}"

    @property
    def operation_id(self) -> str:
        words = self.path.replace(".", "/").replace("-", "_").replace("{", "").replace("}", "").split("/")
        return self.name or "_".join([self.method.lower(), *filter(None, words)])

    @property
    def all_codes(self) -> tuple[ProblemCode, ...]:
        """Every code that it may refuse with, without repetition."""
        credential = () if self.auth == ANYBODY else CREDENTIAL_CODES
        any_type = self.auth == ANYBODY or (self.auth == ANY_PRINCIPAL and self.callers is None)
        role = () if any_type else (Code.ROLE_REQUIRED,)
        return tuple(dict.fromkeys((*EDGE_CODES, *credential, *role, *self.codes)))


def in_path(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def in_query(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def in_header(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}
