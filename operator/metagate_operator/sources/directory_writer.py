"""The standalone write side (D-12, D-53): a declared resource becomes a file, through the same rules as a file that a
person wrote.

A new resource gets `<plural>/<namespace>/<name>.yaml`. One that a person declared elsewhere is replaced or removed
where it stands, its neighbours in the same file untouched. Every file is replaced as a whole, so nobody ever reads half
of one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from metagate_crds.kinds import API_VERSION, KINDS
from metagate_crds.objects import CompileSettings, ObjectKey
from metagate_crds.validation import validate
from metagate_operator.sources.directory_source import DirectorySource
from metagate_operator.sources.documents import Document, FileProblem, document_spans, read_documents


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
            await asyncio.to_thread(self._replace, key, present, text)
        self._source.nudge()
        return present is None

    async def remove(self, key: ObjectKey) -> bool:
        """False when no file declares it."""
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
            system_namespace=self._settings.system_namespace,
            reserved_issuer=self._settings.jwt_issuer,
        )
        return tuple(FileProblem("request", 0, each.path, each.reason, each.message) for each in findings)

    def _replace(self, key: ObjectKey, present: Document | None, text: str | None) -> None:
        """Write `text` where the object stands (or at its own place), or take it away."""
        path = self._source.root / (present.file if present is not None else _place(key))
        if present is not None:
            text = _without(path, key, text)
        if text is None:
            path.unlink()
        else:
            _write_whole(path, text)


def _without(path: Path, key: ObjectKey, instead: str | None) -> str | None:
    """The file's text with another document in the place of the object's, or none; None when nothing is left.

    Raises:
        OSError: the file is broken where the object was: a person must repair it first.

    """
    raw = path.read_bytes()
    own = next((each for each in read_documents(raw, path.name).documents if each.key == key), None)
    if own is None:
        raise OSError(
            errno.EIO, f"{key.kind} {key.name} cannot be found in this file; repair the file first", str(path)
        )
    lines = raw.decode("utf-8-sig").split("\n")
    kept: list[str] = []
    for first, last in document_spans(lines):
        chunk = "\n".join(lines[first:last]).removeprefix("---").strip("\n")
        if first < own.line <= last:
            chunk = (instead or "").strip("\n")
        if chunk.strip():
            kept.append(chunk)
    return "\n---\n".join(kept) + "\n" if kept else None


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
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000))


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
