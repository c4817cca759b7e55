"""Whether a value meets a schema of parameters, with the keywords that `rules.plan_rules` admits (JSON Schema 2020-12).

Callers choose the value and may be agents, so the time is linear in its size: nothing fetches, nothing backtracks, and
`enum` is a look-up. A library's validator compares each item with each member of an `enum`, which took half a minute
for a request of 48 KiB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import ge, gt, le, lt
from typing import Any, Final

from metagate_crds.canonical_json import canonical
from metagate_crds.rules.findings import Step

Path = tuple[Step, ...]
Violation = tuple[Path, str]

_LENGTHS: Final[Mapping[str, tuple[type, Callable[[Any, Any], bool], str]]] = {
    "minLength": (str, ge, "must have at least {} characters"),
    "maxLength": (str, le, "must have at most {} characters"),
    "minItems": (list, ge, "must have at least {} items"),
    "maxItems": (list, le, "must have at most {} items"),
    "minProperties": (dict, ge, "must have at least {} members"),
    "maxProperties": (dict, le, "must have at most {} members"),
}
_BOUNDS: Final[Mapping[str, tuple[Callable[[Any, Any], bool], str]]] = {
    "minimum": (ge, "must be at least {}"),
    "maximum": (le, "must be at most {}"),
    "exclusiveMinimum": (gt, "must be greater than {}"),
    "exclusiveMaximum": (lt, "must be less than {}"),
}


class SchemaCheck:
    """Of one value. It remembers each `enum` as a set, by identity, so the schema must stay as it is meanwhile."""

    def __init__(self) -> None:
        self._enums: dict[int, frozenset[bytes]] = {}

    def violations(self, schema: Mapping[str, Any], value: Any, path: Path) -> Iterator[Violation]:
        """Each with its path; no message quotes the value."""
        if "type" in schema and not _has_type(value, schema["type"]):
            names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            yield path, f"must be of type {' or '.join(names)}"
            return
        if "const" in schema and canonical(value) != canonical(schema["const"]):
            yield path, "must be the value that the template's schema has under const"
        if "enum" in schema and canonical(value) not in self._members(schema["enum"]):
            yield path, "must be one of the values that the template's schema has under enum"
        yield from ((path, message) for message in _bound_problems(schema, value))
        if isinstance(value, dict):
            yield from self._members_of(schema, value, path)
        elif isinstance(value, list) and "items" in schema:
            for index, item in enumerate(value):
                yield from self.violations(schema["items"], item, (*path, index))

    def _members_of(self, schema: Mapping[str, Any], value: Mapping[str, Any], path: Path) -> Iterator[Violation]:
        properties = schema.get("properties", {})
        yield from (((*path, name), "is required") for name in schema.get("required", ()) if name not in value)
        for name, member in value.items():
            if name in properties:
                yield from self.violations(properties[name], member, (*path, name))
            elif schema.get("additionalProperties") is False:
                yield (*path, name), "is not known to the template"

    def _members(self, enum: list[Any]) -> frozenset[bytes]:
        members = self._enums.get(id(enum))
        if members is None:
            members = self._enums[id(enum)] = frozenset(map(canonical, enum))
        return members


def _bound_problems(schema: Mapping[str, Any], value: Any) -> Iterator[str]:
    if _is_number(value):
        for name, (holds, message) in _BOUNDS.items():
            if name in schema and not holds(value, schema[name]):
                yield message.format(schema[name])
    elif isinstance(value, str | list | dict):
        for name, (of_type, holds, message) in _LENGTHS.items():
            if isinstance(value, of_type) and name in schema and not holds(len(value), schema[name]):
                yield message.format(schema[name])


def _has_type(value: Any, wanted: str | list[str]) -> bool:
    names = wanted if isinstance(wanted, list) else [wanted]
    return any(_TYPE_CHECKS[name](value) for name in names)


def _is_number(value: Any) -> bool:
    # bool is an int in Python and no number in JSON
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return _is_number(value) and value == int(value)


_TYPE_CHECKS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "array": lambda value: isinstance(value, list),
    "boolean": lambda value: isinstance(value, bool),
    "integer": _is_integer,
    "null": lambda value: value is None,
    "number": _is_number,
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
}
