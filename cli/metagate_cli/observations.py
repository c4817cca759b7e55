"""What `metagate doctor` saw: one observation for each thing that it looked at, printed alike for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from metagate_cli.output import safe_text
from metagate_cli.terminal import colored

State = Literal["ok", "note", "wrong"]
_STYLES: Final[Mapping[State, str]] = {"ok": "green", "note": "yellow", "wrong": "red"}
NAMES_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing that was looked at. `next` is what to do about it, "" when there is nothing."""

    state: State
    what: str
    says: str
    next: str = ""

    def lines(self) -> list[str]:
        """For people."""
        first = f"{colored(f'{self.state:5}', _STYLES[self.state])}  {self.what}: {self.says}"
        return [first, f"       → {self.next}"] if self.next else [first]


def names_text(names: Sequence[str], *, all_of_them: bool) -> str:
    """Names in a line. Those that are left out are counted: a list is never cut in silence."""
    shown = names if all_of_them else names[:NAMES_SHOWN]
    rest = len(names) - len(shown)
    return safe_text(", ".join(shown)) + (f" and {rest} more (-o wide names them)" if rest else "")
