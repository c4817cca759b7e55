"""Keys that no declaration and no packet may have, at any depth (D-17, INV-031, INV-032)."""

import re
import unicodedata
from functools import lru_cache
from typing import Any, Final

FORBIDDEN_KEYS: Final = ("tasks", "jobs", "work_items", "payloads", "deploy", "scale", "provision", "execute")

# Separators are dropped rather than unified: `workItems`, `WORK-ITEMS`, `work items` and `WorkItems` all meet here.
_SEPARATORS: Final = re.compile(r"[\s_\-]+")
_SQUASHED: Final = frozenset(key.replace("_", "") for key in FORBIDDEN_KEYS)


# Longer keys are rare, and remembering them could cost more memory than it saves time.
_REMEMBERED: Final = 64


def is_forbidden(key: str) -> bool:
    """Whether this key reads as a forbidden one, however it is spelt."""
    return _remembered(key) if len(key) <= _REMEMBERED else _reads_forbidden(key)


@lru_cache(maxsize=16_384)
def _remembered(key: str) -> bool:
    return _reads_forbidden(key)


def _reads_forbidden(key: str) -> bool:
    folded = unicodedata.normalize("NFKC", key).casefold()
    return _SEPARATORS.sub("", folded) in _SQUASHED


def holds_forbidden_key(value: Any) -> bool:
    """Whether a JSON value has a forbidden key anywhere, lists in lists included."""
    pending = [value]  # a stack instead of recursion: a stored body may be nested deeper than Python recurses
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if any(is_forbidden(key) for key in item):
                return True
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return False
