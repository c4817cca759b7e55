"""The outer form of a token, before anybody computes anything with it.

A token is read exactly one way here, so that no two readers of the same bytes can disagree about what they say: three
parts, base64url without padding and without stray bits, JSON objects in UTF-8 in which no member occurs twice.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from legivellum.identity.caller import AuthFailure, FailureReason

LONGEST_TOKEN: Final = 8192
"""Bytes. Service-account tokens have about 1,200, those of large identity providers up to 5,000."""

_FORM: Final = re.compile(rb"([A-Za-z0-9_-]{2,}+)\.([A-Za-z0-9_-]{2,}+)\.([A-Za-z0-9_-]{2,}+)\Z")
# The last character may hold bits that decode to nothing; canonical encoders leave them zero. By length % 4.
_CANONICAL_ENDS: Final = {0: None, 2: frozenset(b"AQgw"), 3: frozenset(b"AEIMQUYcgkosw048")}

_FORBIDDEN_HEADERS: Final = frozenset(
    # Keys and addresses that a token brings along, extensions that must be understood, another payload encoding,
    # compression, encryption, and a token inside the token.
    {"crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc", "epk", "cty"}
)
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})

_NOT_A_TOKEN: Final = AuthFailure(
    FailureReason.TOKEN_MALFORMED, "This is not a JSON Web Token: three base64url parts, unpadded."
)
_TOO_LONG: Final = AuthFailure(FailureReason.TOKEN_MALFORMED, f"The token is longer than {LONGEST_TOKEN} bytes.")
_NOT_JSON: Final = AuthFailure(
    FailureReason.TOKEN_MALFORMED,
    "The token's header or payload is not a JSON object in which every member occurs once.",
)
_TYPE: Final = AuthFailure(FailureReason.TOKEN_HEADER, "The token's header says that it is something else than a JWT.")


@dataclass(frozen=True, slots=True)
class Compact:
    """A token taken apart. Nothing in it is verified yet."""

    header: dict[str, Any]
    payload: dict[str, Any]
    signed: bytes
    signature: bytes


def take_apart(token: bytes) -> Compact | AuthFailure:
    """The parts of a token of the right form, or what is wrong with the form."""
    if len(token) > LONGEST_TOKEN:
        return _TOO_LONG
    match = _FORM.match(token)
    if match is None:
        return _NOT_A_TOKEN
    try:
        header, payload, signature = (_decode(part) for part in match.groups())
    except ValueError:
        return _NOT_A_TOKEN
    try:
        head, body = _object(header), _object(payload)
    except (ValueError, RecursionError):
        return _NOT_JSON
    forbidden = _FORBIDDEN_HEADERS & head.keys()
    if forbidden:
        return AuthFailure(FailureReason.TOKEN_HEADER, f"The token's header must not have a member {min(forbidden)!r}.")
    kind = head.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        return _TYPE
    return Compact(head, body, token[: match.end(2)], signature)


def _decode(part: bytes) -> bytes:
    rest = len(part) % 4
    ends = _CANONICAL_ENDS.get(rest, frozenset())
    if ends is not None and part[-1] not in ends:
        raise ValueError("not canonical base64url")
    return base64.urlsafe_b64decode(part + b"=" * (-rest % 4))


def _object(text: bytes) -> dict[str, Any]:
    value = _DECODER.decode(text.decode("utf-8"))
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one kind of error for one kind of refusal
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice")
    return members


def _no_constant(_: str) -> NoReturn:
    raise ValueError("not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)
