"""A watched directory of YAML files as a source.

Every change is answered by a scan of the whole tree (a few milliseconds for a thousand files) and a comparison with
what was declared before, so a lost notification costs one period of the rescan and nothing else.

Absence counts only where everything could be read: while a file has a broken part, the objects it declared
before stay as they were, and after a restart, when nobody remembers what a broken file declared, every missing object
does.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final, Protocol

import structlog
import watchfiles

from metagate_crds.objects import DeclaredObject, Namespace, ObjectKey
from metagate_operator.sources.directory_scanner import SETTLE_SECONDS, DirectoryScanner
from metagate_operator.sources.documents import Document, FileProblem
from metagate_operator.sources.file_identities import FileIdentities
from metagate_operator.sources.source import Event, Listing, NamespacePut, ObjectGone, ObjectPut, SourceUnavailable

NAMESPACE_KIND: Final = "Namespace"
DUPLICATE_OBJECT: Final = "DuplicateObject"
LINK_NOT_FOLLOWED: Final = "LinkNotFollowed"
RESCAN_SECONDS: Final = 1.0
CALM_SECONDS: Final = 0.15

_log = structlog.stdlib.get_logger("metagate.directory")


class OnProblems(Protocol):
    def __call__(self, new: Iterable[FileProblem], solved: Iterable[FileProblem]) -> None: ...


def log_problems(new: Iterable[FileProblem], solved: Iterable[FileProblem]) -> None:
    """One line per problem of a file that came or went."""
    for problem in new:
        _log.error(
            "file.broken",
            where=f"{problem.file}:{problem.line}",
            path=problem.path,
            reason=problem.reason,
            message=problem.message,
        )
    for problem in solved:
        _log.info("file.repaired", where=problem.file, reason=problem.reason)


def log_notes(notes: Iterable[FileProblem]) -> None:
    """One line per document or link that is ignored, when it first is."""
    for note in notes:
        _log.warning(
            "file.ignored", where=f"{note.file}:{note.line}", path=note.path, reason=note.reason, message=note.message
        )


@dataclass(slots=True)
class _State:
    objects: dict[ObjectKey, DeclaredObject] = field(default_factory=dict)
    origins: dict[ObjectKey, Document] = field(default_factory=dict)
    namespaces: dict[str, Namespace] = field(default_factory=dict)
    problems: frozenset[FileProblem] = frozenset()
    notes: frozenset[FileProblem] = frozenset()


class DirectorySource:
    """A `Source` over a directory. `identities` must be restored before the first listing."""

    def __init__(
        self,
        root: Path,
        identities: FileIdentities,
        *,
        system_namespace: str = "metagate-system",
        on_problems: OnProblems = log_problems,
        on_notes: Callable[[Iterable[FileProblem]], None] = log_notes,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.root = root
        self._identities = identities
        self._system_namespace = system_namespace
        self._on_problems = on_problems
        self._on_notes = on_notes
        self._clock = clock
        self._scanner = DirectoryScanner(root)
        self._state = _State()
        self._lock = asyncio.Lock()
        self._events: asyncio.Queue[Event | BaseException] = asyncio.Queue()
        self._nudge = asyncio.Event()
        self._looked = self._changed = False
        self._settling_since: float | None = None

    @property
    def notes(self) -> tuple[FileProblem, ...]:
        """What is ignored now: documents that are no Kubernetes objects (D-72), and links that are not followed."""
        return tuple(_in_order(self._state.notes))

    @property
    def problems(self) -> tuple[FileProblem, ...]:
        """What is wrong with the files now, in the order of files and lines."""
        return tuple(_in_order(self._state.problems))

    def origin(self, key: ObjectKey) -> Document | None:
        """Where the object was last found; None when it is not declared or held over from before a restart."""
        return self._state.origins.get(key)

    def nudge(self) -> None:
        """Look now: somebody knows that a file changed."""
        self._nudge.set()

    async def listing(self) -> Listing:
        """Everything declared, once every file has settled (at most half a second)."""
        give_up = self._clock() + 0.5
        while True:
            await self._look()
            if self._looked and (not self._scanner.settling or self._clock() > give_up):
                return Listing(tuple(self._state.namespaces.values()), tuple(self._state.objects.values()))
            await asyncio.sleep(SETTLE_SECONDS)

    async def events(self) -> AsyncIterator[Event]:
        """What changes, as it is noticed. A directory that cannot be listed is waited for: nothing changed, as far as
        we know.
        """
        tasks = [
            asyncio.create_task(self._watch(), name="directory.watch"),
            asyncio.create_task(self._scan(), name="directory.scan"),
        ]
        for task in tasks:
            task.add_done_callback(self._ended)
        try:
            while True:
                event = await self._events.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._events.put_nowait(error)

    async def _watch(self) -> None:
        """Asks for a scan on every notification; starts over when the directory was replaced by another one."""
        while True:
            with suppress(OSError, RuntimeError):
                inode = self.root.stat().st_ino
                changes = watchfiles.awatch(
                    self.root,
                    watch_filter=None,
                    step=5,
                    debounce=50,
                    rust_timeout=1000,
                    yield_on_timeout=True,
                    ignore_permission_denied=True,
                )
                async with aclosing(changes):
                    async for batch in changes:
                        if batch:
                            self._nudge.set()
                        if self.root.stat().st_ino != inode:
                            break
            self._nudge.set()
            await asyncio.sleep(RESCAN_SECONDS)  # inotify may be exhausted: the rescan goes on without it

    async def _scan(self) -> None:
        spent, unavailable = 0.0, ""
        while True:
            pause = SETTLE_SECONDS if self._scanner.settling else max(RESCAN_SECONDS, 20 * spent)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._nudge.wait()
            self._nudge.clear()
            started = self._clock()
            try:
                await self._look()
            except SourceUnavailable as error:
                if str(error) != unavailable:
                    _log.error("directory.unavailable", message=str(error), consequence="what is served stays as it is")
                unavailable = str(error)
            except Exception:  # noqa: BLE001 - no content of a directory may end the process that watches it
                _log.exception("directory.scan_failed", consequence="what is served stays as it is")
            else:
                if unavailable:
                    _log.info("directory.available", directory=str(self.root))
                unavailable = ""
            spent = self._clock() - started

    async def _look(self) -> None:
        """Scan, and turn what differs into events."""
        async with self._lock:
            self._changed |= await asyncio.to_thread(self._scanner.scan)
            now = self._clock()
            if not self._scanner.settling:
                self._settling_since = None
            elif self._settling_since is None:
                self._settling_since = now
            if self._settling_since is not None and now - self._settling_since < CALM_SECONDS:
                return  # several files change together: an object may be on its way from one to another
            if self._changed or not self._looked:
                for event in self._differences(self._resolve()):
                    self._events.put_nowait(event)
                self._looked, self._changed = True, False

    def _resolve(self) -> _State:
        """What the files declare, taken together; the first of two declarations (by file and line) counts."""
        documents: dict[ObjectKey, list[Document]] = defaultdict(list)
        problems: list[FileProblem] = []
        notes = [
            FileProblem(path, 0, "", LINK_NOT_FOLLOWED, link.reason)
            for path, link in sorted(self._scanner.unfollowed.items())
        ]
        for _, file in sorted(self._scanner.files.items()):
            problems.extend(file.contents.problems)
            notes.extend(file.contents.notes)
            for document in file.contents.documents:
                documents[document.key].append(document)
        state = self._held(documents)
        for key, (first, *others) in documents.items():
            problems += [
                FileProblem(
                    other.file,
                    other.line,
                    "metadata.name",
                    DUPLICATE_OBJECT,
                    f"also declared in {first.file}:{first.line}, which counts",
                )
                for other in others
            ]
            if key not in state.objects:
                identity = self._identities.observe(key, first.spec_digest)
                state.objects[key] = DeclaredObject(
                    key, identity.uid, identity.generation, identity.first_seen, first.spec
                )
                state.origins[key] = first
        for key in [key for key in self._identities.all() if key.kind != NAMESPACE_KIND and key not in state.objects]:
            self._identities.forget(key)
        for name in {
            self._system_namespace,
            *(key.namespace for key in state.objects if key.namespace),
            *self._state.namespaces,
        }:
            identity = self._identities.observe(ObjectKey(NAMESPACE_KIND, "", name), "")
            state.namespaces[name] = Namespace(name, identity.uid, identity.first_seen)
        state.problems, state.notes = frozenset(problems), frozenset(notes)
        return state

    def _held(self, documents: Mapping[ObjectKey, list[Document]]) -> _State:
        """What a broken file declared before, and after a restart what any file may have declared."""
        state = _State()
        broken = {path for path, file in self._scanner.files.items() if file.contents.broken} | self._scanner.unread
        for key, before in self._state.objects.items():
            origin = self._state.origins.get(key)
            if origin is None:
                keep = bool(broken) and key not in documents
            else:
                unknown = origin.file in broken or self._is_behind_a_link_out(origin.file)
                keep = unknown and all(document.file != origin.file for document in documents.get(key, ()))
            if keep:
                state.objects[key] = before
                if origin is not None:
                    state.origins[key] = origin
        if broken and not self._looked:
            self._restore_last_good(state, documents)
        return state

    def _is_behind_a_link_out(self, file: str) -> bool:
        """Whether a folder on the way to it has become a link that is not followed: then its absence says nothing."""
        return any(link.outside and file.startswith(f"{path}/") for path, link in self._scanner.unfollowed.items())

    def _restore_last_good(self, state: _State, documents: Mapping[ObjectKey, list[Document]]) -> None:
        for key, identity in self._identities.all().items():
            if key not in documents and (good := self._identities.last_good(identity)) is not None:
                state.objects[key] = DeclaredObject(
                    key, identity.uid, identity.generation, identity.first_seen, good.spec
                )
                _log.warning(
                    "object.held",
                    kind=key.kind,
                    namespace=key.namespace,
                    name=key.name,
                    because="a file cannot be read",
                )

    def _differences(self, now: _State) -> Iterable[Event]:
        before, self._state = self._state, now
        if now.problems != before.problems:
            self._on_problems(_in_order(now.problems - before.problems), _in_order(before.problems - now.problems))
        if new_notes := now.notes - before.notes:
            self._on_notes(_in_order(new_notes))
        for name, namespace in now.namespaces.items():
            if before.namespaces.get(name) != namespace:
                yield NamespacePut(namespace)
        for key, gone in before.objects.items():
            if key not in now.objects:
                yield ObjectGone(key, gone.uid)
        for key, declared in now.objects.items():
            known = before.objects.get(key)
            if known is None or (known.uid, known.generation) != (declared.uid, declared.generation):
                yield ObjectPut(declared)


def _in_order(problems: Iterable[FileProblem]) -> list[FileProblem]:
    return sorted(problems, key=lambda problem: (problem.file, problem.line, problem.path, problem.message))
