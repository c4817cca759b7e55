"""What agents send is judged by declared schemas in bounded time, whatever was declared."""

import time
from typing import Any

import pytest

from interrogate.mcp_gateway.input_schemas import InputSchemas
from legivellum.base.bounded_schema import BoundedSchema

CLOSED = {
    "type": "object",
    "properties": {"text": {"type": "string", "pattern": "^[a-z]+$"}, "n": {"type": "integer", "minimum": 3}},
    "required": ["text"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"text": "abc"}, None),
        ({"text": "abc", "n": 3}, None),
        ({"text": "abc", "n": 2}, "n: 2 is less than the minimum of 3"),
        ({"text": "ABC"}, "text: does not match '^[a-z]+$'"),
        ({"text": "abc", "x": 1}, "has a member that is not declared: 'x'"),
        ({}, "'text' is a required property"),
        ([], "[] is not of type 'object'"),
    ],
)
def test_the_first_problem_is_named_with_its_place(value: Any, problem: str | None) -> None:
    assert BoundedSchema(CLOSED).problem(value) == problem


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": False}, {"a1": 1}, True),
        ({"patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": False}, {"b1": 1}, False),
        ({"patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": {"type": "null"}}, {"b": None}, True),
        ({"additionalProperties": {"type": "null"}}, {"b": 1}, False),
        ({"uniqueItems": True}, [1, True, "1", None], True),
        ({"uniqueItems": True}, [{"a": 1}, {"a": 1.0}], False),
        ({"allOf": [{"properties": {"a": True}}], "unevaluatedProperties": False}, {"a": 1}, True),
        ({"allOf": [{"properties": {"a": True}}], "unevaluatedProperties": False}, {"b": 1}, False),
        ({"$defs": {"n": {"type": "number"}}, "items": {"$ref": "#/$defs/n"}}, [1, 2.5], True),
        ({"$defs": {"n": {"type": "number"}}, "items": {"$ref": "#/$defs/n"}}, ["x"], False),
        ({"pattern": "(?<=a)b"}, "anything", True),  # only an engine that backtracks knows it: left to the receiver
        (True, {"any": "thing"}, True),
    ],
)  # fmt: skip
def test_the_vocabulary_of_2020_12(schema: Any, value: Any, fits: bool) -> None:
    made = BoundedSchema(schema if isinstance(schema, dict) else {"allOf": [schema]})
    assert (made.problem(value) is None) is fits


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


_BOTH = {"items": {"$ref": "#/$defs/t"}, "type": "array"}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 5_000 + "!"),
        ({"patternProperties": {"^(a+)+$": False}}, {"a" * 60 + "!": 1}),
        ({"patternProperties": {"^(a+)+$": True}, "additionalProperties": False}, {"a" * 60 + "!": 1}),
        ({"patternProperties": {"^(a+)+$": True}, "unevaluatedProperties": False}, {"a" * 60 + "!": 1}),
        ({"$defs": {"t": {"anyOf": [_BOTH, _BOTH]}}, "$ref": "#/$defs/t"}, _nested(28)),
        ({"uniqueItems": True}, [{"a": n} for n in range(20_000)]),
        ({"items": {"type": "integer"}}, list(range(100_000))),
        ({"items": {"enum": [f"v{n:04}" for n in range(1_000)]}}, ["v0999"] * 40_000),
        ({"items": {"enum": [f"v{n:04}" for n in range(1_000)]}}, ["no"] * 40_000),
    ],
    ids=["pattern", "names", "other names", "unevaluated", "branches", "unique", "long", "enum", "not in enum"],
)  # fmt: skip
def test_no_schema_stops_the_process(schema: dict[str, Any], value: Any) -> None:
    """Each of these took Python's own engine or the library's comparison seconds to years."""
    made = BoundedSchema(schema)
    began = time.process_time()
    made.problem(value)
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("value", "fits"),
    [(1, True), (1.0, True), (True, False), ("1", False), ({"a": [1.0]}, True), ({"a": [True]}, False), (2**60, True), (2**60 + 1, False)],
    ids=str,
)  # fmt: skip
def test_a_value_of_an_enum(value: Any, fits: bool) -> None:
    """Numbers are equal by their value, and `true` is no number."""
    problem = BoundedSchema({"enum": [1, {"a": [1]}, 2**60]}).problem(value)
    assert (problem is None) == fits
    assert problem is None or "is not one of" in problem


def test_the_first_problems_only() -> None:
    """Each with its place; a value of a thousand wrong items makes no thousand sentences."""
    problems = BoundedSchema({"items": {"enum": ["a", "b"]}}).problems(["x"] * 1_000, most=3)
    assert problems == [f"$[{n}]: 'x' is not one of ['a', 'b']" for n in range(3)]


def test_what_is_too_large_to_check_is_refused() -> None:
    """Not let through: the receiver relies on the check."""
    assert (
        BoundedSchema({"items": {"type": "integer"}}).problem([0] * 60_000)
        == "is too large to be checked against its schema"
    )


def test_a_changed_declaration_is_another_schema() -> None:
    schemas = InputSchemas()
    assert schemas.problem(("t", "p", "c"), {"type": "string"}, 5) is not None
    assert schemas.problem(("t", "p", "c"), {"type": "integer"}, 5) is None
