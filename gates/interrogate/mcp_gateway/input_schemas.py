"""Whether what a client sends fits the declared JSON Schema, in bounded time.

The schemas are declared by tenants, and often copied from somebody's MCP server; the values come from agents. A pattern
like `^(a+)+$` stops Python's regular expressions for minutes, and schemas that apply each other to every member of a
value multiply. So patterns run in an engine whose time is linear, sets are compared by digest, and the number of checks
is bounded: what cannot be checked within the bound is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from pydantic_core import SchemaError, SchemaValidator, core_schema
from pydantic_core import ValidationError as PatternMismatch

from interrogate.json_digest import full_canonical
from legivellum.base.canonical_json import Uncanonical

_MOST_CHECKS: Final = 50_000
"""Of members of schemas, for one value: about half a second."""
_LONGEST_MESSAGE: Final = 240
_KEPT: Final = 1_024

_left: ContextVar[list[int]] = ContextVar("checks_left")


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


def _unevaluated(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
    """Left out beside `patternProperties`: the library would match their patterns in the engine that backtracks."""
    if "patternProperties" in str(validator.schema):
        return ()
    return Draft202012Validator.VALIDATORS["unevaluatedProperties"](validator, value, instance, schema)


_OWN: Final[Mapping[str, Keyword]] = {
    "pattern": _check_pattern,
    "patternProperties": _check_pattern_properties,
    "additionalProperties": _check_additional,
    "uniqueItems": _check_unique,
    "unevaluatedProperties": _unevaluated,
}
_Validator: Final = extend(
    Draft202012Validator,
    {name: _counted(_OWN.get(name, check)) for name, check in Draft202012Validator.VALIDATORS.items()},
)


class InputSchema:
    """One declared schema, made ready once."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._validator = _Validator(dict(schema))

    def problem(self, value: Any) -> str | None:
        """The first thing that is wrong with the value, with its place; None where it fits."""
        token = _left.set([_MOST_CHECKS])
        try:
            error = next(self._validator.iter_errors(value), None)
        except _TooManyChecksError:
            return "is too large to be checked against its schema"
        except (ArithmeticError, RecursionError, Uncanonical, re.error):
            return "cannot be checked against its schema"
        finally:
            _left.reset(token)
        if error is None:
            return None
        place = error.json_path.removeprefix("$").lstrip(".")
        return f"{place + ': ' if place else ''}{error.message}"[:_LONGEST_MESSAGE]


class InputSchemas:
    """Those of declared capabilities. A schema is made ready again only when its declaration changed."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], tuple[Mapping[str, Any], InputSchema]] = {}

    def problem(self, key: tuple[Any, ...], schema: Mapping[str, Any], value: Any) -> str | None:
        """`key` names the capability; a declaration that changed is another object."""
        kept = self._kept.get(key)
        if kept is None or kept[0] is not schema:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            kept = self._kept[key] = (schema, InputSchema(schema))
        return kept[1].problem(value)
