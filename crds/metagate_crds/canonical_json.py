"""Canonical JSON (RFC 8785) and the digests taken over it."""

import hashlib
from collections.abc import Mapping
from typing import Any

import rfc8785


def canonical(value: Any) -> bytes:
    """The one byte form of a JSON value. Raises ValueError for what I-JSON cannot carry."""
    return rfc8785.dumps(value)


def encode_members(section: Mapping[str, Any]) -> dict[str, bytes]:
    """The canonical bytes of each member, so that one can change without the others being written again."""
    return {key: rfc8785.dumps(value) for key, value in section.items()}


def join_members(members: Mapping[str, bytes]) -> bytes:
    """The canonical object of canonical members; RFC 8785 orders keys by their UTF-16 code units."""
    ordered = sorted(members, key=lambda key: key.encode("utf-16be"))
    return b"{" + b",".join(rfc8785.dumps(key) + b":" + members[key] for key in ordered) + b"}"


def digest(body: bytes) -> str:
    """The sha256 of canonical bytes, in hex (D-22)."""
    return hashlib.sha256(body).hexdigest()
