"""Receipts of which only a statement knows the whole: a gate's own functions fill them in and emit them (AG-17).

A gate's Python knows how a canonical receipt is written, its SQL which task was leased and when. So Python writes the
canonical form of a valid receipt with a mark where each unknown value goes: U+001E and one letter. SQL replaces each
mark by `to_json(value)`, which writes text as RFC 8785 does. Canonical JSON holds no raw control character, so no value
that anybody sent can be taken for a mark.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

from legivellum.receipts.phase_rules import ReceiptFinding
from legivellum.receipts.receipt import completed, examine, form_of, with_defaults

MARK: Final = "\x1e"
_NONCE: Final = secrets.token_hex(8)
"""Marks are written as strings with this in them before they are put in raw: nobody can send such a string."""


_LEAVES: Final = frozenset({str, int, float, bool, type(None)})
_NO_LETTERS: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A value that the statement fills in. `sample` is a valid one, with which the rest is examined."""

    letter: str
    sample: Any

    @property
    def mark(self) -> str:
        """What SQL replaces."""
        return MARK + self.letter


def placeholders(**samples: Any) -> dict[str, Placeholder]:
    """One for each name, which is its letter: `placeholders(T="task", N=1)`."""
    for letter in samples:
        if len(letter) != 1 or not letter.isascii() or not letter.isalpha():
            raise ValueError(f"{letter!r}: a placeholder's name is one letter")
    return {letter: Placeholder(letter, sample) for letter, sample in samples.items()}


def template_of(sent: Mapping[str, Any], *, tenant: str, emitter: str) -> str | tuple[ReceiptFinding, ...]:
    """The canonical form with its marks, or what is wrong with the receipt.

    A Placeholder may stand for any value, also inside of `body` and `metadata`, but not for one that may be absent:
    an absent member is left out of the form, and a mark cannot be.
    """
    examined = examine(_mapped(sent, lambda hole: hole.sample), tenant=tenant, emitter=emitter)
    if isinstance(examined, tuple):
        return examined
    whole = completed(with_defaults({"tenant_id": tenant, "emitter": emitter, **sent}))
    form = form_of(_mapped(whole, lambda hole: _NONCE + hole.letter)).decode()
    for letter in _letters(whole):
        form = form.replace(f'"{_NONCE}{letter}"', MARK + letter)
    return form


def _mapped(value: Any, fill: Any) -> Any:
    kind = type(value)
    # Most values are texts and nothing; asking whether one is a Mapping costs more than the rest.
    if kind in _LEAVES:
        return value
    if kind is Placeholder:
        return fill(value)
    if kind is dict or isinstance(value, Mapping):
        return {name: _mapped(item, fill) for name, item in value.items()}
    if isinstance(value, list):
        return [_mapped(item, fill) for item in value]
    return value


def _letters(value: Any) -> AbstractSet[str]:
    kind = type(value)
    if kind in _LEAVES:
        return _NO_LETTERS
    if kind is Placeholder:
        return {value.letter}
    if kind is dict or isinstance(value, Mapping):
        return set().union(*map(_letters, value.values()))
    if isinstance(value, list):
        return set().union(*map(_letters, value))
    return set()
