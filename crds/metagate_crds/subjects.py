"""Which subjects of an outside issuer a namespace may claim: `subjectPattern` (D-44)."""

import re
from collections.abc import Sequence
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
    texts = _parts(pattern, namespace)
    if len(texts) == 1:
        return subject == texts[0]
    first, *between, last = texts
    rest = len(subject) - len(last)
    if rest < len(first) or not (subject.startswith(first) and subject.endswith(last)):
        return False
    return _in_order(between, subject, len(first), rest)


def _in_order(texts: Sequence[str], subject: str, at: int, end: int) -> bool:
    """Whether the texts follow each other in `subject[at:end]`.

    Taking each where it comes first leaves the most room for the rest, so nothing is ever tried again: a regular
    expression would go back for every `*`, and whoever may declare a pattern could stop the writer with one.
    """
    for text in texts:
        found = subject.find(text, at, end)
        if found < 0:
            return False
        at = found + len(text)
    return True


@lru_cache(maxsize=4_096)
def _parts(pattern: str, namespace: str) -> tuple[str, ...]:
    """The texts between the `*`s."""
    return tuple(re.split(r"\*+", pattern.replace(NAMESPACE, namespace)))
