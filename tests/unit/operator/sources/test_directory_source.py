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
        self.root = root
        self.problems: list[FileProblem] = []
        self.notes: list[FileProblem] = []
        self.source = DirectorySource(
            root, identities or FileIdentities(), on_problems=self._told, on_notes=self.notes.extend
        )
        self._markers = 0
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

    async def nothing_happened(self) -> None:
        """What was done before made no event: events come in order, and the next one is that of a file written now."""
        self._markers += 1
        name = f"marker-{self._markers}"
        (self.root / f"{name}.yaml").write_text(profile(name))
        event = await self.next()
        assert isinstance(event, ObjectPut), event
        assert event.object.key.name == name

    async def specs(self) -> dict[str, object]:
        objects = (await self.source.listing()).objects
        return {obj.key.name: obj.spec for obj in objects if not obj.key.name.startswith("marker-")}


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
        await watched.nothing_happened()
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
            await watched.nothing_happened()
            writing.write("---\n" + profile("two", "{capabilities: {a: 5}}"))
        changed = await watched.next()
        assert isinstance(changed, ObjectPut)
        assert changed.object.key.name == "two"
        await watched.nothing_happened()


async def test_a_directory_that_cannot_be_listed_changes_nothing(tmp_path: Path) -> None:
    """A vanished root is not a thousand deletions; when it is back, life goes on."""
    root = tmp_path / "resources"
    root.mkdir()
    (root / "w.yaml").write_text(profile())
    async with watching(root) as watched:
        root.rename(tmp_path / "elsewhere")
        with pytest.raises(SourceUnavailable):
            await watched.source.listing()
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
        await watched.nothing_happened()
        assert [problem.reason for problem in watched.problems] == ["UnreadableFile"]
        assert list(await watched.specs()) == ["worker"]
        monkeypatch.setattr(os, "open", real_open)
        monkeypatch.setattr(os, "scandir", refusing_scandir)
        (tmp_path / "locked").mkdir()
        with pytest.raises(SourceUnavailable):
            await watched.source.listing()
        monkeypatch.setattr(os, "scandir", real_scandir)
        await watched.nothing_happened()


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
    observations = identities.unsaved().seen
    (tmp_path / "w.yaml").write_text(profile()[:-20])
    again = FileIdentities()
    again.restore(observations, [good])
    async with watching(tmp_path, again) as watched:
        assert (await watched.source.listing()).objects == (worker,)
        (tmp_path / "w.yaml").write_text(profile(body="{capabilities: {a: 2}}"))
        changed = await watched.next()
        assert isinstance(changed, ObjectPut)
        assert (changed.object.uid, changed.object.generation) == (worker.uid, 2)
        (tmp_path / "w.yaml").unlink()
        assert isinstance(await watched.next(), ObjectGone)


def listed(*names: str) -> str:
    """These Profiles as `kubectl get -o yaml` prints them."""
    items = "".join(
        "- " + "".join(f"  {line}\n" for line in profile(name).splitlines()).strip() + "\n" for name in names
    )
    return f"apiVersion: v1\nkind: List\nmetadata: {{}}\nitems:\n{items}"


async def test_three_documents_become_one_list(tmp_path: Path) -> None:
    """F5: the objects stay the same ones; an item that leaves the List is a deletion."""
    path = tmp_path / "all.yaml"
    path.write_text("---\n".join(profile(name) for name in ("one", "two", "three")))
    async with watching(tmp_path) as watched:
        before = {obj.key: obj for obj in (await watched.source.listing()).objects}
        path.write_text(listed("one", "two", "three"))
        await watched.nothing_happened()
        after = {obj.key: obj for obj in (await watched.source.listing()).objects}
        assert {key: after[key] for key in before} == before
        assert watched.problems == []
        path.write_text(listed("one", "three"))
        gone = await watched.next()
        assert isinstance(gone, ObjectGone)
        assert gone.key.name == "two"


async def test_what_is_no_object_is_noted_once_and_holds_nothing(tmp_path: Path) -> None:
    """D-72: a stray values.yaml is named once; deletions beside it and in its own file take effect, after a restart too."""
    (tmp_path / "values.yaml").write_text("replicas: 3\n")
    (tmp_path / "a.yaml").write_text(profile("one"))
    (tmp_path / "b.yaml").write_text(profile("two"))
    identities = FileIdentities()
    async with watching(tmp_path, identities) as watched:
        objects = {obj.key.name: obj for obj in (await watched.source.listing()).objects}
        (tmp_path / "a.yaml").unlink()
        assert await watched.next() == ObjectGone(objects["one"].key, objects["one"].uid)
        (tmp_path / "values.yaml").touch()
        await watched.nothing_happened()
        assert [(note.file, note.reason) for note in watched.notes] == [("values.yaml", "NotAResource")]
        assert watched.problems == []
    two = objects["two"]
    good = DeclaredRow(two.uid, 1, *two.key[:1], None, "default", "two", two.created, two.spec)
    again = FileIdentities()
    again.restore(identities.unsaved().seen, [good])
    (tmp_path / "b.yaml").write_text("replicas: 4\n")
    async with watching(tmp_path, again) as watched:
        assert await watched.specs() == {}


