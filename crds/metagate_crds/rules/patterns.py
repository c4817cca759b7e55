"""What names may look like, and the two pattern languages: component keys of a Binding (`prefix*`), and subjects of an
outside issuer (`subjectPattern`).
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final, TypeGuard

COMPONENT_KEY: Final = "[A-Za-z0-9]([A-Za-z0-9._:-]{0,251}[A-Za-z0-9])?"
"""What a component may call itself (D-65): the key becomes a file name and a label of a metric."""
_POSSIBLE_COMPONENT: Final = re.compile(f"{COMPONENT_KEY}|[A-Za-z0-9][A-Za-z0-9._:-]*[*]|[*]")

DNS_NAME: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
"""What an object may be named (RFC 1123), of at most LONGEST_NAME characters."""
LONGEST_NAME: Final = 253

NAMESPACE: Final = "{namespace}"
_NAME_CHARACTER: Final = re.compile(r"[a-z0-9\-*{}]")


_DNS_NAME: Final = re.compile(DNS_NAME)


def is_object_name(text: object) -> TypeGuard[str]:
    """Whether an object of Kubernetes may have this name."""
    return isinstance(text, str) and len(text) <= LONGEST_NAME and _DNS_NAME.fullmatch(text) is not None


def is_possible_component(pattern: str) -> bool:
    """Whether an entry of a Binding's `components` can permit any component_key (D-65)."""
    return _POSSIBLE_COMPONENT.fullmatch(pattern) is not None


def component_permitted(components: Iterable[str], component_key: str) -> bool:
    """Whether a list of exact keys, `prefix*` and `*` admits this component (D-16); an empty list admits none."""
    return any(_matches(pattern, component_key) for pattern in components)


def any_glob_matches(globs: Iterable[str], name: str) -> bool:
    """Whether one of these exact names, `prefix*` and `*` matches; the globs of a PolicyProfile read the same."""
    return any(_matches(glob, name) for glob in globs)


def intersect_components(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    """The patterns that admit what both lists admit: those of the first list in their order, then of the second."""
    left, right = tuple(first), tuple(second)
    both = [pattern for pattern in left if any(_covers(wider, pattern) for wider in right)]
    both += [pattern for pattern in right if any(_covers(wider, pattern) for wider in left)]
    return tuple(dict.fromkeys(both))


def _matches(pattern: str, component_key: str) -> bool:
    if pattern.endswith("*"):
        return component_key.startswith(pattern[:-1])
    return component_key == pattern


def _covers(wider: str, pattern: str) -> bool:
    if pattern.endswith("*"):
        return wider.endswith("*") and pattern.startswith(wider[:-1])
    return _matches(wider, pattern)


def subject_pattern_problem(pattern: str, *, several: bool) -> str | None:
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


def subject_permitted(pattern: str, namespace: str, subject: str) -> bool:
    """Whether a Principal of this namespace may claim this subject; `*` stands for any text (D-44)."""
    literals = _literals(pattern, namespace)
    if len(literals) == 1:
        return subject == literals[0]
    first, *between, last = literals
    end = len(subject) - len(last)
    if end < len(first) or not (subject.startswith(first) and subject.endswith(last)):
        return False
    return _in_order(between, subject, len(first), end)


def _in_order(literals: Sequence[str], subject: str, start: int, end: int) -> bool:
    """Whether the texts follow each other in `subject[start:end]`.

    Taking each where it comes first leaves the most room for the rest, so nothing is ever tried again: a regular
    expression would backtrack for every `*`, and whoever may declare a pattern could stop the writer with one.
    """
    for literal in literals:
        position = subject.find(literal, start, end)
        if position < 0:
            return False
        start = position + len(literal)
    return True


@lru_cache(maxsize=4_096)
def _literals(pattern: str, namespace: str) -> tuple[str, ...]:
    """The texts between the `*`s."""
    return tuple(re.split(r"\*+", pattern.replace(NAMESPACE, namespace)))
