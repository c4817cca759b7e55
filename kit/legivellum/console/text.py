"""What other people declared and reported, shown as text and as nothing else.

HTML is escaped by the templates. What is left is what a page could still be deceived with: control characters, marks
that turn text around, characters that are not there. They are spelt as escapes; what is very long is cut, and says so.
"""

import json
import unicodedata
from datetime import UTC, datetime
from typing import Any, Final

LONGEST: Final = 1_200
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def visible(text: str, longest: int = LONGEST) -> str:
    """The text, bounded, with everything spelt that one could not see."""
    cut = text[:longest]
    spelt = cut if cut.isascii() and cut.isprintable() else "".join(map(_visible, cut))
    return spelt if len(text) <= longest else f"{spelt}… ({len(text):,} characters)"


def value(item: Any, longest: int = LONGEST) -> str:
    """A value as JSON."""
    return visible(json.dumps(item, ensure_ascii=False), longest)


def character_references(text: str) -> str:
    """HTML with what one could not see as character references: the browser reads the same text."""
    return "".join(char if _seen(char) else f"&#x{ord(char):x};" for char in text)


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%H:%M")


def ago(moment: datetime, now: datetime) -> str:
    """How long before `now`, in one unit: `3 min ago`; `in 40 s` for what is still to come."""
    seconds = int((now - moment).total_seconds())
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def span(seconds: int) -> str:
    for length, unit in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _seen(char: str) -> bool:
    # Only ASCII's own space is a space that everybody sees.
    return char == " " or (char.isprintable() and unicodedata.category(char) not in _UNSAFE)


def _visible(char: str) -> str:
    if _seen(char):
        return char
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
