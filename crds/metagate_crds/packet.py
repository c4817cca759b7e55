"""The Welcome Packet: what is shared between principals, and the few fields that are each request's own.

The shared body is canonical JSON with exactly the keys of `SHARED_FIELDS`; it is stored once per digest. A served
packet is that body with the request's fields spliced in front: the body is not parsed on the way.
"""

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from metagate_crds import canonical_json
from metagate_crds.rules.forbidden_keys import holds_forbidden_key

__all__ = [
    "FOLLOWUP",
    "MAX_BYTES",
    "SHARED_FIELDS",
    "BodyDefect",
    "RequestFields",
    "assemble",
    "check_body",
    "etag",
    "splice",
]

MAX_BYTES: Final = 256 * 1024
FOLLOWUP: Final = ("POST /v1/startup/ready", "POST /v1/startup/failed")

_FOLLOWUP: Final = json.dumps(FOLLOWUP, separators=(",", ":"))
_quoted: Final = json.JSONEncoder(ensure_ascii=False).encode

# In this order they are RFC 8785's, so that canonical sections concatenate to a canonical body.
SHARED_FIELDS: Final = (
    "capabilities",
    "environment",
    "manifest",
    "memory_map",
    "policy",
    "polling",
    "profile",
    "required_env",
    "schemas",
    "services",
)


class BodyDefect(StrEnum):
    """Why a stored body must not be served."""

    DIGEST_MISMATCH = "its bytes do not have this digest"
    NOT_A_PACKET = "it is not the shared body of a packet"
    FORBIDDEN_KEY = "it holds a forbidden key"


@dataclass(frozen=True, slots=True)
class RequestFields:
    """The fields of one answer. Times are RFC 3339 strings; `digest` is the shared body's."""

    packet_id: str
    issued_at: str
    principal_key: str
    component_key: str
    startup_id: str
    deadline_at: str
    revision: int
    digest: str
    compiled_at: str


def assemble(sections: dict[str, bytes]) -> bytes:
    """The shared body of canonical sections, itself canonical."""
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), sections[name]) for name in SHARED_FIELDS) + b"}"


def splice(body: bytes, request: RequestFields) -> bytes:
    """The packet as it is served: 17 keys, `body` untouched. `body` is a checked shared body.

    Written out: an encoder would take a twelfth of a boot's time. Only the two names can hold what JSON escapes.
    """
    own = (
        f'{{"packet_id":"{request.packet_id}",'
        f'"packet_etag":"{etag(request.digest, request.principal_key, request.component_key)}",'
        f'"issued_at":"{request.issued_at}",'
        f'"principal_key":{_quoted(request.principal_key)},'
        f'"component_key":{_quoted(request.component_key)},'
        f'"startup":{{"startup_id":"{request.startup_id}","status":"OPEN","deadline_at":"{request.deadline_at}",'
        f'"followup":{_FOLLOWUP}}},'
        f'"snapshot":{{"revision":{request.revision},"digest":"{request.digest}",'
        f'"compiled_at":"{request.compiled_at}"}},'
    )
    return own.encode() + body[1:]


def check_body(body: bytes, digest: str) -> BodyDefect | None:
    """What is wrong with a stored body, None when it may be served. Once per digest is enough (D-38, INV-032)."""
    if canonical_json.digest(body) != digest:
        return BodyDefect.DIGEST_MISMATCH
    try:
        packet = json.loads(body)
    except (ValueError, RecursionError):
        return BodyDefect.NOT_A_PACKET
    if not isinstance(packet, dict) or tuple(packet) != SHARED_FIELDS:
        return BodyDefect.NOT_A_PACKET
    return BodyDefect.FORBIDDEN_KEY if holds_forbidden_key(packet) else None


def etag(packet_digest: str, principal_key: str, component_key: str) -> str:
    """`packet_etag`: names one packet as one component of one principal sees it (D-38)."""
    return hashlib.sha256(f"{packet_digest}\n{principal_key}\n{component_key}".encode()).hexdigest()
