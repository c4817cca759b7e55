"""The one byte form of a JSON value that is hashed, signed, stored and compared: RFC 8785 (D-22, D-28).

The standard library's C encoder writes the same bytes as RFC 8785 as long as a value holds no float, no integer beyond
2^53 and no member name outside ASCII, at a tenth of the price. Whatever else comes goes through `rfc8785`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import rfc8785

_ENCODE = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_SAFE = 2**53
_POINTED = 1e21


class Uncanonical(ValueError):  # noqa: N818 - what the value is
    """The value has no canonical form: a number beyond what a double holds, or text that is not Unicode."""


def canonical(value: Any, *, inspect: Iterable[Any] | None = None, round_trip: bool = False) -> bytes:
    """RFC 8785 bytes of a JSON value. Raises Uncanonical, a ValueError.

    `inspect`: the only parts of it that the quick encoder might write otherwise, where the caller knows them.
    `round_trip`: refuse also what another value would be read back from.
    """
    try:
        plain = _plain(value) if inspect is None else all(map(_plain, inspect))
        if plain:
            return _ENCODE(value).encode()
        if round_trip:
            _require_round_trip(value)
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as reason:
        raise Uncanonical(str(reason)) from reason


def encode_members(section: Mapping[str, Any]) -> dict[str, bytes]:
    """The canonical bytes of each member, so that one can change without the others being written again."""
    return {key: canonical(value) for key, value in section.items()}


def join_members(members: Mapping[str, bytes]) -> bytes:
    """The canonical object of canonical members; RFC 8785 orders keys by their UTF-16 code units."""
    ordered = sorted(members, key=lambda key: key.encode("utf-16be"))
    return b"{" + b",".join(canonical(key) + b":" + members[key] for key in ordered) + b"}"


def digest(form: bytes) -> bytes:
    """The sha256 of canonical bytes."""
    return hashlib.sha256(form).digest()


def hex_digest(form: bytes) -> str:
    return hashlib.sha256(form).hexdigest()


def _require_round_trip(value: Any) -> None:
    """From 2^53 to 10^21 a double is written without a point (RFC 8785, 3.2.2.3), so it comes back as an integer."""
    if type(value) is float and value.is_integer() and _SAFE <= abs(value) < _POINTED:
        raise Uncanonical(f"{value!r} would be read back as an integer beyond 2^53")
    if type(value) in {dict, list}:
        for item in value.values() if type(value) is dict else value:
            _require_round_trip(item)


def _plain(value: Any) -> bool:
    """Whether both encoders agree on it."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        return bool(-_SAFE < value < _SAFE)
    if kind is dict:
        return all(type(name) is str and name.isascii() and _plain(item) for name, item in value.items())
    return kind is list and all(_plain(item) for item in value)
