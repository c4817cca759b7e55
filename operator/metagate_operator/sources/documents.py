"""YAML text to declared documents, with the line of everything, and bounded.

One file may hold several documents, and a document may be a `List` of objects. They are parsed one by one, so that a
broken one does not hide its neighbours. What may stand in a document is said in `yaml_values`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from metagate_crds.kinds import API_VERSION, GROUP, KINDS
from metagate_crds.objects import ObjectKey
from metagate_crds.rules.patterns import is_object_name
from metagate_operator.sources.yaml_values import INVALID_YAML, YamlError, parse_document

DEFAULT_NAMESPACE: Final = "default"
NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

MAX_BYTES: Final = 4 * 1024 * 1024

INVALID_DOCUMENT: Final = "InvalidDocument"
NOT_A_RESOURCE: Final = "NotAResource"


@dataclass(frozen=True, slots=True)
class FileProblem:
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
    item: str = ""
    """Where it stands in a List, like `items[2]`; "" for a document of its own."""

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
class FileContents:
    """What a file holds. `notes`: documents that are no Kubernetes objects, which are ignored (D-72). `skipped` counts
    objects of other API groups.
    """

    documents: tuple[Document, ...] = ()
    problems: tuple[FileProblem, ...] = ()
    notes: tuple[FileProblem, ...] = ()
    skipped: int = 0

    @property
    def broken(self) -> bool:
        """Whether something of it could not be read, so that nothing may be concluded from absence."""
        return bool(self.problems)


def read_documents(raw: bytes, file: str, *, limit: int = MAX_BYTES) -> FileContents:
    """Every object of ours in the text of one file. Never raises: whatever is wrong with the text is a problem."""
    if len(raw) > limit:
        return FileContents(problems=(FileProblem(file, 0, "", INVALID_YAML, f"larger than {limit // 2**20} MiB"),))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return FileContents(problems=(FileProblem(file, line, "", INVALID_YAML, "not UTF-8"),))
    reader = _Reader(file)
    for first, chunk in _chunks(text):
        reader.read(chunk, first)
    return FileContents(tuple(reader.documents), tuple(reader.problems), tuple(reader.notes), reader.skipped)


def document_spans(lines: Sequence[str]) -> list[tuple[int, int]]:
    """Where the documents of a file stand, as half-open ranges of line indexes, markers left out.

    `---` and `...` in the first column can be nothing else in YAML; what follows a marker in its line belongs to the
    document.
    """
    spans: list[tuple[int, int]] = []
    first = 0
    for index, line in enumerate(lines):
        if _MARKER.match(line):
            spans.append((first, index))
            first = index if line[3:].strip() else index + 1
    return [*spans, (first, len(lines))]


_MARKER: Final = re.compile(r"(---|\.\.\.)(\s|$)")


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """The documents of a file as (first line, text), without their markers."""
    lines = text.split("\n")  # splitlines() would also split at U+2028 and its like
    for first, last in document_spans(lines):
        chunk = lines[first:last]
        if chunk and _MARKER.match(chunk[0]):
            chunk[0] = chunk[0][3:]
        yield first + 1, "\n".join(chunk)


class _Reader:
    """Collects what the documents of one file hold."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.documents: list[Document] = []
        self.problems: list[FileProblem] = []
        self.notes: list[FileProblem] = []
        self.skipped = 0

    def read(self, chunk: str, first: int) -> None:
        """One document, whose first line has this number; one without content is nothing."""
        if all(not line.strip() or line.lstrip().startswith("#") or line.startswith("%") for line in chunk.split("\n")):
            return
        with self._finding(first, ""):
            value, lines = parse_document(chunk, first)
            self._object(value, lines, first, "")

    @contextmanager
    def _finding(self, line: int, item: str) -> Iterator[None]:
        """A file must never end the process that reads it, so an error nobody foresaw is a finding like any other."""
        try:
            yield
        except YamlError as error:
            path = ".".join(part for part in (item, error.path) if part)
            self.problems.append(FileProblem(self._file, error.line, path, error.reason, error.message))
        except Exception as error:  # noqa: BLE001 - see above
            message = f"cannot be read ({type(error).__name__})"
            self.problems.append(FileProblem(self._file, line, item, INVALID_YAML, message))

    def _object(self, value: Any, lines: Mapping[str, int], first: int, item: str) -> None:
        line = lines.get("", first)
        if not isinstance(value, dict) or ("apiVersion" not in value and "kind" not in value):
            message = "has neither apiVersion nor kind, and is ignored"
            self.notes.append(FileProblem(self._file, line, item, NOT_A_RESOURCE, message))
        elif _is_list(value):
            self._items(value, lines, line, item)
        elif _is_foreign(value, lines, line):
            self.skipped += 1
        else:
            self.documents.append(_document(value, lines, line, self._file, item))

    def _items(self, value: Mapping[str, Any], lines: Mapping[str, int], line: int, item: str) -> None:
        items = value.get("items")
        if items is None:
            return
        if not isinstance(items, list):
            raise _refused(lines, line, "items", "must be a list of objects")
        lines_of = _lines_of_items(lines)
        for number, member in enumerate(items):
            place = f"{item}.items[{number}]" if item else f"items[{number}]"
            member_lines = lines_of.get(number, {})
            with self._finding(member_lines.get("", line), place):
                self._object(member, member_lines, line, place)


