"""YAML text to declared documents, with the line of everything, and bounded.

One file may hold several documents. They are parsed one by one, so that a broken one does not hide its neighbours.
Scalars resolve as they do for `kubectl` (YAML 1.1 without sexagesimal numbers and dates, which stay text); keys are
text and unique; aliases and merge keys work, but what they expand to counts, so a "YAML bomb" is refused after
`MAX_VALUES` values.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from metagate_crds.declared import ObjectKey
from metagate_crds.kinds import API_VERSION, GROUP, KINDS

DEFAULT_NAMESPACE: Final = "default"
NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

MAX_BYTES: Final = 4 * 1024 * 1024
MAX_VALUES: Final = 200_000
MAX_DEPTH: Final = 64

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it is: ten times faster

INVALID_YAML: Final = "InvalidYAML"
INVALID_DOCUMENT: Final = "InvalidDocument"


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding in a file, printed as `file:line path: reason: message`. It never holds a declared value."""

    file: str
    line: int
    path: str
    reason: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return (
            f"{where} {self.path}: {self.reason}: {self.message}"
            if self.path
            else f"{where} {self.reason}: {self.message}"
        )


@dataclass(frozen=True, slots=True)
class Document:
    """One declared object as it stands in a file. `spec` is raw: it may be anything."""

    kind: str
    namespace: str
    name: str
    spec: Any
    spec_digest: str
    file: str
    line: int
    lines: Mapping[str, int] = field(repr=False)

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(self.kind, self.namespace, self.name)

    def line_of(self, path: str) -> int:
        """The line of a path like `spec.services.mail.auth` or `spec.components[2]`, or of its nearest parent."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.line


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds. `broken` says that something of it could not be read, so that nothing may be concluded from
    absence.
    """

    documents: tuple[Document, ...] = ()
    problems: tuple[Problem, ...] = ()
    skipped: int = 0

    @property
    def broken(self) -> bool:
        return bool(self.problems)


class _Broken(Exception):  # noqa: N818 - carries one problem to where the file is known
    def __init__(self, line: int, message: str, path: str = "", reason: str = INVALID_YAML) -> None:
        super().__init__(message)
        self.line, self.message, self.path, self.reason = line, message, path, reason


def read_documents(raw: bytes, file: str) -> Contents:
    """Every document of ours in the text of one file; documents of other API groups are skipped and counted."""
    if len(raw) > MAX_BYTES:
        return Contents(problems=(Problem(file, 0, "", INVALID_YAML, f"larger than {MAX_BYTES // 2**20} MiB"),))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return Contents(problems=(Problem(file, line, "", INVALID_YAML, "not UTF-8"),))
    documents: list[Document] = []
    problems: list[Problem] = []
    skipped = 0
    for first, chunk in _chunks(text):
        try:
            document = _document(chunk, file, first)
        except _Broken as broken:
            problems.append(Problem(file, broken.line, broken.path, broken.reason, broken.message))
            continue
        if document is None:
            skipped += 1
        elif document.kind:
            documents.append(document)
    return Contents(tuple(documents), tuple(problems), skipped)


def spans(lines: Sequence[str]) -> list[tuple[int, int]]:
    """Where the documents of a file stand, as half-open ranges of line indexes, markers left out.

    `---` and `...` in the first column can be nothing else in YAML; what follows a marker in its line belongs to the
    document.
    """
    found: list[tuple[int, int]] = []
    first = 0
    for index, line in enumerate(lines):
        if _MARKER.match(line):
            found.append((first, index))
            first = index if line[3:].strip() else index + 1
    return [*found, (first, len(lines))]


_MARKER: Final = re.compile(r"(---|\.\.\.)(\s|$)")


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """The documents of a file as (first line, text), without their markers."""
    lines = text.split("\n")  # splitlines() would also split at U+2028 and its like
    for first, last in spans(lines):
        chunk = lines[first:last]
        if chunk and _MARKER.match(chunk[0]):
            chunk[0] = chunk[0][3:]
        yield first + 1, "\n".join(chunk)


def _document(chunk: str, file: str, first: int) -> Document | None:
    """The document, None for one of another API group; one without content has no kind."""
    if all(not line.strip() or line.lstrip().startswith("#") or line.startswith("%") for line in chunk.splitlines()):
        return Document("", "", "", None, "", file, first, {})
    value, lines = _Values(chunk, first).read()
    if not isinstance(value, dict):
        raise _Broken(
            first, "a document must be a mapping with apiVersion, kind, metadata and spec", reason=INVALID_DOCUMENT
        )
    version, kind = value.get("apiVersion"), value.get("kind")

    def refuse(path: str, message: str) -> _Broken:
        found = path
        while found and found not in lines:
            found = found[: max(found.rfind("."), 0)]
        return _Broken(lines.get(found, lines.get("", first)), message, path, INVALID_DOCUMENT)

    if not isinstance(version, str) or not version:
        raise refuse("apiVersion", f"must be {API_VERSION}")
    if not isinstance(kind, str) or not kind:
        raise refuse("kind", f"must be one of {', '.join(KINDS)}")
    if version != API_VERSION:
        if kind in KINDS or version.startswith(GROUP):
            raise refuse("apiVersion", f"must be {API_VERSION}")
        return None
    if kind not in KINDS:
        raise refuse("kind", f"must be one of {', '.join(KINDS)}")
    metadata = value.get("metadata")
    if not isinstance(metadata, dict):
        raise refuse("metadata", "must be a mapping with a name")
    name = metadata.get("name")
    if not isinstance(name, str) or len(name) > 253 or not NAME.fullmatch(name):
        raise refuse("metadata.name", "must be lower case letters, digits, - and . (at most 253)")
    namespace = metadata.get("namespace")
    if not KINDS[kind].namespaced:
        if namespace not in (None, ""):
            raise refuse("metadata.namespace", f"{kind} is cluster-scoped: leave the namespace out")
        namespace = ""
    elif namespace is None:
        namespace = DEFAULT_NAMESPACE
    elif not isinstance(namespace, str) or not NAMESPACE.fullmatch(namespace):
        raise refuse("metadata.namespace", "must be lower case letters, digits and - (at most 63)")
    for key in value:
        if key not in {"apiVersion", "kind", "metadata", "spec", "status"}:
            raise refuse(key, "is not a field of a declared object (apiVersion, kind, metadata, spec)")
    spec = value.get("spec")
    return Document(kind, namespace, name, spec, spec_digest(spec), file, lines.get("", first), lines)


