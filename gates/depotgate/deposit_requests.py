"""What the head of `POST /artifacts` says, before a byte of the body is read. Nothing of it is believed of the content:
a media type is checked for its form and never for what the bytes are (DP-10).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from depotgate.artifact import ROLES, Role
from depotgate.problem_codes import Code
from legivellum.gate.query import query_parameters
from legivellum.http.exchange import Exchange, too_large
from legivellum.http.problems import refuse

DEFAULT_MEDIA_TYPE: Final = "application/octet-stream"
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE: Final = re.compile(
    rf'{_WORD}/{_WORD}(?:[ \t]*;[ \t]*{_WORD}=(?:{_WORD}|"[\x20\x21\x23-\x5b\x5d-\x7e]*"))*\Z'
)
_LONGEST_MEDIA_TYPE: Final = 200
_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")
_DIGEST: Final = re.compile(rf"\s*({_WORD})\s*=\s*:([A-Za-z0-9+/=]*):\s*\Z")
_LONGEST: Final = {"task_id": 200, "name": 255}


class DepositHead(NamedTuple):
    role: Role
    media_type: str
    task_id: str | None
    caused_by_receipt_id: str | None
    artifact_id: str | None
    name: str | None
    lease_id: str | None
    digests: frozenset[str]
    """The SHA-256 that the client announces, in hex; nothing: it announces none."""


def read_head(exchange: Exchange, *, limit: int) -> DepositHead:
    """Raises INVALID_REQUEST (422), MALFORMED_REQUEST (400), UNSUPPORTED_MEDIA_TYPE (415), BODY_TOO_LARGE (413)."""
    parameters = query_parameters(exchange, "role", "task_id", "caused_by_receipt_id", "artifact_id", "name")
    role = parameters.get("role")
    if role not in ROLES:
        raise refuse(Code.INVALID_REQUEST, f"role: must be one of {', '.join(ROLES)}.")
    for name, longest in _LONGEST.items():
        if len(parameters.get(name, "").encode()) > longest:
            raise refuse(Code.INVALID_REQUEST, f"{name}: must not be longer than {longest} bytes.")
    head = DepositHead(
        role=role,
        media_type=_media_type(exchange),
        task_id=parameters.get("task_id"),
        caused_by_receipt_id=_ulid(parameters, "caused_by_receipt_id"),
        artifact_id=_ulid(parameters, "artifact_id"),
        name=parameters.get("name"),
        lease_id=_lease_id(exchange),
        digests=_digests(exchange),
    )
    if head.caused_by_receipt_id is not None and head.task_id is None:
        raise refuse(Code.INVALID_REQUEST, "caused_by_receipt_id: name its task_id too.")
    announced = exchange.header(b"content-length")
    if announced is not None and int(announced) > limit:
        raise too_large(limit)
    return head


def _ulid(parameters: Mapping[str, str], name: str) -> str | None:
    text = parameters.get(name)
    if text is not None and not _ULID.match(text):
        raise refuse(Code.INVALID_REQUEST, f"{name}: must be a ULID in upper case.")
    return text


def _lease_id(exchange: Exchange) -> str | None:
    value = exchange.header(b"legivellum-lease")
    text = None if value is None else value.decode("latin-1")
    if text is not None and not _ULID.match(text):
        raise refuse(Code.INVALID_REQUEST, "Legivellum-Lease: must be the id of a lease.")
    return text


def _media_type(exchange: Exchange) -> str:
    if exchange.header(b"content-encoding") is not None:
        raise refuse(Code.UNSUPPORTED_MEDIA_TYPE, "Content-Encoding: the bytes are kept as they are; send none.")
    value = exchange.header(b"content-type")
    if value is None:
        return DEFAULT_MEDIA_TYPE
    text = value.decode("latin-1")
    if len(text) > _LONGEST_MEDIA_TYPE or not _MEDIA_TYPE.match(text):
        raise refuse(Code.INVALID_REQUEST, "Content-Type: must be one media type.")
    return text


def _digests(exchange: Exchange) -> frozenset[str]:
    """RFC 9530. Algorithms that are not known are ignored (§7); a digest that is none is refused."""
    value = exchange.header(b"content-digest")
    digests = set()
    for member in ("" if value is None else value.decode("latin-1")).split(",") if value else ():
        match = _DIGEST.match(member)
        if match is None:
            raise refuse(Code.INVALID_REQUEST, "Content-Digest: must be like sha-256=:…:.")
        if match[1].lower() == "sha-256":
            digests.add(_sha256(match[2]))
    return frozenset(digests)


def _sha256(text: str) -> str:
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        raise refuse(Code.INVALID_REQUEST, "Content-Digest: sha-256 must be 32 bytes in base64.")
    return digest.hex()
