"""A finding: one thing wrong with a spec, and the path at which it stands.

Paths read `spec.services.mail.auth`, `spec.subjects[0]`, `spec.policy["a b"]`.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from metagate_crds.rules.secret_detection import looks_secret

_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
_LONGEST_KEY: Final = 64

Step = str | int
"""One step of a path: a key, or an index of a list."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing wrong with a spec. `path` is like `spec.services.mail.auth`; no part ever holds a declared value."""

    path: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def render_path(steps: Iterable[Step]) -> str:
    """The path as text. Odd keys are quoted, long ones cut, and one that looks like a secret is not shown."""
    return "spec" + "".join(map(_render_step, steps))


def _render_step(step: Step) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    if looks_secret(step):
        return '["…"]'  # people paste credentials as keys, and findings are logged
    if _PLAIN_KEY.fullmatch(step):
        return f".{step}"
    shown = step if len(step) <= _LONGEST_KEY else step[:_LONGEST_KEY] + "…"
    return f"[{json.dumps(shown)}]"
