"""Where a page ended, as one opaque word. It says which list it belongs to, so that it is not used on another."""

import base64
import json
from typing import Final
from uuid import UUID

from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from metagate_store.rows import Cursor

STARTUPS: Final = "startups"
"""Its positions are (tenant, startup_id); those of the other lists (tenant, name), but for these two."""
HISTORY: Final = "history"
"""Its positions are (revision, seq)."""
OBJECTS: Final = "objects"
"""Its positions are (kind, name)."""

_LONGEST: Final = 1_024


def written(listing: str, cursor: Cursor | None) -> str | None:
    if cursor is None:
        return None
    return base64.urlsafe_b64encode(json.dumps([listing, *cursor]).encode()).decode().rstrip("=")


def read(listing: str, word: str | None) -> Cursor | None:
    """The position. Raises INVALID_CURSOR (422) for what this list did not hand out."""
    if word is None:
        return None
    parts = _parts(word)
    if len(parts) != 3 or parts[0] != listing or not _fits(listing, parts[1:]):
        raise invalid()
    return tuple(parts[1:])


def _fits(listing: str, position: list[str]) -> bool:
    match listing:
        case "startups":
            return all(map(_is_id, position))
        case "history":
            return all(part.isascii() and part.isdigit() and len(part) <= 18 for part in position)
        case "objects":
            return all(part.isascii() for part in position)
        case _:
            return _is_id(position[0])


def _parts(word: str) -> list[str]:
    try:
        parts = json.loads(base64.b64decode(word[:_LONGEST] + "=" * (-len(word) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        return []
    return parts if isinstance(parts, list) and all(map(_is_text, parts)) else []


def _is_id(part: str) -> bool:
    try:
        UUID(part)
    except ValueError:
        return False
    return True


def _is_text(part: object) -> bool:
    return isinstance(part, str) and part.isprintable()


def invalid() -> Exception:
    return refuse(Code.INVALID_CURSOR, "cursor: send back the next_cursor of this list, unchanged.")
