"""What other people declared, shown as text and as nothing else: no escape sequence, no marks that turn text around."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

LONGEST: Final = 400
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def plain(text: object) -> str:
    """One line in which everything that a terminal could obey is spelt as an escape."""
    return "".join(
        char if char.isprintable() and unicodedata.category(char) not in _UNSAFE else _spelt(char) for char in str(text)
    )


def value(found: Any, longest: int | None = LONGEST) -> str:
    """A value as JSON in one line, cut when it is longer; None: never."""
    text = plain(json.dumps(found, ensure_ascii=False))
    return text if longest is None or len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"


def fenced(lines: Sequence[str], language: str) -> list[str]:
    """Lines as a block of Markdown that they cannot leave."""
    runs = [len(run) for line in lines for run in "".join(c if c == "`" else " " for c in line).split()]
    fence = "`" * max(3, *(run + 1 for run in runs), 3)
    return [f"{fence}{language}", *lines, fence]


def _spelt(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
