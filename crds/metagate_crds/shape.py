"""One walk over a raw spec: what no declaration may hold, whatever its kind.

Bounds come first (depth, nodes, text), because a spec may be a YAML alias bomb or a list that contains itself; then
keys, values, and what looks like a secret. Each finding knows its path; none quotes a value.
"""

import math
import re
import unicodedata
from functools import lru_cache
from typing import Any, Final

from metagate_crds import paths, reasons, secrets
from metagate_crds.forbidden import is_forbidden
from metagate_crds.verdict import Finding

MAX_DEPTH: Final = 32
MAX_NODES: Final = 50_000
MAX_TEXT: Final = 64 * 1024
MAX_TOTAL: Final = 1024 * 1024
MAX_KEY: Final = 253
MAX_FINDINGS: Final = 100
_LARGEST_INTEGER: Final = 2**53 - 1
_NOT_TEXT: Final = re.compile("[\x00\ud800-\udfff]")

# Public keys look random and are meant to be read by everybody.
_PUBLIC: Final = frozenset({"inline"})

Trail = tuple[Any, ...]
"""Steps of a path, innermost first: (step, outer trail) or ()."""


class Walk:
    """The findings of one spec. `stopped` tells that a bound was hit, so that nothing else should touch the spec."""

    def __init__(self, *, forbid: bool) -> None:
        self._forbid = forbid
        self._nodes = 0
        self._text = 0
        self.findings: list[Finding] = []
        self.stopped = False

    def over(self, value: Any, trail: Trail = (), depth: int = 1, name: str = "") -> None:
        """Look at a value kept under `name`."""
        if isinstance(value, str):
            self._string(value, trail, name)
        elif isinstance(value, dict):
            if self._inside(trail, depth, len(value)):
                self._mapping(value, trail, depth)
        elif isinstance(value, list):
            if self._inside(trail, depth, len(value)):
                for index, item in enumerate(value):
                    self.over(item, (index, trail), depth + 1, name)
        elif value is not None and not isinstance(value, bool):
            self._number(value, trail, name)

    @property
    def at_most(self) -> int:
        """A bound on the bytes of the spec as JSON: six per character, and room for quotes, numbers and commas."""
        return 6 * self._text + 32 * self._nodes

    def found(self, trail: Trail, reason: str, message: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(paths.rendered(_steps(trail)), reason, message))

    def _inside(self, trail: Trail, depth: int, size: int) -> bool:
        self._nodes += size + 1
        if self.stopped:
            return False
        if depth > MAX_DEPTH:
            self._stop(trail, reasons.TOO_DEEP, f"is nested deeper than {MAX_DEPTH} levels")
        elif self._nodes > MAX_NODES or self._text > MAX_TOTAL:
            self._stop((), reasons.TOO_LARGE, f"holds more than {MAX_NODES} values or {MAX_TOTAL} characters")
        return not self.stopped

    def _stop(self, trail: Trail, reason: str, message: str) -> None:
        self.stopped = True
        self.found(trail, reason, message)

    def _mapping(self, value: dict[Any, Any], trail: Trail, depth: int) -> None:
        said = value.get("name", value.get("key"))
        for key, item in value.items():
            if not isinstance(key, str):
                self.found(trail, reasons.INVALID_KEY, "has a key that is not a string")
                continue
            inner = (key, trail)
            self._text += len(key)
            problem = _key_problem(key) if len(key) <= MAX_KEY else f"has a key longer than {MAX_KEY} characters"
            if problem:
                self.found(inner, reasons.INVALID_KEY, problem)
            if len(key) > MAX_KEY:
                continue
            if self._forbid and is_forbidden(key):
                self.found(inner, reasons.FORBIDDEN_KEY, "is a forbidden key")
            if secrets.looks_secret(key):
                self.found(inner, reasons.SECRET_VALUE, "has a key that looks like a secret")
            # A list of {name, value} pairs names its secrets in a value.
            named = said if key == "value" and isinstance(said, str) and len(said) <= MAX_KEY else key
            self.over(item, inner, depth + 1, named)

    def _string(self, value: str, trail: Trail, name: str) -> None:
        self._text += len(value)
        if len(value) > MAX_TEXT:
            self.found(trail, reasons.TOO_LARGE, f"is longer than {MAX_TEXT} characters")
        elif _NOT_TEXT.search(value):
            self.found(trail, reasons.INVALID_VALUE, "holds NUL or a lone surrogate")
        elif value and secrets.names_secret(name):
            self.found(trail, reasons.SECRET_VALUE, "holds a value under a name that says secret; declare a secretRef")
        elif secrets.looks_secret(value) or (
            len(value) >= 24
            and not secrets.names_digest(name)
            and not _is_public(trail)
            and secrets.looks_random(value)
        ):
            self.found(trail, reasons.SECRET_VALUE, "looks like a secret; declare a secretRef")

    def _number(self, value: Any, trail: Trail, name: str) -> None:
        if isinstance(value, int):
            if abs(value) > _LARGEST_INTEGER:
                self.found(trail, reasons.INVALID_VALUE, "is an integer beyond 2^53 - 1")
            elif secrets.names_password(name):
                self.found(trail, reasons.SECRET_VALUE, "holds a value under a name that says secret")
        elif not isinstance(value, float):
            self.found(trail, reasons.INVALID_VALUE, "is not a JSON value (quote it to make it text)")
        elif not math.isfinite(value):
            self.found(trail, reasons.INVALID_VALUE, "is not a finite number")


def _steps(trail: Trail) -> list[Any]:
    steps: list[Any] = []
    while trail:
        steps.append(trail[0])
        trail = trail[1]
    return steps[::-1]


def _is_public(trail: Trail) -> bool:
    return any(step in _PUBLIC for step in _steps(trail)[:2] if isinstance(step, str))


@lru_cache(maxsize=16_384)
def _key_problem(key: str) -> str | None:
    if not key.strip():
        return "has an empty key"
    if any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in key):
        return "has a key with control or invisible characters"
    return None
