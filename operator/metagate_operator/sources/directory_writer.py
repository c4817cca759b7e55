"""The standalone write side (D-12, D-53): a declared resource becomes a file, through the same rules as a file that a
person wrote.

A new resource gets `<plural>/<namespace>/<name>.yaml`. One that a person declared elsewhere is replaced or removed
where it stands, its neighbours in the same file untouched; in a `List` the neighbours keep their values, and lose their
comments. Every file is replaced as a whole, so nobody ever reads half of one. Nothing is written through a link that
leads out of the directory.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from metagate_crds.kinds import API_VERSION, KINDS
from metagate_crds.objects import CompileSettings, ObjectKey
from metagate_crds.validation import validate
from metagate_operator.sources.directory_listing import stays_inside
from metagate_operator.sources.directory_source import LINK_NOT_FOLLOWED, DirectorySource
from metagate_operator.sources.documents import Document, FileProblem, document_spans, read_documents
from metagate_operator.sources.yaml_values import is_plain_text, parse_document


class DirectoryWriter:
    """Writes into the directory that `source` reads. One writer per directory."""

    def __init__(self, source: DirectorySource, settings: CompileSettings | None = None) -> None:
        self._source = source
        self._settings = settings or CompileSettings()
        self._lock = asyncio.Lock()

    async def write(self, key: ObjectKey, resource: Mapping[str, Any]) -> bool | tuple[FileProblem, ...]:
        """Whether it is new; or what is wrong with it, and then nothing was written.

        Raises:
            OSError: the directory cannot be written.

        """
        text = _text(key, resource)
        if problems := self._problems(key, text):
            return problems
        async with self._lock:
            await self._source.listing()
            present = self._source.origin(key)
            try:
                await asyncio.to_thread(self._replace, key, present, text)
            except _LeadsOutsideError as error:
                return (FileProblem("request", 0, "metadata", LINK_NOT_FOLLOWED, str(error)),)
        self._source.nudge()
        return present is None

    async def remove(self, key: ObjectKey) -> bool:
        """False when no file declares it. Raises as `write` does."""
        async with self._lock:
            await self._source.listing()
            if (present := self._source.origin(key)) is None:
                return False
            await asyncio.to_thread(self._replace, key, present, None)
        self._source.nudge()
        return True

    def _problems(self, key: ObjectKey, text: str) -> tuple[FileProblem, ...]:
        contents = read_documents(text.encode(), "request")
        if contents.problems:
            return contents.problems
        document = contents.documents[0]
        if document.key != key:
            return (FileProblem("request", 1, "metadata", "InvalidDocument", "names another object than the request"),)
        findings = validate(
            key.kind,
            document.spec,
            namespace=key.namespace,
            name=key.name,
            system_namespace=self._settings.system_namespace,
            reserved_issuer=self._settings.jwt_issuer,
        )
        return tuple(FileProblem("request", 0, finding.path, finding.reason, finding.message) for finding in findings)

    def _replace(self, key: ObjectKey, present: Document | None, text: str | None) -> None:
        """Write `text` where the object stands (or at its own place), or take it away."""
        path = self._source.root / (present.file if present is not None else _place(key))
        if not stays_inside(self._source.root, path.parent):
            raise _LeadsOutsideError(errno.EPERM, "a link on the way to its file leads out of the directory", str(path))
        if present is not None:
            text = _without(path, key, text)
        if text is None:
            path.unlink()
        else:
            _write_whole(path, text)


class _LeadsOutsideError(OSError):
    """Its file would be outside of the directory."""

    def __str__(self) -> str:
        return str(self.strerror)


def _without(path: Path, key: ObjectKey, instead: str | None) -> str | None:
    """The file's text with another document in the place of the object's, or none; None when nothing is left.

    Raises:
        OSError: the file is broken where the object was: a person must repair it first.

    """
    raw = path.read_bytes()
    own = next((document for document in read_documents(raw, path.name).documents if document.key == key), None)
    if own is None:
        raise OSError(
            errno.EIO, f"{key.kind} {key.name} cannot be found in this file; repair the file first", str(path)
        )
    lines = raw.decode("utf-8-sig").split("\n")
    kept: list[str] = []
    for first, last in document_spans(lines):
        chunk = "\n".join(lines[first:last]).removeprefix("---").strip("\n")
        if first < own.line <= last:
            chunk = _list_without(chunk, own.item, instead) if own.item else (instead or "").strip("\n")
        if chunk.strip():
            kept.append(chunk)
    return "\n---\n".join(kept) + "\n" if kept else None


def _list_without(chunk: str, item: str, instead: str | None) -> str:
    """The List with another object in the place of one of its items, or without it; "" when nothing is left."""
    whole, _ = parse_document(chunk, 1)
    *outer, last = (int(number) for number in re.findall(r"[0-9]+", item))
    holder = whole
    for number in outer:
        holder = holder["items"][number]
    holder["items"][last : last + 1] = [] if instead is None else [parse_document(instead, 1)[0]]
    return _dump(whole).strip("\n") if whole["items"] else ""


def _place(key: ObjectKey) -> Path:
    return Path(KINDS[key.kind].plural) / key.namespace / f"{key.name}.yaml"


def _text(key: ObjectKey, resource: Mapping[str, Any]) -> str:
    metadata = resource.get("metadata")
    kept = (
        {name: metadata[name] for name in ("labels", "annotations") if name in metadata}
        if isinstance(metadata, Mapping)
        else {}
    )
    named = {"name": key.name, **({"namespace": key.namespace} if key.namespace else {}), **kept}
    document = {"apiVersion": API_VERSION, "kind": key.kind, "metadata": named, "spec": resource.get("spec")}
    return _dump(document)


class _Dumper(yaml.SafeDumper):
    """Quotes what our reader would take for something else than text: PyYAML knows fewer spellings of numbers and
    booleans (`08`, `1e3`, `y`).
    """


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain_text(text) else "'")


_Dumper.add_representer(str, _represent_text)


def _dump(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000))


def _write_whole(path: Path, text: str) -> None:
    """Replace the file in one step, durably; readers see the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
