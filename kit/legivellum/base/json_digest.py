"""Digests of what agents send and tools answer: RFC 8785, but for integers beyond 2^53, which are written in full.

RFC 8785 has no form for such an integer: a reader that holds numbers as doubles would round it. Here nothing is read
back; two different arguments must only never have one digest (GW-13).
"""

from __future__ import annotations

from typing import Any

from legivellum.base.canonical_json import Uncanonical, canonical, hex_digest


def full_canonical(value: Any) -> bytes:
    """The canonical bytes of a JSON value. Raises Uncanonical for what is none."""
    try:
        return canonical(value)
    except Uncanonical:
        try:
            return _form(value)
        except RecursionError as error:
            raise Uncanonical("nested too deeply") from error


def json_digest(value: Any) -> str:
    """SHA-256 of the canonical bytes, in hexadecimal. Raises Uncanonical."""
    return hex_digest(full_canonical(value))


def _form(value: Any) -> bytes:
    if isinstance(value, bool):
        return canonical(value)
    if isinstance(value, int):
        return str(value).encode()
    if isinstance(value, list):
        return b"[" + b",".join(map(_form, value)) + b"]"
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            raise Uncanonical("a member's name is no text")
        # RFC 8785 orders names by their UTF-16 code units.
        names = sorted(value, key=lambda name: name.encode("utf-16be", "surrogatepass"))
        return b"{" + b",".join(canonical(name) + b":" + _form(value[name]) for name in names) + b"}"
    return canonical(value)
