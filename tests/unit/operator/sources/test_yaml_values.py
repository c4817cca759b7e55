"""Plain scalars become what `kubectl` makes of them; `tests/operator/test_kubectl_values.py` asks kubectl itself."""

import math
from typing import Any

import pytest
from tests.unit.operator.sources.scalars import SCALARS

from metagate_operator.sources.yaml_values import is_plain_text, parse_document


@pytest.mark.parametrize(("text", "value"), SCALARS.items())
def test_scalars(text: str, value: Any) -> None:
    """Value and type: `1.0` is the integer 1 there, and what only looks like a number is text."""
    a = parse_document(f"a: {text}", 1)[0]["a"]
    assert (type(a), a) == (type(value), value)


@pytest.mark.parametrize("text", ["9" * 5000, "0x" + "f" * 5000, "1" + "0" * 400 + ".5", "-" + "9" * 400])
def test_a_number_of_any_length_is_read(text: str) -> None:
    """Beyond a float's range it is text; Python itself refuses to convert thousands of digits."""
    assert parse_document(f"a: {text}", 1)[0]["a"] == text


@pytest.mark.parametrize("text", ["08", "1e3", "y", "N", "0o17", "+.inf", "1_0", "0b1", "", "~", "off", ".5"])
def test_what_must_be_quoted_to_stay_text(text: str) -> None:
    """Those that are read as something else without quotes, or are refused."""
    assert not is_plain_text(text)
    assert parse_document(f"a: '{text}'", 1)[0]["a"] == text


def test_numbers_are_finite() -> None:
    assert all(math.isfinite(value) for value in SCALARS.values() if isinstance(value, float))
