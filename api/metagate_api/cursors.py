"""Where a page ended, as one opaque word. It says which list it belongs to, so that it is not used on another."""

import base64
import json
from typing import Final
from uuid import UUID

from legivellum_http.codes import Code
from legivellum_http.problems import refuse
from metagate_store.rows import Cursor

STARTUPS: Final = "startups"
"""Its positions are (tenant, startup_id); those of the other lists (tenant, name)."""

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
    if len(parts) != 3 or parts[0] != listing or not all(map(_is_id, parts[1:] if listing == STARTUPS else parts[1:2])):
        raise invalid()
    return tuple(parts[1:])


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
