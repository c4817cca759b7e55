"""Where a page ended, as one opaque text. It names its list, so that it cannot be used with another one."""

import base64
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from legivellum.http.problem_codes import Code
from legivellum.http.problems import RequestRefused, refuse

_LONGEST: Final = 1_024


# Not signed: a cursor is a position among rows that its bearer may read anyway, and `tenant` is checked apart.
def encode_cursor(listing: str, position: Sequence[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([listing, *position]).encode()).decode().rstrip("=")


def decode_cursor(listing: str, cursor: str, *, valid: Callable[[Sequence[str]], bool]) -> tuple[str, ...]:
    """The position. Raises INVALID_CURSOR (422) for what this list did not hand out: `valid` says so of a position."""
    parts = _parts(cursor)
    if not parts or parts[0] != listing or not valid(parts[1:]):
        raise invalid_cursor()
    return tuple(parts[1:])


def invalid_cursor() -> RequestRefused:
    return refuse(Code.INVALID_CURSOR, "cursor: send back the next_cursor of this list, unchanged.")


def _parts(cursor: str) -> list[str]:
    try:
        padded = cursor[:_LONGEST] + "=" * (-len(cursor) % 4)
        parts = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        return []
    # A control character in a cursor would reach the database as a parameter.
    texts = isinstance(parts, list) and all(isinstance(part, str) and part.isprintable() for part in parts)
    return parts if texts else []


def encode_time(listing: str, moment: datetime, key: str) -> str:
    """A position in a list that is ordered by time and then by an id."""
    return encode_cursor(listing, (moment.isoformat(), key))


def decode_time(listing: str, cursor: str) -> tuple[datetime, str]:
    """Raises INVALID_CURSOR (422)."""
    moment, key = decode_cursor(listing, cursor, valid=_is_time)
    return datetime.fromisoformat(moment), key


def encode_numbers(listing: str, *numbers: int) -> str:
    return encode_cursor(listing, tuple(map(str, numbers)))


def decode_numbers(listing: str, cursor: str, *bits: int) -> tuple[int, ...]:
    """As many numbers as there are `bits`, each of at most so many. Raises INVALID_CURSOR (422)."""

    def valid(position: Sequence[str]) -> bool:
        return len(position) == len(bits) and all(map(_is_number, position, bits))

    return tuple(map(int, decode_cursor(listing, cursor, valid=valid)))


def _is_time(position: Sequence[str]) -> bool:
    try:
        # A gate's own times are in UTC; another offset could leave the range of what a database knows.
        return len(position) == 2 and datetime.fromisoformat(position[0]).utcoffset() == timedelta()
    except ValueError:
        return False


def _is_number(text: str, bits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 2**bits
