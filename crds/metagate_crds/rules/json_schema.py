"""Whether a value is a JSON Schema of draft 2020-12 that needs nothing from outside of itself.

Only the vocabularies of 2020-12 are checked, member by member; an unknown member is an annotation and may be anything.
Each `$ref` must lead to a schema within the same document, and no schema may lead back to itself at the same place of
an instance: a validator would not come to an end. Nothing here evaluates a schema.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

Path = tuple[str | int, ...]
"""Where in the document: keys and positions."""
Problem = tuple[Path, str]

_TYPES: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_IN_ONE: Final = ("not", "if", "then", "else")
_ONE: Final = frozenset(
    {
        *_IN_ONE, "additionalProperties", "unevaluatedProperties", "propertyNames", "items", "unevaluatedItems",
        "contains", "contentSchema",
    }
)  # fmt: skip
_MANY: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
_TEXTS: Final = frozenset(
    {
        "$anchor", "$comment", "$dynamicAnchor", "$dynamicRef", "$id", "$ref", "$schema", "contentEncoding",
        "contentMediaType", "description", "format", "title",
    }
)  # fmt: skip
_COUNTS: Final = frozenset(
    {
        "maxContains", "maxItems", "maxLength", "maxProperties", "minContains", "minItems", "minLength",
        "minProperties",
    }
)  # fmt: skip
_NUMBERS: Final = frozenset({"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"})
_FLAGS: Final = frozenset({"deprecated", "readOnly", "uniqueItems", "writeOnly"})
_LONGEST_PATTERN: Final = 4_096


def schema_problems(schema: Any) -> list[Problem]:
    """What is wrong with it, each with the path from its root. Bounded by the size of the value, and never raises."""
    places = dict(_places(schema, ()))
    problems = [problem for path, place in places.items() for problem in _own_problems(path, place)]
    references = {} if problems else _references(places)
    problems += [
        (path, "must lead to a schema within this one") for path, target in references.items() if target is None
    ]
    return problems or _endless(places, references)


def _places(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every place where a schema stands, from the outside in."""
    yield path, value
    if not isinstance(value, dict):
        return
    for name, member in value.items():
        if name in _ONE:
            yield from _places(member, (*path, name))
        elif name in _MANY and isinstance(member, list):
            for index, item in enumerate(member):
                yield from _places(item, (*path, name, index))
        elif name in _NAMED and isinstance(member, dict):
            for key, item in member.items():
                yield from _places(item, (*path, name, key))


def _own_problems(path: Path, place: Any) -> Iterator[Problem]:
    """What is wrong at one place, without the schemas inside."""
    if isinstance(place, bool):
        return
    if not isinstance(place, dict):
        yield path, "must be a JSON Schema: an object, true or false"
        return
    for name, member in place.items():
        message = _member_problem(name, member)
        if message is None and name == "$id" and path:
            message = "may stand at the root only: it would begin another document"
        if message is not None:
            yield (*path, name), message


def _member_problem(name: str, member: Any) -> str | None:
    check = _CHECKS.get(name)
    return None if check is None else check(member)


def _is_text(member: Any) -> str | None:
    return None if isinstance(member, str) else "must be text"


def _is_dialect(member: Any) -> str | None:
    return None if isinstance(member, str) and member.rstrip("#") == DIALECT else f"must be {DIALECT}"


def _is_count(member: Any) -> str | None:
    sound = isinstance(member, int | float) and not isinstance(member, bool) and member >= 0 and member == int(member)
    return None if sound else "must be an integer that is not negative"


def _is_number(member: Any) -> str | None:
    return None if isinstance(member, int | float) and not isinstance(member, bool) else "must be a number"


def _is_divisor(member: Any) -> str | None:
    return _is_number(member) or (None if member > 0 else "must be greater than 0")


def _is_flag(member: Any) -> str | None:
    return None if isinstance(member, bool) else "must be true or false"


def _is_list(member: Any) -> str | None:
    return None if isinstance(member, list) else "must be a list"


def _is_schema_list(member: Any) -> str | None:
    return None if isinstance(member, list) and member else "must be a list of at least one schema"


def _is_schema_map(member: Any) -> str | None:
    return None if isinstance(member, dict) else "must be an object of schemas"


