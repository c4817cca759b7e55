"""The cursors of MetaGate's lists: which positions each of them hands out."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from legivellum.gate.cursors import decode_cursor, encode_cursor, invalid_cursor
from metagate_store.rows import Cursor

STARTUPS: Final = "startups"
"""Its positions are (tenant, startup_id); those of the other lists (tenant, name), but for these two."""
HISTORY: Final = "history"
"""Its positions are (revision, seq)."""
TOPOLOGY: Final = "topology"
"""Its positions are (tenant, name), like those of the admin views."""
PROBLEMATAS: Final = "problematas of a tenant"
"""Its positions are (tenant, name), like those of the admin views, which have a list of this name too."""
OBJECTS: Final = "objects"
"""Its positions are (kind, name)."""


def written(listing: str, cursor: Cursor | None) -> str | None:
    return None if cursor is None else encode_cursor(listing, cursor)


def read(listing: str, word: str | None) -> Cursor | None:
    """The position. Raises INVALID_CURSOR (422) for what this list did not hand out."""
    if word is None:
        return None
    return decode_cursor(listing, word, valid=lambda position: len(position) == 2 and _fits(listing, position))


def require_tenant(position: Cursor | None, tenant: UUID) -> None:
    """Raises INVALID_CURSOR (422) for a position in another tenant's list."""
    if position is not None and position[0] != str(tenant):
        raise invalid_cursor()


def _fits(listing: str, position: Sequence[str]) -> bool:
    match listing:
        case "startups":
            return all(map(_is_id, position))
        case "history":
            return all(part.isascii() and part.isdigit() and len(part) <= 18 for part in position)
        case "objects":
            return all(part.isascii() for part in position)
        case _:
            return _is_id(position[0])


def _is_id(part: str) -> bool:
    try:
        UUID(part)
    except ValueError:
        return False
    return True
