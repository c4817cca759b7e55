"""Every endpoint, once: what it is for, who may call it, what it answers. OpenAPI and docs/api.md come from here."""

import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from starlette.routing import compile_path

from legivellum.http.problem_codes import Code
from metagate_api import schemas

Auth = Literal["none", "any principal", "admin", "service"]

_EDGE = (
    Code.MALFORMED_REQUEST,
    Code.REQUEST_TIMEOUT,
    Code.BODY_TOO_LARGE,
    Code.URL_TOO_LONG,
    Code.HEADERS_TOO_LARGE,
    Code.OVERLOADED,
    Code.DEADLINE_EXCEEDED,
)
_WHO = (
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
_JSON = (
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.MALFORMED_JSON,
    Code.JSON_TOO_DEEP,
    Code.JSON_TOO_MANY_KEYS,
    Code.INVALID_REQUEST,
)
_LIST = (Code.INVALID_REQUEST, Code.INVALID_CURSOR, Code.TENANT_MISMATCH)
_PERMISSION = (Code.NO_BINDING, Code.COMPONENT_NOT_PERMITTED, Code.NOT_THIS_POD)


@dataclass(frozen=True, slots=True)
class Reply:
    """One success: status, what it means, the schema's name (None: no body), headers by name."""

    status: int
    says: str
    schema: str | None = None
    headers: tuple[str, ...] = ()
    media: str = "application/json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    auth: Auth
    replies: tuple[Reply, ...]
    refusals: tuple[Code, ...] = ()
    parameters: tuple[dict[str, Any], ...] = ()
    body: str | None = None
    media: tuple[str, ...] = ("application/json",)

    @property
    def codes(self) -> tuple[Code, ...]:
        """Every code it may refuse with, without repetition."""
        who = () if self.auth == "none" else _WHO
        role = (Code.ROLE_REQUIRED,) if self.auth in {"admin", "service"} else ()
        return tuple(dict.fromkeys((*_EDGE, *who, *role, *self.refusals)))


def _path(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query(name: str, schema: dict[str, Any], says: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": says}


def _header(name: str, schema: dict[str, Any], says: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": says}


_STARTUP_ID = _path("startup_id", schemas.UUID)
_KIND = _path("kind", {"type": "string", "enum": list(schemas.VIEWS)})
_WRITABLE = _path("kind", {"type": "string", "enum": [*schemas.VIEWS, "token-issuers"]})
_KEY = _path("key", {"type": "string", "minLength": 1, "maxLength": schemas.LONGEST_KEY})
_TENANT = _query("tenant", schemas.UUID, "For a cluster-wide admin or observer: whose (D-51).")
_PAGE = (
    _query("limit", {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}, "Most items of one page."),
    _query("cursor", {"type": "string", "maxLength": 1_024}, "`next_cursor` of the page before."),
)
_IF_NONE_MATCH = _header("If-None-Match", {"type": "string"}, "ETags: strong, weak or bare.")
_STARTUP_HEADERS = ("ETag", "MetaGate-Startup-Id", "MetaGate-Startup-Deadline", "Idempotency-Replayed")

ENDPOINTS: Final = (
    Endpoint("GET", "/", "Service and doctrine", "none", (Reply(200, "Who this is.", "Root"),)),
    Endpoint("GET", "/health", "Health of this process alone", "none", (Reply(200, "It answers.", "Health"),)),
    Endpoint("GET", "/livez", "Liveness", "none", (Reply(200, "It lives.", "Live"),)),
    Endpoint("GET", "/readyz", "Readiness (D-52)", "none", (Reply(200, "It is ready.", "Ready"),), (Code.NOT_READY,)),
    Endpoint(
        "GET",
        "/metrics",
        "Prometheus metrics; not here when they have a port of their own",
        "none",
        (Reply(200, "The exposition.", "Text", media="text/plain"),),
        (Code.NOT_FOUND,),
    ),
    Endpoint("GET", "/openapi.json", "This description", "none", (Reply(200, "OpenAPI 3.1.", "Anything"),)),
    Endpoint(
        "GET", "/.well-known/metagate.json", "Discovery", "none", (Reply(200, "Where everything is.", "Discovery"),)
    ),
    Endpoint(
        "POST",
        "/v1/bootstrap",
        "Boot: the Welcome Packet and one OPEN startup receipt",
        "any principal",
        (
            Reply(200, "The Welcome Packet.", "WelcomePacket", _STARTUP_HEADERS),
            Reply(304, "The packet is unchanged; a session was opened all the same (D-02).", None, _STARTUP_HEADERS),
        ),
        (
            *_JSON,
            *_PERMISSION,
            Code.BINDING_INCOMPLETE,
            Code.PRINCIPAL_MISMATCH,
            Code.IDEMPOTENCY_CONFLICT,
            Code.PACKET_REFUSED,
        ),
        (
            _IF_NONE_MATCH,
            _header(
                "Idempotency-Key",
                {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
                "The same key within 24 hours gives the same answer (D-03, D-41).",
            ),
        ),
        body="BootstrapRequest",
    ),
    Endpoint(
        "POST",
        "/v1/startup/ready",
        "The component reports READY",
        "any principal",
        (Reply(200, "Recorded; the first report stays.", "Acknowledgement"),),
        (*_JSON, Code.NOT_YOURS, Code.NOT_THIS_POD, Code.SESSION_NOT_FOUND, Code.INVALID_STATE),
        body="ReadyRequest",
    ),
    Endpoint(
        "POST",
        "/v1/startup/failed",
        "The component reports FAILED",
        "any principal",
        (Reply(200, "Recorded; the first report stays.", "Acknowledgement"),),
        (*_JSON, Code.NOT_YOURS, Code.NOT_THIS_POD, Code.SESSION_NOT_FOUND, Code.INVALID_STATE),
        body="FailedRequest",
    ),
    Endpoint(
        "GET",
        "/v1/startup/{startup_id}",
        "One startup session: the caller's own, or any of the tenant for admin and observer",
        "any principal",
        (Reply(200, "The session.", "Startup"),),
        (Code.INVALID_REQUEST, Code.TENANT_MISMATCH, Code.NOT_YOURS, Code.SESSION_NOT_FOUND),
        (_STARTUP_ID, _TENANT),
    ),
    Endpoint(
        "GET",
        "/v1/startup/{startup_id}/packet",
        "The packet as of now, for the session's owner (D-47)",
        "any principal",
        (Reply(200, "The packet.", "WelcomePacket", ("ETag",)), Reply(304, "Unchanged.", None, ("ETag",))),
        (
            Code.INVALID_REQUEST,
            *_PERMISSION,
            Code.NOT_YOURS,
            Code.SESSION_NOT_FOUND,
            Code.BINDING_INCOMPLETE,
            Code.PACKET_REFUSED,
        ),
        (_STARTUP_ID, _IF_NONE_MATCH),
    ),
    Endpoint(
        "GET",
        "/v1/startups",
        "Startup sessions, newest first: the caller's own, or all of the tenant for admin and observer",
        "any principal",
        (Reply(200, "A page.", "StartupPage"),),
        _LIST,
        (
            _query(
                "status",
                {"type": "string", "enum": ["OPEN", "READY", "FAILED", "overdue"]},
                "As it is shown: only these.",
            ),
            _query("component_key", {"type": "string", "minLength": 1, "maxLength": 253}, "Only this component."),
            _TENANT,
            *_PAGE,
        ),
    ),
    Endpoint(
        "GET",
        "/v1/summary",
        "Sessions by state, the oldest open one, overdue ones: the caller's, or the tenant's for admin and observer",
        "any principal",
        (Reply(200, "Counts, derived now.", "Summary"),),
        (Code.INVALID_REQUEST, Code.TENANT_MISMATCH),
        (_TENANT,),
    ),
    Endpoint(
        "GET",
        "/v1/topology",
        "The tenant's principals, components, services and who uses them (D-49)",
        "any principal",
        (Reply(200, "The topology, with its revision.", "Topology"),),
        (Code.INVALID_REQUEST, Code.TENANT_MISMATCH),
        (_TENANT,),
    ),
    Endpoint(
        "GET",
        "/v1/policy-profiles/{key}",
        "The snapshotted ruleset",
        "any principal",
        (Reply(200, "Ruleset and policy_hash.", "PolicyProfile"),),
        (Code.INVALID_REQUEST, Code.TENANT_MISMATCH, Code.NOT_FOUND),
        (_KEY, _TENANT),
    ),
    Endpoint(
        "POST",
        "/v1/introspect",
        "Who a credential is, for other gates (RFC 7662, D-48)",
        "service",
        (Reply(200, "Active with its principal, or only `active: false`.", "Introspection"),),
        _JSON,
        body="IntrospectionRequest",
        media=("application/x-www-form-urlencoded", "application/json"),
    ),
    Endpoint(
        "GET",
        "/v1/admin/explain/principal/{key}",
        "Why the principal's packet says what it says: for every leaf layer, object and generation",
        "admin",
        (Reply(200, "Every leaf of the packet, and where it comes from.", "Explanation"),),
        (Code.INVALID_REQUEST, Code.TENANT_MISMATCH, Code.NOT_FOUND, Code.BINDING_INCOMPLETE, Code.NOT_REBUILT),
        (_KEY, _TENANT),
    ),
    Endpoint(
        "GET",
        "/v1/admin/explain/startup/{startup_id}",
        "The same of the packet a session was given, rebuilt from its revision and compared to the byte",
        "admin",
        (Reply(200, "Every leaf of the packet, and where it comes from.", "Explanation"),),
        (
            Code.INVALID_REQUEST,
            Code.TENANT_MISMATCH,
            Code.SESSION_NOT_FOUND,
            Code.BINDING_INCOMPLETE,
            Code.NOT_REBUILT,
        ),
        (_STARTUP_ID, _TENANT),
    ),
    Endpoint(
        "GET",
        "/v1/admin/history",
        "What changed, newest first: of the tenant, or of one object (EXT-04)",
        "admin",
        (Reply(200, "A page.", "HappeningPage"),),
        _LIST,
        (
            _query(
                "object",
                {
                    "type": "string",
                    "maxLength": 280,
                    "pattern": "^(principal|profile|manifest|binding|policy-profile)/[a-z0-9][-.a-z0-9]{0,252}$",
                },
                "Only this one; of a principal also what bound it.",
            ),
            _TENANT,
            *_PAGE,
        ),
    ),
    Endpoint(
        "GET",
        "/v1/admin/history/objects",
        "The valid declared objects as they were at a revision, or are now",
        "admin",
        (Reply(200, "A page; it may be short, or empty, and have a next one.", "DeclaredPage"),),
        (*_LIST, Code.NOT_FOUND),
        (
            _query("revision", {"type": "integer", "minimum": 1, "maximum": 2**53 - 1}, "Left out: the newest."),
            _query("key_digests", {"type": "boolean", "default": False}, "With the digests of API keys (EXT-10)."),
            _TENANT,
            *_PAGE,
        ),
    ),
    Endpoint(
        "POST",
        "/v1/admin/plan",
        "What applying resources would do; nothing is written",
        "admin",
        (Reply(200, "The plan.", "Plan"),),
        (*_JSON, Code.TENANT_MISMATCH, Code.INVALID_RESOURCE),
        (_TENANT,),
        body="PlanRequest",
    ),
    Endpoint(
        "GET",
        "/v1/admin/{kind}",
        "What the database serves of a kind, with its revision",
        "admin",
        (Reply(200, "A page.", "ItemPage"),),
        (*_LIST, Code.NOT_FOUND),
        (_KIND, _TENANT, *_PAGE),
    ),
    Endpoint(
        "GET",
        "/v1/admin/{kind}/{key}",
        "One served object",
        "admin",
        (Reply(200, "The object.", "Item"),),
        (Code.INVALID_REQUEST, Code.TENANT_MISMATCH, Code.NOT_FOUND),
        (_KIND, _KEY, _TENANT),
    ),
    Endpoint(
        "POST",
        "/v1/admin/{kind}",
        "Declare a resource as a file (standalone; in a cluster 405 names the custom resource)",
        "admin",
        (Reply(201, "Declared.", "Declared"), Reply(200, "Replaced.", "Declared")),
        (
            *_JSON,
            Code.DECLARED_BY_RESOURCE,
            Code.TENANT_MISMATCH,
            Code.NOT_FOUND,
            Code.INVALID_RESOURCE,
            Code.FORBIDDEN_KEYS,
        ),
        (_WRITABLE,),
        body="Resource",
    ),
    Endpoint(
        "DELETE",
        "/v1/admin/{kind}/{key}",
        "Remove a declared file (standalone; in a cluster 405 names the custom resource)",
        "admin",
        (Reply(204, "Removed."),),
        (Code.INVALID_REQUEST, Code.DECLARED_BY_RESOURCE, Code.NOT_FOUND),
        (_WRITABLE, _KEY),
    ),
)


def _patterns() -> tuple[tuple[re.Pattern[str], str, int], ...]:
    """`{key}` may hold anything but a slash; the enumerated kinds are what the routes themselves check."""
    return tuple((compile_path(one.path)[0], one.method, one.path.count("{")) for one in ENDPOINTS)


_PATTERNS: Final = _patterns()


def methods(path: str) -> tuple[str, ...]:
    """What a path takes; empty when there is nothing at it. `/v1/admin/plan` is itself, and no `{kind}`."""
    found = [(free, method) for pattern, method, free in _PATTERNS if pattern.match(path)]
    least = min((free for free, _ in found), default=0)
    return tuple(dict.fromkeys(method for free, method in found if free == least))
