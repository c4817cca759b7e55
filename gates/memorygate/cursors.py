"""Where a page ended, as one opaque word. It says which list it belongs to, so that it is not used on another."""

import base64
import json
from datetime import datetime

from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from memorygate.ledger import START, Position

_LONGEST = 1_024


def written(listing: str, position: Position) -> str:
    word = json.dumps([listing, position[0].isoformat(), position[1]]).encode()
    return base64.urlsafe_b64encode(word).decode().rstrip("=")


def read(listing: str, word: str | None) -> Position:
    """The position. Raises INVALID_CURSOR (422) for what this list did not hand out."""
    if word is None:
        return START
    try:
        padded = word[:_LONGEST] + "=" * (-len(word) % 4)
        parts = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        name, moment, key = parts
        at = datetime.fromisoformat(moment)
    except (ValueError, TypeError, RecursionError):
        name = None
    if name != listing or at.tzinfo is None or not isinstance(key, str) or not key.isprintable():
        raise refuse(Code.INVALID_CURSOR, "cursor: send back the next_cursor of this list, unchanged.")
    return at, key