def _refused(lines: Mapping[str, int], line: int, path: str, message: str) -> YamlError:
    """The error at the line of the path, or of its nearest parent."""
    nearest = path
    while nearest and nearest not in lines:
        nearest = nearest[: max(nearest.rfind("."), 0)]
    return YamlError(lines.get(nearest, line), message, path, INVALID_DOCUMENT)


def _is_list(value: Mapping[str, Any]) -> bool:
    """What `kubectl get -o yaml` prints: a List, or the list of one of our kinds."""
    kind = value.get("kind")
    if kind == "List":
        return True
    if not isinstance(kind, str) or value.get("apiVersion") != API_VERSION:
        return False
    return kind.endswith("List") and kind.removesuffix("List") in KINDS


def _lines_of_items(lines: Mapping[str, int]) -> Mapping[int, dict[str, int]]:
    """The lines below `items`, by item, with paths as they are in the item alone."""
    lines_of: dict[int, dict[str, int]] = defaultdict(dict)
    for path, line in lines.items():
        if match := _ITEM.match(path):
            lines_of[int(match["number"])][path[match.end() :].removeprefix(".")] = line
    return lines_of


_ITEM: Final = re.compile(r"items\[(?P<number>[0-9]+)\]")


def _is_foreign(value: Mapping[str, Any], lines: Mapping[str, int], line: int) -> bool:
    """Whether it is an object of another API group; raises for what means to be ours and is not."""
    version, kind = value.get("apiVersion"), value.get("kind")
    if not isinstance(version, str) or not version:
        raise _refused(lines, line, "apiVersion", f"must be {API_VERSION}")
    if not isinstance(kind, str) or not kind:
        raise _refused(lines, line, "kind", f"must be one of {', '.join(KINDS)}")
    if version != API_VERSION:
        if kind in KINDS or version.startswith(GROUP):
            raise _refused(lines, line, "apiVersion", f"must be {API_VERSION}")
        return True
    if kind not in KINDS:
        raise _refused(lines, line, "kind", f"must be one of {', '.join(KINDS)}")
    return False


def _document(value: Mapping[str, Any], lines: Mapping[str, int], line: int, file: str, item: str) -> Document:
    kind = value["kind"]
    metadata = value.get("metadata")
    if not isinstance(metadata, dict):
        raise _refused(lines, line, "metadata", "must be a mapping with a name")
    name = metadata.get("name")
    if not is_object_name(name):
        raise _refused(lines, line, "metadata.name", "must be lower case letters, digits, - and . (at most 253)")
    namespace = _namespace(kind, metadata, lines, line)
    for key in value:
        if key not in {"apiVersion", "kind", "metadata", "spec", "status"}:
            message = "is not a field of a declared object (apiVersion, kind, metadata, spec)"
            raise _refused(lines, line, key, message)
    spec = value.get("spec")
    return Document(kind, namespace, name, spec, spec_digest(spec), file, line, lines, item)


def _namespace(kind: str, metadata: Mapping[str, Any], lines: Mapping[str, int], line: int) -> str:
    namespace = metadata.get("namespace")
    if not KINDS[kind].namespaced:
        if namespace not in (None, ""):
            message = f"{kind} is cluster-scoped: leave the namespace out"
            raise _refused(lines, line, "metadata.namespace", message)
        return ""
    if namespace is None:
        return DEFAULT_NAMESPACE
    if not isinstance(namespace, str) or not NAMESPACE.fullmatch(namespace):
        raise _refused(lines, line, "metadata.namespace", "must be lower case letters, digits and - (at most 63)")
    return namespace


def spec_digest(spec: Any) -> str:
    """What decides whether a spec changed: sha256 of its values, whatever their order and spelling in the file."""
    return hashlib.sha256(
        json.dumps(spec, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")
    ).hexdigest()
