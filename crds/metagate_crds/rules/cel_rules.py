"""CEL rules of a PolicyProfile: compiled within bounds, evaluated over one request.

Admission, compiling and loading call `compile_rule` alike, so that what was accepted once is what runs. The same rule
over the same values gives the same result at any time: replay depends on it.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from metagate_crds.rules.cel_source import (
    FUNCTIONS,
    OPERATORS,
    SORTED_KEYS,
    VARIABLES,
    CelSource,
    RuleRefused,
    read_source,
)

LARGEST_PAYLOAD_VALUES: Final = 2_000
"""More values than this, counted at every depth, fail every rule that reads the payload."""
LARGEST_WORK: Final = 1_000_000
"""See `CelSource.work`; about 40 ms."""
DEEPEST_PAYLOAD: Final = 64

# Fixed texts: those of the library quote what the payload holds.
_FAILURES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (KeyError, "reads a member that is not there"),
    (IndexError, "reads beyond the end of a list"),
    (ZeroDivisionError, "divides by zero"),
    (OverflowError, "computes a number out of range"),
    (TypeError, "combines values of different types"),
)


@dataclass(frozen=True, slots=True)
class RuleFailure:
    """A rule that gave neither true nor false. `reason` is one of a few fixed texts and holds no value."""

    reason: str


@dataclass(frozen=True, slots=True)
class PayloadSize:
    """`values` at every depth, the containers included; `characters` of texts and keys."""

    values: int
    characters: int


class CelVariables:
    """What the rules may read about one request; converted for CEL when a rule first reads it, and once.

    Not to be used by two threads at a time.
    """

    def __init__(
        self,
        *,
        payload: Any,
        request: Mapping[str, Any],
        caller: Mapping[str, Any],
        observed: Mapping[str, Any],
    ) -> None:
        self._values = {"payload": payload, "request": request, "caller": caller, "observed": observed}
        self._size: PayloadSize | RuleFailure | None = None
        self._context: Any = None
        self._converted: set[str] = set()

    def payload_size(self) -> PayloadSize | RuleFailure:
        """The size of the payload, or why no rule may read it."""
        if self._size is None:
            self._size = _measure(self._values["payload"])
        return self._size

    def context(self, names: frozenset[str]) -> Any:
        """The CEL context with these variables in it. Converting is what costs: each is converted once, if at all."""
        if self._context is None:
            self._context = _cel().Context(functions=_FUNCTIONS)
        for name in names - self._converted:
            self._context.add_variable(name, self._values[name])
            self._converted.add(name)
        return self._context


@dataclass(frozen=True, slots=True)
class CelRule:
    """A compiled rule. `variables`: which of payload, request, caller and observed it reads."""

    variables: frozenset[str]
    reads_payload: bool
    _source: CelSource
    _program: Any

    def evaluate(self, variables: CelVariables) -> bool | RuleFailure:
        """The rule's result for this request. Never raises."""
        if self.reads_payload:
            size = variables.payload_size()
            if isinstance(size, RuleFailure):
                return size
            if self._source.work(size.values, size.characters) > LARGEST_WORK:
                return RuleFailure("would cost too much over a payload of this size")
        try:
            result = self._program.execute(variables.context(self.variables))
        except Exception as error:  # noqa: BLE001 - whatever a rule fails by, the request is rejected and goes on
            return RuleFailure(_failure_text(error))
        return result if isinstance(result, bool) else RuleFailure("is neither true nor false")


def _failure_text(error: Exception) -> str:
    return next((text for type_, text in _FAILURES if isinstance(error, type_)), "fails")


def compile_rule(source: str) -> CelRule:
    """Compile the source of a rule. Raises RuleRefused, whose reason says what to change."""
    rule = _compiled(source)
    if isinstance(rule, RuleRefused):
        raise RuleRefused(rule.reason)
    return rule


# The same few rules are compiled for every tenant, at admission and again by each gate.
@lru_cache(maxsize=1_024)
def _compiled(source: str) -> CelRule | RuleRefused:
    try:
        return _compile(source)
    except RuleRefused as refused:
        return refused


def _compile(source: str) -> CelRule:
    parsed = read_source(source)
    try:
        _check_program(_cel().compile(source), parsed)
        program = _cel().compile(parsed.ordered())
    except RuleRefused:
        raise
    except Exception as error:
        raise RuleRefused("is not a CEL expression") from error
    return CelRule(frozenset(parsed.variables), "payload" in parsed.variables, parsed, program)


def _check_program(program: Any, parsed: CelSource) -> None:
    """Hold the library's own analysis against ours: where they differ, the source hides something from one of them."""
    surplus = set(program.functions()) - OPERATORS - FUNCTIONS
    if surplus:
        raise RuleRefused(f"may not use {', '.join(f'`{name}`' for name in sorted(surplus))}")
    if not set(program.variables()) <= parsed.variables | parsed.loop_variables:
        raise RuleRefused(f"may read {', '.join(VARIABLES)} only")


def _to_bool(value: object) -> bool:
    """CEL's `bool`, which the library lacks. Its error says no value, because the library logs it."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in _BOOLEANS:
        return _BOOLEANS[value]
    raise ValueError


def _sorted_keys(mapping: Mapping[Any, Any]) -> list[Any]:
    return sorted(mapping, key=lambda key: (type(key).__name__, key))


_FUNCTIONS: Final = {"bool": _to_bool, SORTED_KEYS: _sorted_keys}
_BOOLEANS: Final = dict.fromkeys(("1", "t", "true", "TRUE", "True"), True) | dict.fromkeys(
    ("0", "f", "false", "FALSE", "False"), False
)


def _measure(payload: Any) -> PayloadSize | RuleFailure:
    values = characters = 0
    level: list[Any] = [payload]
    # Level by level, and no further than the bounds: a payload may be nested deeper than Python recurses.
    for _ in range(DEEPEST_PAYLOAD):
        values += len(level)
        if values > LARGEST_PAYLOAD_VALUES:
            return RuleFailure("reads a payload of too many values")
        characters += sum(len(item) for item in level if isinstance(item, str))
        characters += sum(len(key) for item in level if isinstance(item, dict) for key in item)
        level = [inner for item in level for inner in _children(item)]
        if not level:
            return PayloadSize(values, characters)
    return RuleFailure("reads a payload that is nested too deeply")


def _children(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, list) else ()


@lru_cache(maxsize=1)
def _cel() -> Any:
    """The CEL library; imported when the first rule is compiled, because it brings a terminal's libraries along."""
    import cel  # noqa: PLC0415

    # It logs the errors of functions, on standard error where no logging is set up.
    logging.getLogger("cel").setLevel(logging.CRITICAL)
    return cel
