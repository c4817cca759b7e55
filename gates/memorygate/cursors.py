"""The cursors of the ledger's lists: a time of the ledger and an id."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from legivellum.gate.cursors import decode_cursor, encode_cursor
from memorygate.ledger import START, Mark, Position


def written(listing: str, position: Position) -> str:
    return encode_cursor(listing, (position[0].isoformat(), position[1]))


def read(listing: str, word: str | None) -> Position:
    """The position. Raises INVALID_CURSOR (422) for what this list did not hand out."""
    if word is None:
        return START
    moment, key = decode_cursor(listing, word, valid=_is_position)
    return datetime.fromisoformat(moment), key


def written_number(listing: str, number: int) -> str:
    return encode_cursor(listing, (str(number),))


def read_number(listing: str, cursor: str | None) -> int:
    """Raises INVALID_CURSOR (422)."""
    if cursor is None:
        return 0
    (number,) = decode_cursor(
        listing, cursor, valid=lambda position: len(position) == 1 and _is_number(position[0], 63)
    )
    return int(number)


def written_mark(listing: str, mark: Mark) -> str:
    return encode_cursor(listing, (str(mark.written_by), str(mark.microseconds)))


def read_mark(listing: str, cursor: str | None) -> Mark | None:
    """Raises INVALID_CURSOR (422)."""
    if cursor is None:
        return None
    written_by, microseconds = decode_cursor(listing, cursor, valid=_is_mark)
    return Mark(int(written_by), int(microseconds))


def _is_single_number(position: Sequence[str]) -> bool:
    return len(position) == 1 and _is_number(position[0], 63)


def _is_mark(position: Sequence[str]) -> bool:
    return len(position) == 2 and _is_number(position[0], 64) and _is_number(position[1], 56)


def _is_number(text: str, bits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 2**bits


def _is_position(position: Sequence[str]) -> bool:
    try:
        # The ledger's own times are in UTC; another offset could leave the range of what a database knows.
        return len(position) == 2 and datetime.fromisoformat(position[0]).utcoffset() == timedelta()
    except ValueError:
        return False
