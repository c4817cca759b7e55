"""Every endpoint of MetaGate, once: what it is for, who may call it, what it answers. Requests are routed, OpenAPI and
docs/api.md are written from this table.
"""

from typing import Final

from legivellum.gate.interview import INTERVIEW_ENDPOINT
from legivellum.http.endpoints import (
    JSON_CODES,
    Endpoint,
    Reply,
    in_header,
    in_path,
    in_query,
)
from metagate_api import schemas
from metagate_api.problem_codes import Code

_LIST = (Code.INVALID_REQUEST, Code.INVALID_CURSOR, Code.TENANT_MISMATCH)
_PERMISSION = (Code.NO_BINDING, Code.COMPONENT_NOT_PERMITTED, Code.NOT_THIS_POD)

_STARTUP_ID = in_path("startup_id", schemas.UUID)
_KIND = in_path("kind", {"type": "string", "enum": list(schemas.VIEWS)})
_WRITABLE = in_path("kind", {"type": "string", "enum": [*schemas.VIEWS, "token-issuers"]})
_KEY = in_path("key", {"type": "string", "minLength": 1, "maxLength": schemas.MAX_KEY_LENGTH})
_PROBLEMATA = in_path("problemata_id", {"type": "string", "minLength": 1, "maxLength": schemas.MAX_KEY_LENGTH})
_INSTANCE = in_path("instance", schemas.COMPONENT)
_TENANT = in_query("tenant", schemas.UUID, "For a cluster-wide admin or observer: whose (D-51).")
_PAGE = (
    in_query("limit", {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}, "Most items of one page."),
    in_query("cursor", {"type": "string", "maxLength": 1_024}, "`next_cursor` of the page before."),
)
_IF_NONE_MATCH = in_header("If-None-Match", {"type": "string"}, "ETags: strong, weak or bare.")
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
            *JSON_CODES,
            *_PERMISSION,
            Code.BINDING_INCOMPLETE,
            Code.PRINCIPAL_MISMATCH,
            Code.IDEMPOTENCY_CONFLICT,
            Code.PACKET_REFUSED,
        ),
        (
            _IF_NONE_MATCH,
            in_header(
                "Idempotency-Key",
                {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
                "The same key within 24 hours gives the same answer (D-03, D-41).",
            ),
        ),
        body="BootstrapRequest",
        keeps_deadline=True,
    ),
    Endpoint(
        "POST",
        "/v1/startup/ready",
        "The component reports READY",
        "any principal",
        (Reply(200, "Recorded; the first report stays.", "Acknowledgement"),),
        (*JSON_CODES, Code.NOT_YOURS, Code.NOT_THIS_POD, Code.SESSION_NOT_FOUND, Code.INVALID_STATE),
        body="ReadyRequest",
        keeps_deadline=True,
    ),
    Endpoint(
        "POST",
        "/v1/startup/failed",
        "The component reports FAILED",
        "any principal",
        (Reply(200, "Recorded; the first report stays.", "Acknowledgement"),),
        (*JSON_CODES, Code.NOT_YOURS, Code.NOT_THIS_POD, Code.SESSION_NOT_FOUND, Code.INVALID_STATE),
        body="FailedRequest",
        keeps_deadline=True,
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
            in_query(
                "status",
                {"type": "string", "enum": ["OPEN", "READY", "FAILED", "overdue"]},
                "As it is shown: only these.",
            ),
            in_query("component_key", {"type": "string", "minLength": 1, "maxLength": 253}, "Only this component."),
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
    INTERVIEW_ENDPOINT,
    Endpoint(
        "GET",
        "/v1/topology",
        "The tenant's principals, components, services and who uses them (D-49)",
        "any principal",
        (Reply(200, "The topology of one page of principals, with its revision.", "Topology"),),
        (Code.INVALID_REQUEST, Code.INVALID_CURSOR, Code.TENANT_MISMATCH),
        (
            _TENANT,
            in_query(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": 2_000, "default": 2_000},
                "Most principals of one page; services are those that they use.",
            ),
            _PAGE[1],
        ),
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
        "GET",
        "/v1/problematas",
        "What agents may ask of the tenant, and which gateways are there",
        "any principal",
        (Reply(200, "A page.", "ProblemataPage"),),
        _LIST,
        (_TENANT, *_PAGE),
    ),
    Endpoint(
        "GET",
        "/v1/problematas/{problemata_id}",
        "One Problemata with its instances; available while one said ok within 45 seconds",
        "any principal",
        (Reply(200, "The Problemata.", "Problemata"),),
        (Code.INVALID_REQUEST, Code.TENANT_MISMATCH, Code.NOT_FOUND),
        (_PROBLEMATA, _TENANT),
    ),
    Endpoint(
        "PUT",
        "/v1/problematas/{problemata_id}/instances/{instance}",
        "A gateway says that it is there: at its start, and every 15 seconds",
        "any principal",
        (Reply(204, "Recorded."),),
        (*JSON_CODES, Code.NOT_FOUND, Code.NOT_ITS_GATEWAY, Code.OTHER_VERSION),
        (_PROBLEMATA, _INSTANCE),
        body="Announcement",
    ),
    Endpoint(
        "DELETE",
        "/v1/problematas/{problemata_id}/instances/{instance}",
        "A gateway stops",
        "any principal",
        (Reply(204, "Not there any more."),),
        (Code.INVALID_REQUEST, Code.NOT_FOUND, Code.NOT_ITS_GATEWAY),
        (_PROBLEMATA, _INSTANCE),
    ),
    Endpoint(
        "POST",
        "/v1/introspect",
        "Who a credential is, for other gates (RFC 7662, D-48)",
        "service",
        (Reply(200, "Active with its principal, or only `active: false`.", "Introspection"),),
        JSON_CODES,
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
            in_query(
                "object",
                {
                    "type": "string",
                    "maxLength": 280,
                    "pattern": schemas.HISTORY_OBJECT,
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
            in_query("revision", {"type": "integer", "minimum": 1, "maximum": 2**53 - 1}, "Left out: the newest."),
            in_query("key_digests", {"type": "boolean", "default": False}, "With the digests of API keys (EXT-10)."),
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
        (*JSON_CODES, Code.TENANT_MISMATCH, Code.INVALID_RESOURCE),
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
            *JSON_CODES,
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
