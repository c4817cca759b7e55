"""A watched directory: what is sure becomes events, what is unsure changes nothing."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from metagate_crds.objects import ObjectKey
from metagate_operator.sources.directory_source import DirectorySource
from metagate_operator.sources.documents import FileProblem
from metagate_operator.sources.file_identities import FileIdentities
from metagate_operator.sources.source import Event, NamespacePut, ObjectGone, ObjectPut, SourceUnavailable
from metagate_store.rows import DeclaredRow

WORKER = ObjectKey("Profile", "default", "worker")


def profile(name: str = "worker", body: str = "{capabilities: {a: 1}}") -> str:
    return f"apiVersion: metagate.legivellum.io/v1alpha1\nkind: Profile\nmetadata: {{name: {name}}}\nspec: {body}\n"


class Watched:
    """A source under test, its events and problems collected."""

    def __init__(self, root: Path, identities: FileIdentities | None = None) -> None:
        self.problems: list[FileProblem] = []
        self.source = DirectorySource(root, identities or FileIdentities(), on_problems=self._told)
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    def _told(self, new: list[FileProblem], solved: list[FileProblem]) -> None:
        self.problems = [problem for problem in self.problems if problem not in solved] + list(new)

    async def pump(self) -> None:
        async with aclosing(self.source.events()) as events:
            async for event in events:
                await self.events.put(event)

    async def next(self, seconds: float = 3.0) -> Event:
        """The next event about an object."""
        while True:
            event = await asyncio.wait_for(self.events.get(), seconds)
            if not isinstance(event, NamespacePut):
                return event

    async def silence(self, seconds: float = 0.4) -> None:
        with pytest.raises(TimeoutError):
            await self.next(seconds)

    async def specs(self) -> dict[str, object]:
        return {declared.key.name: declared.spec for declared in (await self.source.listing()).objects}


@asynccontextmanager
async def watching(root: Path, identities: FileIdentities | None = None) -> AsyncIterator[Watched]:
    watched = Watched(root, identities)
    task = asyncio.create_task(watched.pump())
    try:
        for _ in (await watched.source.listing()).objects:
            await watched.next()  # what the listing holds comes as events, too
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_added_changed_removed(tmp_path: Path) -> None:
    """Each change of a file is one event; the generation counts spec changes, a comment is none."""
    async with watching(tmp_path) as watched:
        nested = tmp_path / "a" / "b"
        nested.mkdir(parents=True)
        (nested / "w.yaml").write_text(profile())
        added = await watched.next()
        assert isinstance(added, ObjectPut)
        assert (added.object.key, added.object.generation) == (WORKER, 1)
        (nested / "w.yaml").write_text(profile(body="{capabilities: {a: 2}}"))
        changed = await watched.next()
        assert isinstance(changed, ObjectPut)
        assert (changed.object.uid, changed.object.generation) == (added.object.uid, 2)
        (nested / "w.yaml").write_text("# a comment\n" + profile(body="{capabilities: {a: 2}}"))
        await watched.silence()
        (nested / "w.yaml").unlink()
        assert await watched.next() == ObjectGone(WORKER, added.object.uid)


async def test_replacing_a_file_is_not_a_deletion(tmp_path: Path) -> None:
    """Editors remove and create, or rename over: the object stays the same one."""
    path = tmp_path / "w.yaml"
    path.write_text(profile())
    async with watching(tmp_path) as watched:
        uid = (await watched.source.listing()).objects[0].uid
        path.rename(tmp_path / "w.yaml~")
        await asyncio.sleep(0.02)
        path.write_text(profile(body="{capabilities: {a: 3}}"))
        changed = await watched.next()
        assert isinstance(changed, ObjectPut)
        assert (changed.object.uid, changed.object.generation) == (uid, 2)
        draft = tmp_path / ".w.swp"
        draft.write_text(profile(body="{capabilities: {a: 4}}"))
        draft.replace(path)
        changed = await watched.next()
        assert isinstance(changed, ObjectPut)
        assert (changed.object.uid, changed.object.generation) == (uid, 3)


async def test_a_broken_file_changes_nothing_for_its_objects(tmp_path: Path) -> None:
    """Its objects stay as they were, it is reported with its line, its neighbours go on; repaired, it counts again."""
    (tmp_path / "two.yaml").write_text(profile("one") + "---\n" + profile("two"))
    (tmp_path / "other.yaml").write_text(profile("three"))
    async with watching(tmp_path) as watched:
        (tmp_path / "two.yaml").write_text(profile("one", "{capabilities: {a: 9}}") + "---\nkind: [\n")
        changed = await watched.next()
        assert isinstance(changed, ObjectPut)
        assert changed.object.key.name == "one"
        (tmp_path / "other.yaml").write_text(profile("three", "{capabilities: {a: 9}}"))
        neighbour = await watched.next()
        assert isinstance(neighbour, ObjectPut)
        assert neighbour.object.key.name == "three"
        assert sorted(await watched.specs()) == ["one", "three", "two"]
        assert [(problem.file, problem.reason) for problem in watched.problems] == [("two.yaml", "InvalidYAML")]
        assert watched.problems[0].line >= 6
        (tmp_path / "two.yaml").write_text(profile("one", "{capabilities: {a: 9}}"))
        gone = await watched.next()
        assert isinstance(gone, ObjectGone)
        assert gone.key.name == "two"
        assert watched.problems == []


async def test_a_file_that_is_being_written_changes_nothing(tmp_path: Path) -> None:
    """What a writer has not finished is not read, although its first half would be valid."""
    path = tmp_path / "w.yaml"
    path.write_text(profile("one") + "---\n" + profile("two"))
    async with watching(tmp_path) as watched:
        with path.open("w") as writing:
            writing.write(profile("one"))
            writing.flush()
            await watched.silence(0.5)
            writing.write("---\n" + profile("two", "{capabilities: {a: 5}}"))
        changed = await watched.next()
        assert isinstance(changed, ObjectPut)
        assert changed.object.key.name == "two"
        await watched.silence()


async def test_a_directory_that_cannot_be_listed_changes_nothing(tmp_path: Path) -> None:
    """A vanished root is not a thousand deletions; when it is back, life goes on."""
    root = tmp_path / "resources"
    root.mkdir()
    (root / "w.yaml").write_text(profile())
    async with watching(root) as watched:
        root.rename(tmp_path / "elsewhere")
        with pytest.raises(SourceUnavailable):
            await watched.source.listing()
        await watched.silence(0.3)
        (tmp_path / "elsewhere").rename(root)
        (root / "w.yaml").write_text(profile(body="{capabilities: {a: 7}}"))
        changed = await watched.next(4)
        assert isinstance(changed, ObjectPut)
        assert changed.object.generation == 2


async def test_an_unreadable_folder_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without rights ends the listing; a file without rights is a broken file."""
    path = tmp_path / "w.yaml"
    path.write_text(profile())
    real_open, real_scandir = os.open, os.scandir

    def refusing_open(file: Path, flags: int, *rest: int) -> int:
        if Path(file) == path:
            raise PermissionError(13, "Permission denied")
        return real_open(file, flags, *rest)

    def refusing_scandir(folder: Path) -> object:
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied")
        return real_scandir(folder)

    async with watching(tmp_path) as watched:
        monkeypatch.setattr(os, "open", refusing_open)  # root, who may run this, is refused nothing
        path.touch()
        await watched.silence()
        assert [problem.reason for problem in watched.problems] == ["UnreadableFile"]
        assert list(await watched.specs()) == ["worker"]
        monkeypatch.setattr(os, "open", real_open)
        monkeypatch.setattr(os, "scandir", refusing_scandir)
        (tmp_path / "locked").mkdir()
        with pytest.raises(SourceUnavailable):
            await watched.source.listing()
        await watched.silence(0.2)


