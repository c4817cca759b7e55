"""One byte range of a representation, and the conditions on it (RFC 9110 §13, §14). Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_RANGE: Final = re.compile(rb"bytes=(\d{0,18})-(\d{0,18})\Z", re.IGNORECASE)


class ByteRange(NamedTuple):
    """From `start` to before `end`."""

    start: int
    end: int


class Unsatisfiable(Exception):  # noqa: N818 - what the range is
    """The range begins behind the end."""


def chosen_range(value: bytes | None, if_range: bytes | None, *, size: int, etag: bytes) -> ByteRange | None:
    """The part that is asked for; None: the whole. Several ranges, other units and what does not parse are ignored,
    and so is a range of another content (If-Range). Raises Unsatisfiable.
    """
    match = None if value is None else _RANGE.match(value)
    if match is None or (if_range is not None and if_range.strip() != etag):
        return None
    first, last = match.groups()
    if not first:
        if not last:
            return None
        length = int(last)
        if length == 0 or size == 0:
            raise Unsatisfiable
        return ByteRange(max(0, size - length), size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return ByteRange(start, min(size, int(last) + 1) if last else size)


def matches(if_none_match: bytes | None, etag: bytes) -> bool:
    """Whether the client has the representation already. Weak tags compare as their strong ones (§13.1.2)."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")]
    return b"*" in tags or etag in tags
