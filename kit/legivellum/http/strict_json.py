"""JSON as RFC 8259 and I-JSON mean it, read with the standard library's C scanner.

Two parsers that disagree about one text are an attack (which of two members counts?). So whatever has more than one
reading is refused: duplicate members, NaN and Infinity, numbers beyond a float, NUL, lone surrogates, a byte order
mark, any encoding but UTF-8. Depth and the number of members are bounded.

The common body is small and plain, and cheap byte counts show that it cannot break a rule; only a body that could is
walked.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from legivellum.http.problem_codes import Code
from legivellum.http.problems import RequestRefused, refuse

MAX_DEPTH = 32
MAX_KEYS = 1_000
MAX_NUMBER_CHARS = 64

_SPACE = re.compile(r"[ \t\n\r]*")
_SUSPICIOUS_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


class _AmbiguousError(ValueError):
    """Syntactically JSON, but two readers may understand it differently."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _AmbiguousError("an object has the same member twice")
    return members


def _constant(_name: str) -> float:
    raise _AmbiguousError("NaN and Infinity are not JSON")


def _float(text: str) -> float:
    if len(text) > MAX_NUMBER_CHARS or not math.isfinite(number := float(text)):
        raise _AmbiguousError("a number is out of range")
    return number


def _int(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARS:
        raise _AmbiguousError("a number is out of range")
    return int(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_constant=_constant, parse_float=_float, parse_int=_int, strict=True
)


_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def encode(value: Any) -> bytes:
    """JSON without white space, in UTF-8. Raises ValueError for a number that JSON does not have."""
    return _ENCODE(value).encode()


def parse(raw: bytes, *, max_depth: int = MAX_DEPTH, max_keys: int = MAX_KEYS) -> Any:
    """The value of `raw`. Raises Refused: MALFORMED_JSON (400), JSON_TOO_DEEP or JSON_TOO_MANY_KEYS (422)."""
    try:
        value = _DECODER.decode(raw.decode())
    except RecursionError:
        raise too_deep(max_depth) from None
    except _AmbiguousError as reason:
        raise refuse(Code.MALFORMED_JSON, f"The body is not strict JSON: {reason}.") from None
    except ValueError:  # JSONDecodeError and UnicodeDecodeError; their texts quote the body
        raise refuse(Code.MALFORMED_JSON, "The body is not JSON in UTF-8.") from None
    if raw.count(b"{") + raw.count(b"[") > max_depth and _depth(value) > max_depth:
        raise too_deep(max_depth)
    if raw.count(b":") > max_keys and _keys(value) > max_keys:
        raise refuse(Code.JSON_TOO_MANY_KEYS, f"The body has more than {max_keys} members.")
    if _SUSPICIOUS_ESCAPE.search(raw) and not all(map(_is_text, _strings(value))):
        raise refuse(Code.MALFORMED_JSON, "The body is not strict JSON: a string has a NUL or a lone surrogate.")
    return value


def parse_object(raw: bytes) -> dict[str, Any]:
    """Like parse, and the value must be an object (422 otherwise)."""
    value = parse(raw)
    if not isinstance(value, dict):
        raise refuse(Code.INVALID_REQUEST, "The body must be a JSON object.")
    return value


def member_source(raw: bytes, name: str) -> bytes | None:
    """The value of a member as it stands in `raw`, byte for byte; None where there is no such member.

    `raw` is an object that `parse_object` has read: nothing is checked again.
    """
    text = raw.decode()
    position = _skip_space(text, 0) + 1
    while text[position := _skip_space(text, position)] != "}":
        member, position = _DECODER.raw_decode(text, position)
        start = _skip_space(text, _skip_space(text, position) + 1)
        _, end = _DECODER.raw_decode(text, start)
        if member == name:
            return text[start:end].encode()
        position = _skip_space(text, end)
        if text[position] == ",":
            position += 1
    return None


def _skip_space(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    return space.end() if space is not None else position


def too_deep(limit: int) -> RequestRefused:
    return refuse(Code.JSON_TOO_DEEP, f"The body nests deeper than {limit} levels.")


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _depth(value: Any) -> int:
    """Levels of containers; iterative, because the value may be as deep as the interpreter's own stack."""
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [child for container in level for child in _children(container)]
    return depth


def _everything(value: Any) -> Iterator[Any]:
    stack = [value]
    while stack:
        item = stack.pop()
        yield item
        stack.extend(_children(item))


def _keys(value: Any) -> int:
    return sum(len(item) for item in _everything(value) if isinstance(item, dict))


def _strings(value: Any) -> Iterator[str]:
    for item in _everything(value):
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            yield from item


def _is_text(text: str) -> bool:
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
