"""The closed list of error codes (docs/errors.md, D-56).

Every refusal that leaves a gate carries exactly one of these. A code belongs to one status and one title, so that
a caller can switch on the code alone; `docs/errors.md` shows the same table and a test compares the two.
"""

from enum import StrEnum
from typing import NamedTuple


class Code(StrEnum):
    """Names are part of the wire contract: they may be added, never renamed."""

    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    MALFORMED_JSON = "MALFORMED_JSON"
    SEVERAL_CREDENTIALS = "SEVERAL_CREDENTIALS"
    CREDENTIAL_MISSING = "CREDENTIAL_MISSING"
    CREDENTIAL_INVALID = "CREDENTIAL_INVALID"
    CREDENTIAL_EXPIRED = "CREDENTIAL_EXPIRED"
    CREDENTIAL_REVOKED = "CREDENTIAL_REVOKED"
    PRINCIPAL_UNKNOWN = "PRINCIPAL_UNKNOWN"
    PRINCIPAL_SUSPENDED = "PRINCIPAL_SUSPENDED"
    NO_BINDING = "NO_BINDING"
    COMPONENT_NOT_PERMITTED = "COMPONENT_NOT_PERMITTED"
    NOT_YOURS = "NOT_YOURS"
    NOT_THIS_POD = "NOT_THIS_POD"
    ROLE_REQUIRED = "ROLE_REQUIRED"
    TENANT_MISMATCH = "TENANT_MISMATCH"
    EMITTER_MISMATCH = "EMITTER_MISMATCH"
    MAY_NOT_EMIT = "MAY_NOT_EMIT"
    NOT_CUSTODIAN = "NOT_CUSTODIAN"
    SIGNATURE_REFUSED = "SIGNATURE_REFUSED"
    NOT_FOUND = "NOT_FOUND"
    SESSION_NOT_FOUND = "SESSION_NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    DECLARED_BY_RESOURCE = "DECLARED_BY_RESOURCE"
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"
    BINDING_INCOMPLETE = "BINDING_INCOMPLETE"
    NOT_REBUILT = "NOT_REBUILT"
    PRINCIPAL_MISMATCH = "PRINCIPAL_MISMATCH"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    INVALID_STATE = "INVALID_STATE"
    RECEIPT_CONFLICT = "RECEIPT_CONFLICT"
    DEDUPE_CONFLICT = "DEDUPE_CONFLICT"
    OBLIGATION_NOT_ACCEPTED = "OBLIGATION_NOT_ACCEPTED"
    OBLIGATION_ALREADY_TERMINATED = "OBLIGATION_ALREADY_TERMINATED"
    TASK_MISMATCH = "TASK_MISMATCH"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    URL_TOO_LONG = "URL_TOO_LONG"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    INVALID_REQUEST = "INVALID_REQUEST"
    INVALID_RECEIPT = "INVALID_RECEIPT"
    RECIPIENT_UNKNOWN = "RECIPIENT_UNKNOWN"
    INVALID_CURSOR = "INVALID_CURSOR"
    INVALID_RESOURCE = "INVALID_RESOURCE"
    FORBIDDEN_KEYS = "FORBIDDEN_KEYS"
    JSON_TOO_DEEP = "JSON_TOO_DEEP"
    JSON_TOO_MANY_KEYS = "JSON_TOO_MANY_KEYS"
    RATE_LIMITED = "RATE_LIMITED"
    HEADERS_TOO_LARGE = "HEADERS_TOO_LARGE"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    OVERLOADED = "OVERLOADED"
    PACKET_REFUSED = "PACKET_REFUSED"
    NOT_READY = "NOT_READY"
    INTERNAL_ERROR = "INTERNAL_ERROR"


class Meaning(NamedTuple):
    """What one code says: the HTTP status it always comes with, its title, and when it is sent."""

    status: int
    title: str
    when: str


