"""The declared world of some files, judged without a database: one age for everybody, so that no conflict has a winner
(D-53).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from legivellum.base.timestamps import rfc3339
from metagate_cli.terminal import FAILURE, Stop
from metagate_crds import packet as packets
from metagate_crds import reasons
from metagate_crds.compile.compiler import compile_world
from metagate_crds.compile.snapshot import CompiledWorld, SnapshotRow
from metagate_crds.compile.world import World
from metagate_crds.objects import CompileSettings, DeclaredObject, Namespace, ObjectKey
from metagate_crds.rules.patterns import component_permitted
from metagate_crds.validation import validate
from metagate_crds.verdict import Condition
from metagate_operator.sources.directory_listing import LINK_OUT, SUFFIXES, list_directory, stays_inside
from metagate_operator.sources.directory_scanner import UNREADABLE
from metagate_operator.sources.directory_source import DUPLICATE_OBJECT, LINK_NOT_FOLLOWED
from metagate_operator.sources.documents import MAX_BYTES, Document, FileContents, FileProblem, read_documents
from metagate_operator.sources.source import SourceUnavailable

STDIN: Final = Path("-")
_STDIN_NAME: Final = "<stdin>"
_STDIN_LIMIT: Final = 256 * 1024 * 1024
"""Bytes: what `kustomize build` prints of a fleet is one stream, and much longer than a file somebody edits."""
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Examination:
    """What the files hold. `findings` make them invalid, `notes` depend on where they are applied."""

    findings: tuple[FileProblem, ...]
    notes: tuple[FileProblem, ...]
    objects: int
    skipped: int
    world: World
    compiled: CompiledWorld


def examine(paths: Sequence[Path], *, system_namespace: str) -> Examination:
    """Read and judge everything below `paths`.

    Raises:
        Stop: a path does not exist or cannot be listed.

    """
    from metagate_cli.compile_options import compile_settings

    settings = compile_settings(system_namespace)
    findings: list[FileProblem] = []
    documents: dict[ObjectKey, Document] = {}
    notes: list[FileProblem] = []
    skipped = 0
    for file in files(paths, notes):
        file_contents = contents(file)
        findings.extend(file_contents.problems)
        notes.extend(file_contents.notes)
        skipped += file_contents.skipped
        for document in file_contents.documents:
            key = document.key
            first = documents.setdefault(key, document)
            if first is not document:
                where = f"also declared in {first.file}:{first.line}"
                findings.append(FileProblem(document.file, document.line, "metadata.name", DUPLICATE_OBJECT, where))
    for key, document in documents.items():
        findings.extend(
            FileProblem(document.file, document.line_of(error.path), error.path, error.reason, error.message)
            for error in validate(
                key.kind,
                document.spec,
                namespace=key.namespace,
                name=key.name,
                system_namespace=system_namespace,
                reserved_issuer=settings.jwt_issuer,
            )
        )
    world, compiled = _compiled(documents, settings, oldest_first=True)
    _, backwards = _compiled(documents, settings, oldest_first=False)
    for key, document in documents.items():
        _judge(compiled, backwards, key, document, findings, notes)
    return Examination(_sorted(findings), _sorted(notes), len(documents), skipped, world, compiled)


def _judge(
    compiled: CompiledWorld,
    backwards: CompiledWorld,
    key: ObjectKey,
    document: Document,
    findings: list[FileProblem],
    notes: list[FileProblem],
) -> None:
    """What only the whole world shows. Whoever loses under either order of ages takes part in a conflict."""
    conflicts = {
        condition.reason
        for outcome in (compiled, backwards)
        if (condition := _condition(outcome, key, reasons.CONFLICTED))
    }
    findings.extend(
        FileProblem(
            document.file, document.line, "spec", reason, _CONFLICTS.get(reason, "claims what another object claims")
        )
        for reason in conflicts
    )
    if conflicts or not (accepted := compiled.verdicts[key].condition(reasons.ACCEPTED)) or accepted.status != "True":
        return
    if warning := _condition(compiled, key, reasons.WARNING):
        notes.append(FileProblem(document.file, document.line, "spec", warning.reason, warning.message))
    references = compiled.verdicts[key].condition(reasons.RESOLVED_REFS)
    if references is not None and references.status == "False":
        if references.reason == reasons.REFERENCE_NOT_VALID:
            return  # what is wrong with the other object is reported where it is declared, once
        notes.append(FileProblem(document.file, document.line, "spec", references.reason, references.message))
        return
    done = compiled.verdicts[key].condition(reasons.COMPILED)
    if done is not None and done.status == "False":
        findings.append(FileProblem(document.file, document.line, "spec", done.reason, done.message))


_CONFLICTS: Final = {
    reasons.BINDING_CONFLICT: "another active PrincipalBinding names the same Principal: only one is served",
    reasons.SUBJECT_CONFLICT: "another Principal has the same subject: only the oldest would have it",
    reasons.KEY_CONFLICT: "another Principal has the same API key: only the oldest would have it",
    reasons.ISSUER_CONFLICT: "another TokenIssuer has the same issuer: only the oldest would count",
}


def _condition(compiled: CompiledWorld, key: ObjectKey, name: str) -> Condition | None:
    condition = compiled.verdicts[key].condition(name)
    return condition if condition is not None and condition.status == "True" else None


def _compiled(
    documents: dict[ObjectKey, Document], settings: CompileSettings, *, oldest_first: bool
) -> tuple[World, CompiledWorld]:
    order = sorted(documents, reverse=not oldest_first)
    names = {settings.system_namespace, *(key.namespace for key in documents if key.namespace)}
    world = World(
        settings,
        [Namespace(name, str(uuid5(NAMESPACE_URL, f"namespace/{name}")), _EPOCH) for name in sorted(names)],
        [
            DeclaredObject(
                key, str(uuid5(NAMESPACE_URL, "/".join(key))), 1, _EPOCH + timedelta(seconds=place), documents[key].spec
            )
            for place, key in enumerate(order)
        ],
    )
    return world, compile_world(world, {})


def packet(examined: Examination, *, namespace: str, principal: str, component: str) -> dict[str, Any] | str:
    """The packet as it would be served, or why there is none."""
    key = ObjectKey("Principal", namespace, principal)
    if key not in examined.world.objects:
        return f"no Principal {namespace}/{principal} in these files"
    binding = _binding(examined, namespace, principal)
    if binding is None:
        return f"no active PrincipalBinding of {namespace}/{principal}: NO_BINDING"
    name = f"PrincipalBinding {namespace}/{binding.values['name']}"
    digest = binding.values.get("digest")
    if not isinstance(digest, str):
        return f"{name} refers to something missing or invalid: BINDING_INCOMPLETE"
    if not component_permitted(binding.values["components"], component):
        return f"{name} does not permit {component}: COMPONENT_NOT_PERMITTED"
    now = datetime.now(UTC).replace(microsecond=0)
    served = packets.splice(
        examined.compiled.packets[digest],
        packets.RequestFields(
            packet_id=str(uuid4()),
            issued_at=rfc3339(now),
            principal_key=principal,
            component_key=component,
            startup_id=str(UUID(int=0)),
            deadline_at=rfc3339(now + timedelta(seconds=int(binding.values["sla_seconds"] or 0))),
            revision=0,
            digest=digest,
            compiled_at=rfc3339(now),
        ),
    )
    return dict(json.loads(served))


def _binding(examined: Examination, namespace: str, principal: str) -> SnapshotRow | None:
    tenant = examined.world.namespaces[namespace].uid
    for rows in examined.compiled.rows.values():
        for row in rows:
            if row.table == "binding" and row.key == (tenant, principal):
                return row
    return None


def files(paths: Sequence[Path], notes: list[FileProblem] | None = None) -> Iterable[Path]:
    """The files below `paths`, found as the watched directory finds them; `notes` gets the links that are not followed.
    `-` is standard input.

    Raises:
        Stop: a path does not exist, cannot be listed, or is a directory without a file that could declare something.

    """
    for path in paths:
        if path == STDIN:
            yield path
        elif path.is_dir():
            try:
                listing = list_directory(path)
            except SourceUnavailable as error:
                raise Stop(str(error), code=FAILURE) from error
            if not listing.files:
                # Most likely the path is mistyped; taken as a world without objects it would be a plan to remove all.
                raise Stop(f"{path}: holds no file that ends in {', '.join(SUFFIXES)}", code=FAILURE)
            links_out = [file for file in listing.files if not stays_inside(path, path / file)]
            if notes is not None:
                notes += [
                    FileProblem(str(path / link), 0, "", LINK_NOT_FOLLOWED, unfollowed.reason)
                    for link, unfollowed in listing.unfollowed.items()
                ]
                notes += [FileProblem(str(path / file), 0, "", LINK_NOT_FOLLOWED, LINK_OUT) for file in links_out]
            yield from (
                path / file for file in sorted(listing.files) if file not in links_out and (path / file).is_file()
            )
        elif path.exists():
            yield path
        else:
            raise Stop(f"{path}: there is no such file or directory", code=FAILURE)


def contents(file: Path, parsed: dict[bytes, FileContents] | None = None) -> FileContents:
    """What a file holds. `parsed` remembers by content: most files of two worlds that are compared are the same.

    Raises:
        Stop: standard input is empty.

    """
    if file == STDIN:
        return _stdin_contents()
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except OSError as error:
        return FileContents(problems=(FileProblem(str(file), 0, "", UNREADABLE, f"cannot be read: {error.strerror}"),))
    if parsed is None:
        return read_documents(raw, str(file))
    if (file_contents := parsed.get(raw)) is None:
        file_contents = parsed[raw] = read_documents(raw, str(file))
    return file_contents


@cache
def _stdin_contents() -> FileContents:
    """Standard input, which can be read once: asked for twice it is the same."""
    raw = sys.stdin.buffer.read(_STDIN_LIMIT + 1)
    if not raw.strip():
        raise Stop("standard input is empty", code=FAILURE)
    return read_documents(raw, _STDIN_NAME, limit=_STDIN_LIMIT)


def _sorted(problems: Iterable[FileProblem]) -> tuple[FileProblem, ...]:
    return tuple(
        sorted(
            problems, key=lambda problem: (problem.file, problem.line, problem.path, problem.reason, problem.message)
        )
    )
