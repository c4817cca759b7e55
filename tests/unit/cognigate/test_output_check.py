"""What is wrong with a model's output is told to it, and finding out never takes long (CG-11)."""

import json
import time
from typing import Any

import pytest

from cognigate.output_check import output_problems
from legivellum_worker.plan_step import StepJob

PERMITTED = [f"v{number:04}" for number in range(500)]


def problems(schema: Any, value: Any) -> list[str]:
    job = StepJob({"instruction": "Answer.", "output": {"mime": "application/json", "schema": schema}})
    return output_problems(job, json.dumps(value))


def test_problems_are_named_with_their_places() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert problems(schema, {"n": 1}) == []
    assert problems(schema, {"n": "one"}) == ["$.n: 'one' is not of type 'integer'"]
    assert problems({"items": {"enum": ["a"]}}, ["b"] * 100) == [f"$[{n}]: 'b' is not one of ['a']" for n in range(20)]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"enum": PERMITTED}}, [PERMITTED[-1]] * 40_000),
        ({"items": {"enum": PERMITTED}}, ["no"] * 40_000),
        ({"pattern": "^(a+)+$"}, "a" * 5_000 + "!"),
        ({"uniqueItems": True}, [{"a": n} for n in range(20_000)]),
    ],
    ids=["enum", "not in enum", "pattern", "unique"],
)
def test_no_schema_keeps_the_process_busy(schema: Any, value: Any) -> None:
    """Compared item by item, or by an engine that backtracks, each took seconds to years."""
    began = time.process_time()
    problems(schema, value)
    assert time.process_time() - began < 2