async def test_links_out_of_the_tree_and_odd_files(tmp_path: Path) -> None:
    """Neither a link out, nor a pipe, nor a huge file is read or waited for; a link inside and a mounted
    ConfigMap are.
    """
    outside = tmp_path / "outside.yaml"
    outside.write_text(profile("outside"))
    root = tmp_path / "root"
    (root / "..2026").mkdir(parents=True)
    (root / "..2026" / "in.yaml").write_text(profile("inside"))
    (root / "..data").symlink_to("..2026")
    (root / "in.yaml").symlink_to("..data/in.yaml")
    (root / "out.yaml").symlink_to(outside)
    (root / "loop.yaml").symlink_to("loop.yaml")
    os.mkfifo(root / "pipe.yaml")
    with (root / "huge.yaml").open("wb") as huge:
        huge.truncate(1 << 30)
    async with watching(root) as watched:
        assert list(await watched.specs()) == ["inside"]
        assert [problem.file for problem in watched.source.problems] == [
            "huge.yaml",
            "loop.yaml",
            "out.yaml",
            "pipe.yaml",
        ]


async def test_one_object_in_two_files(tmp_path: Path) -> None:
    """The first by file and line counts, the other is reported; when the first goes, the other takes its place."""
    (tmp_path / "a.yaml").write_text(profile(body="{capabilities: {from: a}}"))
    (tmp_path / "b.yaml").write_text(profile(body="{capabilities: {from: b}}"))
    async with watching(tmp_path) as watched:
        assert await watched.specs() == {"worker": {"capabilities": {"from": "a"}}}
        (problem,) = watched.source.problems
        assert (problem.file, problem.reason) == ("b.yaml", "DuplicateObject")
        assert "a.yaml:1" in problem.message
        (tmp_path / "a.yaml").unlink()
        changed = await watched.next()
        assert isinstance(changed, ObjectPut)
        assert changed.object.spec == {"capabilities": {"from": "b"}}


async def test_after_a_restart_with_a_broken_file(tmp_path: Path) -> None:
    """Nobody remembers what a broken file declared, so what is missing stays, by its last good spec, until it is
    repaired.
    """
    (tmp_path / "w.yaml").write_text(profile())
    identities = FileIdentities()
    async with watching(tmp_path, identities) as watched:
        (worker,) = (await watched.source.listing()).objects
    good = DeclaredRow(worker.uid, 1, *worker.key[:1], None, "default", "worker", worker.created, worker.spec)
    seen = identities.unsaved().seen
    (tmp_path / "w.yaml").write_text(profile()[:-20])
    again = FileIdentities()
    again.restore(seen, [good])
    async with watching(tmp_path, again) as watched:
        assert (await watched.source.listing()).objects == (worker,)
        (tmp_path / "w.yaml").write_text(profile(body="{capabilities: {a: 2}}"))
        changed = await watched.next()
        assert isinstance(changed, ObjectPut)
        assert (changed.object.uid, changed.object.generation) == (worker.uid, 2)
        (tmp_path / "w.yaml").unlink()
        assert isinstance(await watched.next(), ObjectGone)
