"""YAML text to declared documents, with the line of everything, and bounded.

One file may hold several documents. They are parsed one by one, so that a broken one does not hide its neighbours. What
may stand in a document is said in `yaml_values`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from metagate_crds.kinds import API_VERSION, GROUP, KINDS
from metagate_crds.objects import ObjectKey
from metagate_operator.sources.yaml_values import INVALID_YAML, YamlError, parse_document

DEFAULT_NAMESPACE: Final = "default"
NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

MAX_BYTES: Final = 4 * 1024 * 1024

INVALID_DOCUMENT: Final = "InvalidDocument"


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
    """What a file holds. `broken` says that something of it could not be read, so that nothing may be concluded from
    absence.
    """

    documents: tuple[Document, ...] = ()
    problems: tuple[FileProblem, ...] = ()
    skipped: int = 0

    @property
    def broken(self) -> bool:
        return bool(self.problems)


def read_documents(raw: bytes, file: str) -> FileContents:
    """Every document of ours in the text of one file; documents of other API groups are skipped and counted."""
    if len(raw) > MAX_BYTES:
        return FileContents(problems=(FileProblem(file, 0, "", INVALID_YAML, f"larger than {MAX_BYTES // 2**20} MiB"),))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return FileContents(problems=(FileProblem(file, line, "", INVALID_YAML, "not UTF-8"),))
    documents: list[Document] = []
    problems: list[FileProblem] = []
    skipped = 0
    for first, chunk in _chunks(text):
        try:
            document = _document(chunk, file, first)
        except YamlError as broken:
            problems.append(FileProblem(file, broken.line, broken.path, broken.reason, broken.message))
            continue
        if document is None:
            skipped += 1
        elif document.kind:
            documents.append(document)
    return FileContents(tuple(documents), tuple(problems), skipped)


def document_spans(lines: Sequence[str]) -> list[tuple[int, int]]:
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
    for first, last in document_spans(lines):
        chunk = lines[first:last]
        if chunk and _MARKER.match(chunk[0]):
            chunk[0] = chunk[0][3:]
        yield first + 1, "\n".join(chunk)


def _document(chunk: str, file: str, first: int) -> Document | None:
    """The document, None for one of another API group; one without content has no kind."""
    if all(not line.strip() or line.lstrip().startswith("#") or line.startswith("%") for line in chunk.splitlines()):
        return Document("", "", "", None, "", file, first, {})
    value, lines = parse_document(chunk, first)
    if not isinstance(value, dict):
        raise YamlError(
            first, "a document must be a mapping with apiVersion, kind, metadata and spec", reason=INVALID_DOCUMENT
        )
    version, kind = value.get("apiVersion"), value.get("kind")

    def refuse(path: str, message: str) -> YamlError:
        found = path
        while found and found not in lines:
            found = found[: max(found.rfind("."), 0)]
        return YamlError(lines.get(found, lines.get("", first)), message, path, INVALID_DOCUMENT)

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
