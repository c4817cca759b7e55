"""ULIDs, upper case as the gates want them: 48 bits of milliseconds, then 80 of chance or of a digest."""

from __future__ import annotations

import hashlib
import os
import time

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_ulid() -> str:
    """An id of this moment that nobody else makes."""
    return _ulid(time.time_ns() // 1_000_000, os.urandom(10))


def derived_ulid(text: str, milliseconds: int) -> str:
    """The same id for the same text and time, wherever and however often it is asked for."""
    return _ulid(milliseconds, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:10])


def _ulid(milliseconds: int, chance: bytes) -> str:
    number = milliseconds << 80 | int.from_bytes(chance, "big")
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
