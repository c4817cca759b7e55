"""Parameters: whether they meet a template's schema, and what each `${…}` of a step becomes with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from metagate_crds import reasons
from metagate_crds.plans.schema_check import SchemaCheck
from metagate_crds.rules.findings import Finding, Step, render_path
from metagate_crds.rules.plan_rules import NO_PARAMETERS, REFERENCE

MOST_FINDINGS: Final = 40


class _Absent:
    """What an optional parameter that was not given stands for."""


ABSENT: Final = _Absent()


def parameter_findings(template: Mapping[str, Any], parameters: Any, path: tuple[Step, ...]) -> list[Finding]:
    """Where they do not meet the schema of the template; `path` is theirs. No finding quotes a value."""
    violations = SchemaCheck().violations(template.get("parameters", NO_PARAMETERS), parameters, path)
    findings = {
        Finding(render_path(place), reasons.PARAMETERS_REFUSED, message)
        for place, message in islice(violations, MOST_FINDINGS)
    }
    return sorted(findings)


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
