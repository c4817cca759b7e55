"""The cursors of the ledger's lists: a time of the ledger and an id."""

from collections.abc import Sequence
from datetime import datetime

from legivellum.gate.cursors import decode_cursor, encode_cursor
from memorygate.ledger import START, Position


def written(listing: str, position: Position) -> str:
    return encode_cursor(listing, (position[0].isoformat(), position[1]))


def read(listing: str, word: str | None) -> Position:
    """The position. Raises INVALID_CURSOR (422) for what this list did not hand out."""
    if word is None:
        return START
    moment, key = decode_cursor(listing, word, valid=_is_position)
    return datetime.fromisoformat(moment), key


def _is_position(position: Sequence[str]) -> bool:
    try:
        return len(position) == 2 and datetime.fromisoformat(position[0]).tzinfo is not None
    except ValueError:
        return False