def _is_pattern_map(member: Any) -> str | None:
    if not isinstance(member, dict):
        return "must be an object of schemas"
    return None if all(_is_pattern(key) is None for key in member) else "must have regular expressions as its keys"


def _is_name_list(member: Any) -> str | None:
    sound = isinstance(member, list) and all(isinstance(item, str) for item in member)
    return None if sound and len(set(member)) == len(member) else "must be a list of texts without repetition"


def _is_name_lists(member: Any) -> str | None:
    sound = isinstance(member, dict) and all(_is_name_list(item) is None for item in member.values())
    return None if sound else "must be an object of lists of texts"


def _is_type(member: Any) -> str | None:
    names = member if isinstance(member, list) else [member]
    sound = names and all(isinstance(name, str) and name in _TYPES for name in names) and len(set(names)) == len(names)
    return None if sound else f"must be one or several of {', '.join(sorted(_TYPES))}"


def _is_pattern(member: Any) -> str | None:
    if not isinstance(member, str):
        return "must be text"
    if len(member) > _LONGEST_PATTERN or not _compiles(member):
        return "must be a regular expression that can be evaluated"
    return None


@lru_cache(maxsize=1_024)
def _compiles(pattern: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `[[a]` will mean something else in a later Python; here it compiles
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError):
            return False
    return True


_CHECKS: Final[Mapping[str, Callable[[Any], str | None]]] = {
    **dict.fromkeys(_TEXTS, _is_text),
    **dict.fromkeys(_COUNTS, _is_count),
    **dict.fromkeys(_NUMBERS, _is_number),
    **dict.fromkeys(_FLAGS, _is_flag),
    **dict.fromkeys(_MANY, _is_schema_list),
    **dict.fromkeys(_NAMED, _is_schema_map),
    "$schema": _is_dialect,
    "dependentRequired": _is_name_lists,
    "enum": _is_list,
    "examples": _is_list,
    "multipleOf": _is_divisor,
    "pattern": _is_pattern,
    "patternProperties": _is_pattern_map,
    "required": _is_name_list,
    "type": _is_type,
}


def _references(places: Mapping[Path, Any]) -> dict[Path, Path | None]:
    """Where each reference leads, by its own path; None where it leads to no schema of this document."""
    targets: dict[str, Path] = {"#": ()}
    for path, place in places.items():
        pointer = "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)
        targets[f"#{pointer}"] = path
        if isinstance(place, dict):
            for name in ("$anchor", "$dynamicAnchor"):
                if name in place:
                    targets[f"#{place[name]}"] = path
    return {
        (*path, name): targets.get(unquote(place[name]))
        for path, place in places.items()
        if isinstance(place, dict)
        for name in ("$ref", "$dynamicRef")
        if name in place
    }


def _endless(places: Mapping[Path, Any], references: Mapping[Path, Path | None]) -> list[Problem]:
    """References by which a schema applies itself to the very same value again."""
    done: set[Path] = set()
    for start in places:
        # A stack of iterators instead of recursion: a chain may be as long as the document has schemas.
        trail: dict[Path, None] = {start: None}
        stack = [(start, _applied(start, places, references))]
        while stack:
            path, following = stack[-1]
            step = next(following, None)
            if step is None:
                done.add(path)
                del trail[path]
                stack.pop()
            elif step in trail:
                return [(path, "leads back to itself without an end")]
            elif step not in done:
                trail[step] = None
                stack.append((step, _applied(step, places, references)))
    return []


def _applied(path: Path, places: Mapping[Path, Any], references: Mapping[Path, Path | None]) -> Iterator[Path]:
    """The schemas that this one applies to the same value as itself."""
    place = places[path]
    if not isinstance(place, dict):
        return
    for name, member in place.items():
        if name in {"$ref", "$dynamicRef"}:
            target = references.get((*path, name))
            if target is not None:
                yield target
        elif name in _IN_ONE:
            yield (*path, name)
        elif name in {"allOf", "anyOf", "oneOf"}:
            yield from ((*path, name, index) for index in range(len(member)))
        elif name == "dependentSchemas":
            yield from ((*path, name, key) for key in member)
