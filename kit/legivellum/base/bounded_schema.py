"""Whether a value fits a declared JSON Schema, in bounded time.

The schemas are declared by tenants, and often copied from somebody's MCP server; the values come from agents and
models. A pattern like `^(a+)+$` stops Python's regular expressions for minutes, and schemas that apply each other to
every member of a value multiply. So patterns run in an engine whose time is linear, sets are compared by digest, and
the number of checks is bounded: what cannot be checked within the bound is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from pydantic_core import SchemaError, SchemaValidator, core_schema
from pydantic_core import ValidationError as PatternMismatch

from legivellum.base.canonical_json import Uncanonical
from legivellum.base.json_digest import full_canonical

_MOST_CHECKS: Final = 50_000
"""Of members of schemas, for one value: about half a second."""
_LONGEST_MESSAGE: Final = 240
_KEPT: Final = 1_024

_left: ContextVar[list[int]] = ContextVar("checks_left")
_enums: ContextVar[dict[int, frozenset[bytes]]] = ContextVar("enums")
"""Canonical forms of the lists of `enum`, by the identity of the list: of one value's check, while the schema lives."""


class _TooManyChecksError(Exception):
    """The value and the schema are too large together."""


Keyword = Callable[[Any, Any, Any, Any], Any]


def _counted(check: Keyword) -> Keyword:
    def checked(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        left = _left.get()
        left[0] -= 1
        if left[0] < 0:
            raise _TooManyChecksError
        return check(validator, value, instance, schema)

    return checked


@lru_cache(maxsize=_KEPT)
def _pattern(source: str) -> SchemaValidator | None:
    """The pattern in the engine of pydantic, which never backtracks; None where that engine does not know it."""
    try:
        return SchemaValidator(core_schema.str_schema(pattern=source, regex_engine="rust-regex"))
    except SchemaError:
        return None


def _matches(source: str, text: str) -> bool:
    """Whether it is found in the text. What only a backtracking engine could say is left to the receiver."""
    pattern = _pattern(source)
    if pattern is None:
        return True
    try:
        pattern.validate_python(text)
    except PatternMismatch:
        return False
    return True


def _check_pattern(_validator: Any, source: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _matches(source, instance):
        yield ValidationError(f"does not match {source!r}")


def _check_pattern_properties(validator: Any, patterns: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for source, schema in patterns.items():
        for name, value in instance.items():
            if _matches(source, name):
                yield from validator.descend(value, schema, path=name, schema_path=source)


def _check_additional(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, value in instance.items():
        if name in named or any(_matches(source, name) for source in patterns):
            continue
        if allowed is False:
            yield ValidationError(f"has a member that is not declared: {name!r}")
        else:
            yield from validator.descend(value, allowed, path=name)


def _check_unique(_validator: Any, unique: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if not unique or not isinstance(instance, list):
        return
    # Compared pair by pair a list of some hundred kilobytes would take minutes.
    if len({full_canonical(item) for item in instance}) < len(instance):
        yield ValidationError("has an item twice")


def _check_enum(_validator: Any, permitted: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    known = _enums.get()
    forms = known.get(id(permitted))
    if forms is None:
        forms = known[id(permitted)] = frozenset(map(full_canonical, permitted))
    # Compared with each of a thousand permitted values a list of some hundred kilobytes would take seconds.
    if full_canonical(instance) not in forms:
        yield ValidationError(f"{shown(instance)} is not one of {shown(permitted)}")


def shown(value: Any) -> str:
    """At most as much of it as a message has room for."""
    return repr(value)[:_LONGEST_MESSAGE]


def _unevaluated(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
    """Left out beside `patternProperties`: the library would match their patterns in the engine that backtracks."""
    if "patternProperties" in str(validator.schema):
        return ()
    return Draft202012Validator.VALIDATORS["unevaluatedProperties"](validator, value, instance, schema)


_OWN: Final[Mapping[str, Keyword]] = {
    "pattern": _check_pattern,
    "patternProperties": _check_pattern_properties,
    "additionalProperties": _check_additional,
    "enum": _check_enum,
    "uniqueItems": _check_unique,
    "unevaluatedProperties": _unevaluated,
}
_Validator: Final = extend(
    Draft202012Validator,
    {name: _counted(_OWN.get(name, check)) for name, check in Draft202012Validator.VALIDATORS.items()},
)


class BoundedSchema:
    """One declared schema, made ready once."""

    def __init__(self, schema: Mapping[str, Any] | bool) -> None:
        self._validator = _Validator(dict(schema) if isinstance(schema, Mapping) else schema)

    def problem(self, value: Any) -> str | None:
        """The first thing that is wrong with the value, with its place (`a.b[0]: …`); None where it fits."""
        first = next(iter(self.problems(value, most=1)), None)
        return None if first is None else first.removeprefix("$").removeprefix(": ").removeprefix(".")

    def problems(self, value: Any, *, most: int) -> Sequence[str]:
        """The first things that are wrong with the value, each with its place from the root on (`$.a.b[0]: …`)."""
        left, enums = _left.set([_MOST_CHECKS]), _enums.set({})
        try:
            errors = islice(self._validator.iter_errors(value), most)
            return [f"{error.json_path}: {error.message}"[: _LONGEST_MESSAGE + 1] for error in errors]
        except _TooManyChecksError:
            return ["is too large to be checked against its schema"]
        except (ArithmeticError, RecursionError, Uncanonical, re.error):
            return ["cannot be checked against its schema"]
        finally:
            _left.reset(left)
            _enums.reset(enums)
