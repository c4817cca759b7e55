"""Paths into a spec, as findings name them: `spec.services.mail.auth`, `spec.subjects[0]`, `spec.policy["a b"]`."""

import json
import re
from collections.abc import Iterable
from typing import Final

from metagate_crds.secrets import looks_secret

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
_LONGEST: Final = 64

Step = str | int


def rendered(steps: Iterable[Step]) -> str:
    """The path as text. Odd keys are quoted, long ones cut, and one that looks like a secret is not shown."""
    return "spec" + "".join(map(_step, steps))


def _step(step: Step) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    if _PLAIN.fullmatch(step) and not looks_secret(step):
        return f".{step}"
    if looks_secret(step):
        return '["…"]'
    shown = step if len(step) <= _LONGEST else step[:_LONGEST] + "…"
    return f"[{json.dumps(shown)}]"
