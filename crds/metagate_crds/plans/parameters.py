"""Parameters: whether they meet a template's schema, and what each `${…}` of a step becomes with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator

from metagate_crds import reasons
from metagate_crds.rules.findings import Finding, Step, render_path
from metagate_crds.rules.plan_rules import NO_PARAMETERS, REFERENCE

MOST_FINDINGS: Final = 40


class _Absent:
    """What an optional parameter that was not given stands for."""


ABSENT: Final = _Absent()


def parameter_findings(template: Mapping[str, Any], parameters: Any, path: tuple[Step, ...]) -> list[Finding]:
    """Where they do not meet the schema of the template; `path` is theirs. No finding quotes a value."""
    # The schema was judged when it was declared: it fetches nothing and holds no pattern.
    errors = Draft202012Validator(template.get("parameters", NO_PARAMETERS)).iter_errors(parameters)
    findings = []
    for error, _ in zip(errors, range(MOST_FINDINGS), strict=False):
        message = _message(error.validator, error.validator_value)
        findings.append(Finding(render_path((*path, *error.absolute_path)), reasons.PARAMETERS_REFUSED, message))
    return sorted(set(findings))


def replaced(value: Any, parameters: Mapping[str, Any], item: Any = ABSENT) -> Any:
    """The value with every text that is `${parameters.x}` or `${item}` replaced by what that stands for.

    A member or item whose parameter was not given is left out; ABSENT when the whole value is one.
    """
    if isinstance(value, str):
        reference = REFERENCE.fullmatch(value)
        if reference is None:
            return value
        return item if reference[1] is None else parameters.get(reference[1], ABSENT)
    if isinstance(value, dict):
        return {name: member for name, member in _members(value, parameters, item) if member is not ABSENT}
    if isinstance(value, list):
        items = (replaced(each, parameters, item) for each in value)
        return [each for each in items if each is not ABSENT]
    return value


def _members(value: Mapping[str, Any], parameters: Mapping[str, Any], item: Any) -> Iterator[tuple[str, Any]]:
    for name, member in value.items():
        yield name, replaced(member, parameters, item)


def _message(keyword: str, bound: Any) -> str:
    if keyword == "required":
        return f"must have {', '.join(map(str, bound))}"
    if keyword == "additionalProperties":
        return "has a member that the template does not know"
    if keyword == "type":
        return f"must be of type {bound if isinstance(bound, str) else ' or '.join(bound)}"
    if keyword in {"enum", "const"}:
        return f"must be what the template's schema lists under {keyword}"
    return f"does not meet {keyword}: {bound}"
