"""UUIDs as RFC 9562 writes them; the library also takes braces, URNs and missing hyphens."""

from uuid import UUID

_LENGTH = 36


def parse_uuid(text: object) -> UUID | None:
    """None for whatever is no UUID in its one form of 36 characters."""
    if not isinstance(text, str) or len(text) != _LENGTH:
        return None
    try:
        return UUID(text)
    except ValueError:
        return None
