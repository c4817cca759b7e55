"""Scans a raw spec once for what no declaration may hold, whatever its kind.

Bounds come first (depth, nodes, text), because a spec may be a YAML alias bomb or a list that contains itself; then
keys, values, and what looks like a secret. Each finding knows its path; none quotes a value.
"""

import math
import re
import unicodedata
from functools import lru_cache
from typing import Any, Final

from metagate_crds import reasons
from metagate_crds.rules import secret_detection
from metagate_crds.rules.findings import Finding, render_path
from metagate_crds.rules.forbidden_keys import is_forbidden

MAX_DEPTH: Final = 32
MAX_NODES: Final = 50_000
MAX_TEXT: Final = 64 * 1024
MAX_TOTAL: Final = 1024 * 1024
MAX_KEY: Final = 253
MAX_FINDINGS: Final = 100
_LARGEST_INTEGER: Final = 2**53 - 1
_UNSTORABLE_TEXT: Final = re.compile("[\x00\ud800-\udfff]")

# Public keys look random and are meant to be read by everybody.
_PUBLIC_SECTIONS: Final = frozenset({"inline"})

_API_KEY_ADVICE: Final = (
    "an API key is declared by its digest, as `metagate keys create` prints it, and one that was written here must be"
    " replaced"
)

Trail = tuple[Any, ...]
"""Steps of a path, innermost first: (step, outer trail) or ()."""


class SpecScanner:
    """The findings of one spec. `stopped`: a bound was hit, so nothing else should touch the spec.

    `forbid`: forbidden keys are refused, but for those below a member named in `foreign`. A JSON Schema describes what
    somebody else takes: an argument called `tasks` declares no work.
    """

    def __init__(self, *, forbid: bool, foreign: frozenset[str] = frozenset()) -> None:
        self._forbid = forbid
        self._foreign = foreign
        self._nodes = 0
        self._text = 0
        self.findings: list[Finding] = []
        self.stopped = False

    def scan(self, value: Any, trail: Trail = (), depth: int = 1, name: str = "") -> None:
        """Look at a value kept under `name`."""
        if isinstance(value, str):
            self._scan_string(value, trail, name)
        elif isinstance(value, dict):
            if self._enter(trail, depth, len(value)):
                self._scan_mapping(value, trail, depth)
        elif isinstance(value, list):
            if self._enter(trail, depth, len(value)):
                for index, item in enumerate(value):
                    self.scan(item, (index, trail), depth + 1, name)
        # bool is an int in Python, and null and booleans are never wrong here
        elif value is not None and not isinstance(value, bool):
            self._scan_number(value, trail, name)

    @property
    def max_json_bytes(self) -> int:
        """A bound on the bytes of the spec as JSON: six per character, and room for quotes, numbers and commas."""
        return 6 * self._text + 32 * self._nodes

    def _add(self, trail: Trail, reason: str, message: str) -> None:
        # Enough to mend a file by; a spec with a million faults must not make a million objects.
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(render_path(_steps(trail)), reason, message))

    def _enter(self, trail: Trail, depth: int, size: int) -> bool:
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
        self._add(trail, reason, message)

    def _scan_mapping(self, value: dict[Any, Any], trail: Trail, depth: int) -> None:
        entry_name = value.get("name", value.get("key"))
        for key, item in value.items():
            if not isinstance(key, str):
                self._add(trail, reasons.INVALID_KEY, "has a key that is not a string")
                continue
            inner = (key, trail)
            self._text += len(key)
            problem = _key_problem(key) if len(key) <= MAX_KEY else f"has a key longer than {MAX_KEY} characters"
            if problem:
                self._add(inner, reasons.INVALID_KEY, problem)
            if len(key) > MAX_KEY:
                continue  # what follows would cost time in the length of the key
            if self._forbid and is_forbidden(key) and self._foreign.isdisjoint(_steps(trail)):
                self._add(inner, reasons.FORBIDDEN_KEY, "is a forbidden key")
            if secret_detection.looks_secret(key):
                self._add(inner, reasons.SECRET_VALUE, "has a key that looks like a secret")
            # A list of {name, value} pairs names its secrets in a value.
            value_name = (
                entry_name if key == "value" and isinstance(entry_name, str) and len(entry_name) <= MAX_KEY else key
            )
            self.scan(item, inner, depth + 1, value_name)

    def _scan_string(self, value: str, trail: Trail, name: str) -> None:
        self._text += len(value)
        if len(value) > MAX_TEXT:
            self._add(trail, reasons.TOO_LARGE, f"is longer than {MAX_TEXT} characters")
        elif _UNSTORABLE_TEXT.search(value):
            self._add(trail, reasons.INVALID_VALUE, "holds NUL or a lone surrogate")
        elif value and secret_detection.names_secret(name):
            self._add_secret(trail, "holds a value under a name that says secret")
        elif secret_detection.looks_secret(value) or (
            len(value) >= 24
            and not secret_detection.names_digest(name)
            and not _is_public(trail)
            and secret_detection.looks_random(value)
        ):
            self._add_secret(trail, "looks like a secret")

    def _add_secret(self, trail: Trail, problem: str) -> None:
        advice = _API_KEY_ADVICE if _steps(trail)[:1] == ["apiKeys"] else "declare a secretRef"
        self._add(trail, reasons.SECRET_VALUE, f"{problem}; {advice}")

    def _scan_number(self, value: Any, trail: Trail, name: str) -> None:
        if isinstance(value, int):
            if abs(value) > _LARGEST_INTEGER:
                self._add(trail, reasons.INVALID_VALUE, "is an integer beyond 2^53 - 1")
            elif secret_detection.names_password(name):
                self._add(trail, reasons.SECRET_VALUE, "holds a value under a name that says secret")
        elif not isinstance(value, float):
            self._add(trail, reasons.INVALID_VALUE, "is not a JSON value (quote it to make it text)")
        elif not math.isfinite(value):
            self._add(trail, reasons.INVALID_VALUE, "is not a finite number")


def _steps(trail: Trail) -> list[Any]:
    steps: list[Any] = []
    while trail:
        steps.append(trail[0])
        trail = trail[1]
    return steps[::-1]


def _is_public(trail: Trail) -> bool:
    return any(step in _PUBLIC_SECTIONS for step in _steps(trail)[:2] if isinstance(step, str))


@lru_cache(maxsize=16_384)
def _key_problem(key: str) -> str | None:
    if not key.strip():
        return "has an empty key"
    if any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in key):
        return "has a key with control or invisible characters"
    return None