def spec_digest(spec: Any) -> str:
    """What decides whether a spec changed: sha256 of its values, whatever their order and spelling in the file."""
    return hashlib.sha256(
        json.dumps(spec, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")
    ).hexdigest()


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
            raise _Broken(self._first + (mark.line if mark else 0), str(error.problem or "cannot be parsed")) from None
        except yaml.YAMLError:  # the reader's: characters that YAML does not allow
            raise _Broken(self._first, "holds characters that YAML does not allow") from None
        finally:
            loader.dispose()
        return root, self._lines

    def _root(self, loader: Any) -> Any:
        root: Any = None
        seen = False
        stack: list[_Frame] = []  # one per open collection
        while loader.check_event():
            event = loader.get_event()
            if isinstance(
                event, (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent)
            ):
                continue
            line = self._first + event.start_mark.line
            if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
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
                raise _Broken(line, "more than one value in a document")
            if parent is not None and parent.wants_key:
                self._key(parent, event, line)
                continue
            self._count(1, line)
            value, opened = self._value(event, line)
            path = self._place(parent, value, line)
            if parent is None:
                root, seen = value, True
            if opened:
                if len(stack) >= MAX_DEPTH:
                    raise _Broken(line, f"nested deeper than {MAX_DEPTH}", path)
                stack.append(_Frame(value, path, event.anchor, self._made))
        return root

    def _count(self, values: int, line: int) -> None:
        self._made += values
        if self._made > MAX_VALUES:
            raise _Broken(line, f"expands to more than {MAX_VALUES} values")

    def _key(self, parent: _Frame, event: Any, line: int) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            raise _Broken(line, "a key must be text", parent.path)
        key = event.value
        merge = key == "<<" and event.implicit[0]
        if not merge and event.implicit[0] and not isinstance(_scalar(event, line), str):
            raise _Broken(line, "a key must be text: put it in quotes", parent.path)
        if not merge and key in parent.value:
            raise _Broken(line, "this key is there twice", _below(parent.path, key))
        parent.key, parent.merging, parent.wants_key = key, merge, False
        if event.anchor:
            self._anchors[event.anchor], self._sizes[event.anchor] = key, 1

    def _value(self, event: Any, line: int) -> tuple[Any, bool]:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:  # unknown, or of a collection that is still open
                raise _Broken(line, "an alias without its anchor")
            self._count(self._sizes[event.anchor], line)
            return self._anchors[event.anchor], False
        tag = event.tag
        if tag is not None and tag != "!" and tag not in _TAGS:
            raise _Broken(line, "a tag that is not plain data")
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
                found = value if isinstance(value, list) else [value]
                if not all(isinstance(each, dict) for each in found):
                    raise _Broken(line, "<< needs a mapping", path)
                parent.merges.extend(found)
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
    merging: bool = False
    merges: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.wants_key = isinstance(self.value, dict)


_TAGS: Final = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset(spelling for word in ("true", "yes", "on") for spelling in (word, word.title(), word.upper()))
_FALSE: Final = frozenset(
    spelling for word in ("false", "no", "off") for spelling in (word, word.title(), word.upper())
)
_INT: Final = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_ODD_FLOAT: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def _scalar(event: Any, line: int) -> Any:
    text: str = event.value
    tag = event.tag
    if tag in {"tag:yaml.org,2002:str", "!"} or (tag is None and not event.implicit[0]):
        return text
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.fullmatch(text):
        digits = text.replace("_", "").lower()
        if len(digits) > 40:
            raise _Broken(line, "a number too long to keep exactly: put it in quotes")
        unsigned = digits.lstrip("+-")
        octal = len(unsigned) > 1 and unsigned[0] == "0" and unsigned[1].isdigit()
        number = int(unsigned, 8) if octal else int(unsigned, 0)
        return -number if digits.startswith("-") else number
    if _FLOAT.fullmatch(text):
        if (value := float(text)) in (float("inf"), float("-inf")):
            raise _Broken(line, "a number too large")
        return value
    if _ODD_FLOAT.fullmatch(text):
        raise _Broken(line, "not a number that JSON knows")
    return text
