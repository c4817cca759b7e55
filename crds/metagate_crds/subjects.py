"""Which subjects of an outside issuer a namespace may claim: `subjectPattern` (D-44)."""

import re
from functools import lru_cache
from itertools import pairwise
from typing import Final

NAMESPACE: Final = "{namespace}"
_NAME_CHARACTER: Final = re.compile(r"[a-z0-9\-*{}]")


def pattern_problem(pattern: str, *, several: bool) -> str | None:
    """Why a pattern admits too much, None when it is sound. `several`: more than one namespace is admitted."""
    parts = pattern.split(NAMESPACE)
    if several and len(parts) == 1:
        return f"must contain {NAMESPACE} where several namespaces are admitted"
    if "" in parts[1:-1]:
        return f"must have something between one {NAMESPACE} and the next"
    for before, after in pairwise(parts):
        # Otherwise `team` could claim what belongs to `team-a` or `x-team`.
        if _NAME_CHARACTER.fullmatch(before[-1:] or " ") or _NAME_CHARACTER.fullmatch(after[:1] or " "):
            return f"must not have a letter, digit, - or * beside {NAMESPACE}"
    if "{" in "".join(parts) or "}" in "".join(parts):
        return f"may use braces for {NAMESPACE} only"
    return None


def admits(pattern: str, namespace: str, subject: str) -> bool:
    """Whether a Principal of this namespace may claim this subject; `*` stands for any text."""
    return _compiled(pattern, namespace).fullmatch(subject) is not None


@lru_cache(maxsize=4_096)
def _compiled(pattern: str, namespace: str) -> re.Pattern[str]:
    text = pattern.replace(NAMESPACE, namespace)
    return re.compile(".*".join(map(re.escape, re.split(r"\*+", text))), re.DOTALL)