MEANINGS: dict[Code, Meaning] = {
    Code.MALFORMED_REQUEST: Meaning(400, "Malformed request", "The bytes are not one unambiguous HTTP/1.1 request."),
    Code.MALFORMED_JSON: Meaning(
        400,
        "Malformed JSON",
        "The body is not strict JSON in UTF-8: syntax, duplicate members, NaN, NUL, lone surrogates.",
    ),
    Code.SEVERAL_CREDENTIALS: Meaning(
        400, "Several credentials", "More than one credential in one request; none is picked (D-32)."
    ),
    Code.CREDENTIAL_MISSING: Meaning(401, "Credential missing", "Neither an API key nor a Bearer token was sent."),
    Code.CREDENTIAL_INVALID: Meaning(401, "Credential invalid", "The API key or token is not one this gate believes."),
    Code.CREDENTIAL_EXPIRED: Meaning(401, "Credential expired", "The API key or token was good once."),
    Code.CREDENTIAL_REVOKED: Meaning(
        401, "Credential revoked", "What the credential rests on was withdrawn since it was verified (D-45)."
    ),
    Code.PRINCIPAL_UNKNOWN: Meaning(403, "Principal unknown", "The token is genuine; no Principal names its subject."),
    Code.PRINCIPAL_SUSPENDED: Meaning(403, "Principal suspended", "The Principal is declared `suspended: true`."),
    Code.NO_BINDING: Meaning(403, "No binding", "The principal has no active PrincipalBinding."),
    Code.COMPONENT_NOT_PERMITTED: Meaning(
        403, "Component not permitted", "The binding's `components` do not cover the component_key (D-16)."
    ),
    Code.NOT_YOURS: Meaning(403, "Not yours", "The startup session belongs to another principal of the same tenant."),
    Code.NOT_THIS_POD: Meaning(
        403, "Not this pod", "The session was opened with another pod's token; only that pod may report (D-43)."
    ),
    Code.ROLE_REQUIRED: Meaning(403, "Role required", "The principal's type or scope does not permit this endpoint."),
    Code.TENANT_MISMATCH: Meaning(
        403, "Tenant mismatch", "The request names a tenant that is not the caller's (D-07)."
    ),
    Code.EMITTER_MISMATCH: Meaning(
        403, "Emitter mismatch", "A receipt names an emitter or owner that is not the credential's to name (D-07)."
    ),
    Code.MAY_NOT_EMIT: Meaning(
        403, "May not emit", "The principal's role may not emit this kind and phase of receipt (INV-045, INV-122)."
    ),
    Code.NOT_CUSTODIAN: Meaning(403, "Not custodian", "Somebody else has custody of the obligation (D-08, D-35)."),
    Code.SIGNATURE_REFUSED: Meaning(
        403, "Signature refused", "The receipt's signature is missing where it is required, or does not hold (D-28)."
    ),
    Code.NOT_FOUND: Meaning(404, "Not found", "No such path, or no such object in this tenant."),
    Code.SESSION_NOT_FOUND: Meaning(404, "Session not found", "No such startup session in this tenant."),
    Code.METHOD_NOT_ALLOWED: Meaning(405, "Method not allowed", "The path exists, this method on it does not."),
    Code.DECLARED_BY_RESOURCE: Meaning(
        405, "Declared by resource", "In a cluster the custom resource named in `detail` is the way to write (D-12)."
    ),
    Code.REQUEST_TIMEOUT: Meaning(408, "Request timeout", "Header or body did not arrive in time."),
    Code.NOT_REBUILT: Meaning(
        409, "Not rebuilt", "What was declared does not give the packet that was served, so it cannot be explained."
    ),
    Code.BINDING_INCOMPLETE: Meaning(
        409, "Binding incomplete", "The binding refers to a Profile or Manifest that is missing or invalid."
    ),
    Code.PRINCIPAL_MISMATCH: Meaning(
        409, "Principal mismatch", "`principal_key` in the body is not who the credential says (INV-006)."
    ),
    Code.IDEMPOTENCY_CONFLICT: Meaning(
        409, "Idempotency conflict", "The Idempotency-Key was used for another component or principal (D-03)."
    ),
    Code.INVALID_STATE: Meaning(409, "Invalid state", "The startup session already ended in the other state."),
    Code.RECEIPT_CONFLICT: Meaning(409, "Receipt conflict", "Another receipt is stored under this receipt_id."),
    Code.DEDUPE_CONFLICT: Meaning(409, "Dedupe conflict", "The emitter used this dedupe_key for another receipt."),
    Code.OBLIGATION_NOT_ACCEPTED: Meaning(409, "Obligation not accepted", "Nobody has accepted the obligation yet."),
    Code.OBLIGATION_ALREADY_TERMINATED: Meaning(
        409, "Obligation already terminated", "The obligation was completed; what is over stays over (EXT-12)."
    ),
    Code.TASK_MISMATCH: Meaning(409, "Task mismatch", "The obligation belongs to another task than the receipt says."),
    Code.BODY_TOO_LARGE: Meaning(413, "Body too large", "The body exceeds the limit of bytes."),
    Code.URL_TOO_LONG: Meaning(414, "URL too long", "The request target exceeds the limit of bytes."),
    Code.UNSUPPORTED_MEDIA_TYPE: Meaning(415, "Unsupported media type", "The body is not `application/json`."),
    Code.INVALID_REQUEST: Meaning(
        422, "Invalid request", "A field, parameter or header is missing, of the wrong type or out of range."
    ),
    Code.INVALID_RECEIPT: Meaning(
        422, "Invalid receipt", "The receipt breaks its rules; `detail` names every bad field."
    ),
    Code.RECIPIENT_UNKNOWN: Meaning(
        422, "Recipient unknown", "The receipt gives custody to nobody: no principal of the tenant, no gate (D-71)."
    ),
    Code.INVALID_CURSOR: Meaning(422, "Invalid cursor", "The cursor was not issued by this endpoint."),
    Code.INVALID_RESOURCE: Meaning(
        422, "Invalid resource", "The declared resource breaks a rule; `detail` names the path."
    ),
    Code.FORBIDDEN_KEYS: Meaning(422, "Forbidden keys", "The declared resource contains a forbidden key (D-17)."),
    Code.JSON_TOO_DEEP: Meaning(422, "JSON too deep", "The body nests deeper than the limit."),
    Code.JSON_TOO_MANY_KEYS: Meaning(422, "JSON has too many keys", "The body has more members than the limit."),
    Code.RATE_LIMITED: Meaning(429, "Rate limited", "This principal asks faster than its token bucket refills."),
    Code.HEADERS_TOO_LARGE: Meaning(431, "Headers too large", "Too many header fields, or too many bytes of them."),
    Code.UNAVAILABLE: Meaning(503, "Unavailable", "The database cannot be reached or refused; nothing was answered."),
    Code.DEADLINE_EXCEEDED: Meaning(
        503, "Deadline exceeded", "No answer within the deadline. The session may exist: retry with the same key."
    ),
    Code.OVERLOADED: Meaning(503, "Overloaded", "The bounded queue or the connection limit is full."),
    Code.PACKET_REFUSED: Meaning(
        503, "Packet refused", "The stored packet failed its own check and is not served (D-38)."
    ),
    Code.NOT_READY: Meaning(503, "Not ready", "The database was not reached yet, or its schema does not fit (D-52)."),
    Code.INTERNAL_ERROR: Meaning(500, "Internal error", "A defect of the gate. Never sent on purpose."),
}
