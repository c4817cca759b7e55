"""One YAML document to JSON-like values with the line of each, without recursion, and bounded.

Scalars resolve as they do for `kubectl` (go-yaml v2: YAML 1.1 without sexagesimal numbers and dates, which stay text).
Keys are text and unique. Aliases and merge keys work, but what they expand to counts, so a "YAML bomb" is refused after
`MAX_VALUES` values.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import yaml

MAX_VALUES: Final = 200_000
MAX_DEPTH: Final = 64
INVALID_YAML: Final = "InvalidYAML"

_FRAMING: Final = frozenset(
    {yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent}
)
_ENDS: Final = frozenset({yaml.MappingEndEvent, yaml.SequenceEndEvent})
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it is: ten times faster


class YamlError(Exception):
    def __init__(self, line: int, message: str, path: str = "", reason: str = INVALID_YAML) -> None:
        super().__init__(message)
        self.line, self.message, self.path, self.reason = line, message, path, reason


def parse_document(chunk: str, first: int) -> tuple[Any, dict[str, int]]:
    """The value of a document whose first line has this number, and the line of each path in it.

    Raises:
        Broken: it is not YAML, or more than is taken.

    """
    return _Values(chunk, first).read()


def is_plain_text(text: str) -> bool:
    """Whether the text, written without quotes, is read as this text and not as a number, a boolean or null."""
    try:
        return isinstance(_resolve(text, 0), str)
    except YamlError:
        return False


class _Values:
    """Builds JSON-like values from parser events without recursion, counting everything it makes."""

    def __init__(self, chunk: str, first: int) -> None:
        self._chunk = chunk
        self._first = first
        self._made = 0
        self._lines: dict[str, int] = {}
        self._anchors: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}

    def read(self) -> tuple[Any, dict[str, int]]:
        loader = _Loader(self._chunk)
        try:
            root = self._root(loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise YamlError(
                self._first + (mark.line if mark else 0), str(error.problem or "cannot be parsed")
            ) from None
        except yaml.YAMLError:  # the reader's: characters that YAML does not allow
            raise YamlError(self._first, "holds characters that YAML does not allow") from None
        finally:
            loader.dispose()
        return root, self._lines

    def _root(self, loader: Any) -> Any:
        root: Any = None
        seen = False
        stack: list[_Frame] = []  # one per open collection
        while loader.check_event():
            event = loader.get_event()
            kind = type(event)
            if kind in _FRAMING:
                continue
            line = self._first + event.start_mark.line
            if kind in _ENDS:
                frame = stack.pop()
                if isinstance(frame.value, dict) and frame.merges:
                    for merged in frame.merges:
                        for key, value in merged.items():
                            frame.value.setdefault(key, value)
                if frame.anchor:
                    self._anchors[frame.anchor] = frame.value
                    self._sizes[frame.anchor] = self._made - frame.before
                continue
            parent = stack[-1] if stack else None
            if parent is None and seen:
                raise YamlError(line, "more than one value in a document")
            if parent is not None and parent.wants_key:
                self._key(parent, event, line)
                continue
            if parent is not None and parent.key_line:
                line = parent.key_line  # a finding about a value points at its key, not at the value's first child
            self._count(1, line)
            value, opened = self._value(event, line)
            path = self._place(parent, value, line)
            if parent is None:
                root, seen = value, True
            if opened:
                if len(stack) >= MAX_DEPTH:
                    raise YamlError(line, f"nested deeper than {MAX_DEPTH}", path)
                stack.append(_Frame(value, path, event.anchor, self._made))
        return root

    def _count(self, values: int, line: int) -> None:
        self._made += values
        if self._made > MAX_VALUES:
            raise YamlError(line, f"expands to more than {MAX_VALUES} values")

    def _key(self, parent: _Frame, event: Any, line: int) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            raise YamlError(line, "a key must be text", parent.path)
        key = event.value
        merge = key == "<<" and event.implicit[0]
        if not merge and event.implicit[0] and not isinstance(_scalar(event, line), str):
            raise YamlError(line, "a key must be text: put it in quotes", parent.path)
        if not merge and key in parent.value:
            raise YamlError(line, "this key is there twice", _below(parent.path, key))
        parent.key, parent.key_line, parent.merging, parent.wants_key = key, line, merge, False
        if event.anchor:
            self._anchors[event.anchor], self._sizes[event.anchor] = key, 1

    def _value(self, event: Any, line: int) -> tuple[Any, bool]:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:  # unknown, or of a collection that is still open
                raise YamlError(line, "an alias without its anchor")
            self._count(self._sizes[event.anchor], line)
            return self._anchors[event.anchor], False
        tag = event.tag
        if tag is not None and tag != "!" and tag not in _TAGS:
            raise YamlError(line, "a tag that is not plain data")
        if isinstance(event, yaml.MappingStartEvent):
            return {}, True
        if isinstance(event, yaml.SequenceStartEvent):
            return [], True
        value = _scalar(event, line)
        if event.anchor:
            self._anchors[event.anchor], self._sizes[event.anchor] = value, 1
        return value, False

    def _place(self, parent: _Frame | None, value: Any, line: int) -> str:
        """Puts the value where it belongs and returns its path, whose line is remembered."""
        if parent is None:
            path = ""
        elif isinstance(parent.value, list):
            path = f"{parent.path}[{len(parent.value)}]"
            parent.value.append(value)
        else:
            path = _below(parent.path, parent.key)
            parent.wants_key = True
            if parent.merging:
                merged = value if isinstance(value, list) else [value]
                if not all(isinstance(mapping, dict) for mapping in merged):
                    raise YamlError(line, "<< needs a mapping", path)
                parent.merges.extend(merged)
            else:
                parent.value[parent.key] = value
        self._lines[path] = line
        return path


_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")


def _below(path: str, key: str) -> str:
    """The path of a key, written as findings write it."""
    if not _PLAIN.fullmatch(key):
        return f"{path}[{json.dumps(key)}]"
    return f"{path}.{key}" if path else key


@dataclass(slots=True)
class _Frame:
    value: Any
    path: str
    anchor: str | None
    before: int
    wants_key: bool = field(init=False)
    key: str = ""
    key_line: int = 0
    """Of the key whose value comes next; 0 in a sequence."""
    merging: bool = False
    merges: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.wants_key = isinstance(self.value, dict)


_TAG: Final = "tag:yaml.org,2002:"
_TAGS: Final = frozenset(f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset(
    {"y", "Y"} | {form for word in ("true", "yes", "on") for form in (word, word.title(), word.upper())}
)
_FALSE: Final = frozenset(
    {"n", "N"} | {form for word in ("false", "no", "off") for form in (word, word.title(), word.upper())}
)
_NOT_IN_JSON: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INT: Final = re.compile(r"[-+]?(0[bB][01]+|0[oO][0-7]+|0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_POINT_FLOAT: Final = re.compile(r"\.[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+(_[0-9]+)*)?")
_INT64: Final = 2**63


def _scalar(event: Any, line: int) -> Any:
    text: str = event.value
    tag = event.tag
    if tag in {f"{_TAG}str", "!"} or (tag is None and not event.implicit[0]):
        return text
    value = _resolve(text, line)
    if tag is not None and not _fits(tag, value):
        raise YamlError(line, f"tagged !!{tag.removeprefix(_TAG)}, and is not one")
    return value


def _fits(tag: str, value: Any) -> bool:
    match tag.removeprefix(_TAG):
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            return value is None


def _resolve(text: str, line: int) -> Any:
    """A plain scalar as `kubectl` sends it: resolved as go-yaml v2 does, then written as JSON and read by the API
    server, so that `1.0` is the integer 1 and an integer of more than 64 bits is a float.
    """
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _NOT_IN_JSON.fullmatch(text):
        raise YamlError(line, "not a number that JSON knows")
    if text[0] == ".":
        number = _float(text.replace("_", "")) if _POINT_FLOAT.fullmatch(text) else None
    elif text[0] in "+-0123456789":
        number = _number(text.replace("_", ""))
    else:
        number = None
    return text if number is None else number


def _number(digits: str) -> int | float | None:
    """None for what only looks like a number; `08` is a float there, and `0x` with more than 64 bits is text."""
    if _INT.fullmatch(digits) and (integer := _integer(digits)) is not None:
        return integer
    return _float(digits) if _FLOAT.fullmatch(digits) else None


def _integer(digits: str) -> int | float | None:
    if digits.lstrip("+-")[0] != "0" and len(digits) > 20:
        return None  # longer than any of 64 bits; int() itself gives up after some thousand digits
    unsigned = digits.lstrip("+-").lower()
    octal = len(unsigned) > 1 and unsigned[1].isdigit() and unsigned[0] == "0"
    value = int(unsigned, 8 if octal else 0) * (-1 if digits[0] == "-" else 1)
    if -_INT64 <= value < _INT64:
        return value
    return float(value) if digits[0].isdigit() and value < 2 * _INT64 else None


def _float(digits: str) -> int | float | None:
    """None beyond the range of a float: that is text."""
    value = float(digits)
    if abs(value) == float("inf"):
        return None
    if not value.is_integer():
        return value
    written = int(Decimal(repr(value)))  # a float travels as its shortest digits: 1234567890123456768 ends in 800
    return written if -_INT64 <= written < _INT64 else value
