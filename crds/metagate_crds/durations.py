"""Durations as they are declared: `5s`, `1m`, `1h30m`, `250ms`."""

import re
from typing import Final

PATTERN: Final = "^([0-9]{1,9}(ms|s|m|h))+$"
_WHOLE: Final = re.compile(r"(?:[0-9]{1,9}(?:ms|s|m|h))+")
_PART: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h)")
_MILLISECONDS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def milliseconds(text: str) -> int:
    """How long, in milliseconds. Raises ValueError for anything that is no duration."""
    if not _WHOLE.fullmatch(text):
        raise ValueError("is not a duration like 5s, 1m or 1h")
    return sum(int(count) * _MILLISECONDS[unit] for count, unit in _PART.findall(text))


def seconds(text: str) -> int:
    """How long, in whole seconds, rounded down."""
    return milliseconds(text) // 1000
