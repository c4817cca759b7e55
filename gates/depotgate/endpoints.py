"""Every endpoint of DepotGate, once: requests are routed and OpenAPI is written from this table."""

from __future__ import annotations

from typing import Final

from depotgate.artifact import ROLES
from depotgate.problem_codes import Code
from depotgate.settings import LARGEST_BYTES, TRANSFER_SECONDS
from depotgate.transfers import BYTES_PER_SECOND
from legivellum.gate.query import CURSOR_QUERY, LIMIT_QUERY, TENANT_QUERY, page_schema
from legivellum.http.endpoints import ANY_PRINCIPAL, Endpoint, Reply, Schema, in_header, in_path, in_query
from legivellum.http.openapi import object_schema

_ULID: Final[Schema] = {"type": "string", "pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{25}$"}
_TASK_ID: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 200}
_ROLE: Final[Schema] = {"type": "string", "enum": list(ROLES)}
_POINTER: Final = in_path("pointer", {"type": "string", "pattern": "^depot:[0-7][0-9A-HJKMNP-TV-Z]{25}:[0-9a-f]{64}$"})
_LEASE: Final = in_header("Legivellum-Lease", _ULID, "The lease of the task, for outputs and supporting artifacts.")
_CONTENT_DIGEST: Final = in_header(
    "Content-Digest", {"type": "string"}, "`sha-256=:…:` (RFC 9530): other bytes are refused."
)
_READ_HEADERS: Final = (
    in_header("Range", {"type": "string"}, "One range of bytes."),
    in_header("If-Range", {"type": "string"}, "The ETag for which the range is meant."),
    in_header("If-None-Match", {"type": "string"}, "ETags that the client has."),
)
_READING: Final = (Code.INVALID_REQUEST, Code.TENANT_MISMATCH, Code.NOT_FOUND)

ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/artifacts",
        "Keep the bytes of the body; nothing can change them afterwards.",
        ANY_PRINCIPAL,
        (
            Reply(201, "Kept, with its receipt in the same commit.", "Deposited", ("Location",)),
            Reply(200, "The same artifact_id with the same content again.", "Deposited", ("Idempotency-Replayed",)),
        ),
        (
            Code.INVALID_REQUEST,
            Code.UNSUPPORTED_MEDIA_TYPE,
            Code.ROLE_NOT_PERMITTED,
            Code.LEASE_REQUIRED,
            Code.LEASE_AUTHORITY,
            Code.LEASE_LOST,
            Code.ARTIFACT_CONFLICT,
            Code.ARTIFACT_RETIRED,
            Code.CAUSE_UNKNOWN,
            Code.DIGEST_MISMATCH,
            Code.STORE_FULL,
        ),
        (
            {**in_query("role", _ROLE, "What the artifact is for."), "required": True},
            in_query("task_id", _TASK_ID, "The task that it belongs to; under a lease it may be left out."),
            in_query("caused_by_receipt_id", _ULID, "A receipt of that task which led to it."),
            in_query("artifact_id", _ULID, "Makes a retry safe: the same content again is answered as before."),
            in_query("name", {"type": "string", "minLength": 1, "maxLength": 255}, "A file name, for people."),
            _LEASE,
            _CONTENT_DIGEST,
        ),
        body="Bytes",
        media=("application/octet-stream",),
        body_bytes=LARGEST_BYTES,
        body_seconds=TRANSFER_SECONDS,
        keeps_deadline=True,
        name="deposit",
    ),
    Endpoint(
        "GET",
        "/artifacts",
        "Artifacts of the tenant, the newest first.",
        ANY_PRINCIPAL,
        (Reply(200, "A page.", "Manifests"),),
        (Code.INVALID_REQUEST, Code.INVALID_CURSOR, Code.TENANT_MISMATCH),
        (
            in_query("task_id", _TASK_ID, "Only of this task."),
            in_query("role", _ROLE, "Only of this role."),
            TENANT_QUERY,
            LIMIT_QUERY,
            CURSOR_QUERY,
        ),
        name="listArtifacts",
    ),
    Endpoint(
        "GET",
        "/artifacts/{pointer}",
        "The bytes, whole and checked, or a range.",
        ANY_PRINCIPAL,
        (
            Reply(200, "The bytes.", "Bytes", ("ETag", "Repr-Digest"), "application/octet-stream"),
            Reply(206, "A range, which is not checked.", "Bytes", ("Content-Range",), "application/octet-stream"),
            Reply(304, "The client has them."),
        ),
        (*_READING, Code.ARTIFACT_RETIRED, Code.RANGE_NOT_SATISFIABLE),
        (_POINTER, TENANT_QUERY, *_READ_HEADERS),
        reader_rate=BYTES_PER_SECOND,
        keeps_deadline=True,
        name="readArtifact",
    ),
    Endpoint(
        "GET",
        "/artifacts/{pointer}/manifest",
        "What is known of an artifact, also after its bytes were retired.",
        ANY_PRINCIPAL,
        (Reply(200, "It.", "Manifest"),),
        _READING,
        (_POINTER, TENANT_QUERY),
        name="readManifest",
    ),
)

_TEXT: Final[Schema] = {"type": "string"}
_TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
_COMMON: Final[dict[str, Schema]] = {
    "pointer": _TEXT,
    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "size_bytes": {"type": "integer", "minimum": 0},
    "media_type": _TEXT,
    "role": _ROLE,
    "task_id": _TEXT_OR_NULL,
    "stored_at": {"type": "string", "format": "date-time"},
    "receipt_id": _ULID,
}


SCHEMAS: Final[dict[str, Schema]] = {
    "Bytes": {"type": "string", "format": "binary"},
    "Deposited": object_schema({**_COMMON, "artifact_id": _ULID, "location": _TEXT}, closed=True),
    "Manifest": object_schema({
        **_COMMON,
        "name": _TEXT_OR_NULL,
        "depositor": _TEXT,
        "lease_number": {"type": ["integer", "null"], "minimum": 1},
        "state": {"type": "string", "enum": ["kept", "retired"]},
    }, closed=True),
    "Manifests": page_schema("Manifest"),
}  # fmt: skip
