"""The ids of all that belongs to a plan, derived from the plan's own, so that a repeat sends the same bytes (DG-04)."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TIME_LETTERS: Final = 10
ULID: Final = re.compile(f"[0-7][{_ALPHABET}]{{25}}")
"""An upper-case ULID (D-64): 48 bits of milliseconds since 1970, then 80 of chance."""


def derived_ulid(plan_id: str, tenant_id: str, what: str) -> str:
    """An id of the moment of `plan_id`, the same one whenever it is asked for. `what` names its use in the plan."""
    seed = hashlib.sha256(f"{tenant_id}/{plan_id}/{what}".encode()).digest()[:10]
    number = int.from_bytes(seed)
    letters = [_ALPHABET[number >> shift & 31] for shift in range(75, -1, -5)]
    return plan_id[:_TIME_LETTERS] + "".join(letters)


def task_id(plan_id: str, step_id: str) -> str:
    return f"{plan_id}.{step_id}"


def created_at(plan_id: str) -> datetime:
    """The moment in the id, in UTC. Raises OverflowError, ValueError for one beyond the year 9999."""
    milliseconds = 0
    for letter in plan_id[:_TIME_LETTERS]:
        milliseconds = milliseconds * 32 + _ALPHABET.index(letter)
    seconds, rest = divmod(milliseconds, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * 1000)