@pytest.mark.parametrize("stray", ["kind: [", "apiVersion: metagate.legivellum.io/v1alpha1\nkind: Profil\n"])
async def test_what_cannot_be_read_holds_what_it_declared(tmp_path: Path, stray: str) -> None:
    """D-20: neither broken YAML nor a broken document of ours is a deletion."""
    path = tmp_path / "w.yaml"
    path.write_text(profile())
    async with watching(tmp_path) as watched:
        path.write_text(stray)
        await watched.nothing_happened()
        assert list(await watched.specs()) == ["worker"]
        assert [problem.file for problem in watched.problems] == ["w.yaml"]


async def test_folders_of_a_projected_volume(tmp_path: Path) -> None:
    """F6: `team-a -> ..data/team-a` is followed, and the volume's swap of `..data` is a change like any other."""
    root = tmp_path / "volume"
    (root / "..1" / "team-a" / "deep").mkdir(parents=True)
    (root / "..1" / "team-a" / "w.yaml").write_text(profile("one"))
    (root / "..1" / "team-a" / "deep" / "w.yaml").write_text(profile("two"))
    (root / "..data").symlink_to("..1")
    (root / "team-a").symlink_to("..data/team-a")
    async with watching(root) as watched:
        assert sorted(await watched.specs()) == ["one", "two"]
        origin = watched.source.origin(ObjectKey("Profile", "default", "two"))
        assert origin is not None
        assert origin.file == "team-a/deep/w.yaml"
        (root / "..2" / "team-a").mkdir(parents=True)
        (root / "..2" / "team-a" / "w.yaml").write_text(profile("one", "{capabilities: {a: 2}}"))
        (root / "..data_tmp").symlink_to("..2")
        (root / "..data_tmp").rename(root / "..data")
        events = {type(event): event for event in (await watched.next(), await watched.next())}
        assert events[ObjectPut].object.generation == 2
        assert events[ObjectGone].key.name == "two"
        assert (watched.problems, watched.notes) == ([], [])


async def test_links_to_folders_that_are_not_followed(tmp_path: Path) -> None:
    """Out of the directory, around in a circle, and to what is read where it stands: each is named, and nothing is read
    twice.
    """
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "w.yaml").write_text(profile("outside"))
    root = tmp_path / "root"
    (root / "real" / "deep").mkdir(parents=True)
    (root / "real" / "w.yaml").write_text(profile("inside"))
    (root / "real" / "deep" / "up").symlink_to("../..")
    (root / "again").symlink_to("real")
    (root / "self").symlink_to(".")
    (root / "out").symlink_to(outside)
    (root / "nowhere").symlink_to("missing")
    (root / "round").symlink_to("round")
    async with watching(root) as watched:
        assert list(await watched.specs()) == ["inside"]
        assert watched.problems == []
        assert [(note.file, note.message.split()[2]) for note in watched.source.notes] == [
            ("again", "to"),
            ("out", "out"),
            ("real/deep/up", "to"),
            ("self", "to"),
        ]
        assert {note.reason for note in watched.source.notes} == {"LinkNotFollowed"}


async def test_a_folder_that_becomes_a_link_out_is_no_deletion(tmp_path: Path) -> None:
    """What it declared is held: the link says nothing about it. Its neighbours are not."""
    root = tmp_path / "root"
    (root / "team").mkdir(parents=True)
    (root / "team" / "w.yaml").write_text(profile("one"))
    (root / "w.yaml").write_text(profile("two"))
    async with watching(root) as watched:
        (root / "team").rename(tmp_path / "team")
        (root / "team").symlink_to(tmp_path / "team")
        await watched.nothing_happened()
        assert sorted(await watched.specs()) == ["one", "two"]
        assert [note.file for note in watched.notes] == ["team"]
        (root / "w.yaml").unlink()
        gone = await watched.next()
        assert isinstance(gone, ObjectGone)
        assert gone.key.name == "two"
        (root / "team").unlink()
        gone = await watched.next()
        assert isinstance(gone, ObjectGone)
        assert gone.key.name == "one"
