"""The quick encoder writes what RFC 8785 writes, or is not used."""

import json
import math

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from legivellum.base.canonical_json import Uncanonical, canonical, digest, encode_members, hex_digest, join_members

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@given(JSON)
def test_it_is_rfc_8785(value: object) -> None:
    """Byte for byte, and the same values have no form."""
    try:
        expected = rfc8785.dumps(value)  # type: ignore[arg-type]
    except rfc8785.CanonicalizationError:
        with pytest.raises(Uncanonical):
            canonical(value)
    else:
        assert canonical(value) == expected


@given(st.dictionaries(TEXT, JSON.filter(lambda value: "e+" not in json.dumps(value)), max_size=5))
def test_members_join_to_the_whole(section: dict[str, object]) -> None:
    """An object of canonical members is the canonical object, whatever its keys are."""
    try:
        whole = canonical(section)
    except Uncanonical:
        return
    assert join_members(encode_members(section)) == whole


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53, -(2**53), "\ud800", {"\ud800": 1}, {1: 2}, {"a": {1, 2}}])
def test_what_has_no_form(value: object) -> None:
    """A number beyond what a double holds, text that is not Unicode, what is no JSON: Uncanonical, a ValueError."""
    with pytest.raises(Uncanonical):
        canonical(value)


def test_what_would_be_read_back_as_something_else() -> None:
    """A double that is written without a point has a form, but not for whoever reads it again."""
    assert canonical({"a": 1e20}) == b'{"a":100000000000000000000}'
    with pytest.raises(Uncanonical):
        canonical({"a": [1e20]}, round_trip=True)


def test_depth_is_bounded_by_an_error() -> None:
    """What nests too deep for the interpreter has no form, and nothing else happens."""
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(Uncanonical):
        canonical(value)


def test_digests() -> None:
    """Of the bytes, as bytes and in hex."""
    assert (
        digest(b"{}").hex() == hex_digest(b"{}") == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )
