"""Strict JSON: one reading of every text, or none."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legivellum.http import strict_json
from legivellum.http.problem_codes import Code
from legivellum.http.problems import RequestRefused

HOSTILE = [
    b"",
    b" ",
    b"{",
    b"}",
    b"{}{}",
    b"{} x",
    b"{'a':1}",
    b'{"a":1,}',
    b'{"a":1 "b":2}',
    b"[1,]",
    b"// x\n{}",
    b'{"a":1,"a":1}',
    b'{"a":1,"a":2}',
    b'{"x":{"a":1,"a":2}}',
    b'[{"a":1,"\\u0061":2}]',
    b"NaN",
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":-Infinity}',
    b'{"a":1e999}',
    b'{"a":-1e999}',
    b'{"a":' + b"9" * 5_000 + b"}",
    b'{"a":0.' + b"9" * 5_000 + b"}",
    b'{"a":01}',
    b'{"a":+1}',
    b'{"a":.5}',
    b'{"a":0x10}',
    b'{"a":True}',
    b'{"a":"\x00"}',
    b'{"a":"\\u0000"}',
    b'{"\\u0000":1}',
    b'{"a":"\\ud800"}',
    b'{"a":"\\udfff\\ud800"}',
    b'{"\\uDBFF":1}',
    b'{"a":"\n"}',
    b'{"a":"\\x41"}',
    b'{"a":"\\u12"}',
    b'{"a":"\xff"}',
    b'{"a":"\xc0\x80"}',
    b'{"a":"\xed\xa0\x80"}',
    b"\xef\xbb\xbf{}",
    '{"a":1}'.encode("utf-16"),
    '{"a":1}'.encode("utf-16-le"),
    '{"a":1}'.encode("utf-16-be"),
    '{"a":1}'.encode("utf-32"),
    '{"a":1}'.encode("utf-7") + b"+AGE-",
    b'{"a":1}\x00',
    b"\x00",
    b"\x1e{}",
    b"{}\x0c",
    "{\u00a0}".encode(),
    b"{a:1}",
    b"undefined",
    b"",
]


@pytest.mark.parametrize("raw", HOSTILE, ids=range(len(HOSTILE)))
def test_refuses_what_has_more_than_one_reading(raw: bytes) -> None:
    """Syntax errors and texts that two parsers may understand differently are 400, and are not quoted."""
    with pytest.raises(RequestRefused) as refused:
        strict_json.parse(raw)
    assert refused.value.problem.code is Code.MALFORMED_JSON
    assert refused.value.problem.status == 400
    assert b"99999" not in refused.value.problem.body()


@pytest.mark.parametrize("depth", [33, 200, 5_000, 30_000])
@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_refuses_depth(depth: int, left: bytes, right: bytes) -> None:
    """Nesting beyond 32 levels is 422 whatever the interpreter's stack could take."""
    with pytest.raises(RequestRefused) as refused:
        strict_json.parse(left * depth + b"1" + right * depth)
    assert refused.value.problem.code is Code.JSON_TOO_DEEP


def test_takes_the_allowed_depth() -> None:
    """32 levels are fine, and brackets inside strings are not levels."""
    assert strict_json.parse(b"[" * 32 + b"]" * 32) is not None
    assert strict_json.parse(json.dumps({"a": "[" * 500}).encode()) == {"a": "[" * 500}


def test_bounds_the_members() -> None:
    """1,000 members are fine, 1,001 are 422, however they are spread; colons in strings are not members."""
    flat = {f"k{n}": n for n in range(1_000)}
    assert strict_json.parse(json.dumps(flat).encode()) == flat
    assert strict_json.parse(json.dumps({"a": ":" * 2_000}).encode())
    for many in ({**flat, "one": 1}, [{"a": 1}] * 1_001):
        with pytest.raises(RequestRefused) as refused:
            strict_json.parse(json.dumps(many).encode())
        assert refused.value.problem.code is Code.JSON_TOO_MANY_KEYS


def test_takes_real_surrogate_pairs() -> None:
    """An escaped pair is one character, and an escaped backslash before u is text."""
    assert strict_json.parse(b'"\\ud83d\\ude00"') == "\U0001f600"
    assert strict_json.parse(b'"\\\\u0000"') == "\\u0000"


def test_only_objects_are_bodies() -> None:
    """A body that is JSON but no object is 422."""
    for raw in (b"[]", b"1", b'"x"', b"null", b"true"):
        with pytest.raises(RequestRefused) as refused:
            strict_json.parse_object(raw)
        assert refused.value.problem.code is Code.INVALID_REQUEST


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(_JSON, st.booleans())
def test_reads_what_others_write(value: object, ascii_only: bool) -> None:
    """Whatever plain JSON a caller writes is read as the standard library reads it."""
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert strict_json.parse(raw) == json.loads(raw)


@given(st.binary(max_size=200))
def test_never_raises_anything_else(raw: bytes) -> None:
    """No bytes whatsoever get anything out of it but a value or a refusal."""
    with suppress(RequestRefused):
        strict_json.parse(raw)
