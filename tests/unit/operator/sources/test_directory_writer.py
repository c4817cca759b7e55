"""Writing declared files: one object at a time, its neighbours untouched, never half a file."""

from pathlib import Path

import pytest

from metagate_crds.objects import ObjectKey
from metagate_operator.sources.directory_source import DirectorySource
from metagate_operator.sources.directory_writer import DirectoryWriter
from metagate_operator.sources.documents import FileContents, read_documents
from metagate_operator.sources.file_identities import FileIdentities

KEY = ObjectKey("Profile", "team", "worker")
BODY = {"spec": {"capabilities": {"read": True}}}


def writer(root: Path) -> DirectoryWriter:
    return DirectoryWriter(DirectorySource(root, FileIdentities()))


async def test_a_new_object_gets_its_own_file(tmp_path: Path) -> None:
    """`<plural>/<namespace>/<name>.yaml`, with the labels that were sent and nothing the server knows better."""
    made = await writer(tmp_path).write(
        KEY, {**BODY, "metadata": {"name": "x", "labels": {"a": "b"}, "uid": "forged"}, "status": {"ready": True}}
    )
    assert made is True
    assert (tmp_path / "profiles/team/worker.yaml").read_text() == (
        "apiVersion: metagate.legivellum.io/v1alpha1\nkind: Profile\nmetadata:\n  name: worker\n  namespace: team\n"
        "  labels:\n    a: b\nspec:\n  capabilities:\n    read: true\n"
    )
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["worker.yaml"]


async def test_an_invalid_one_is_not_written(tmp_path: Path) -> None:
    """The findings come back with their paths, and the directory is as it was."""
    refused = await writer(tmp_path).write(KEY, {"spec": {"policy": {"list": [{"Deploy": 1}]}}})
    assert not isinstance(refused, bool)
    assert [(problem.path, problem.reason) for problem in refused] == [("spec.policy.list[0].Deploy", "ForbiddenKey")]
    assert list(tmp_path.iterdir()) == []


async def test_names_cannot_leave_the_directory(tmp_path: Path) -> None:
    """A name is checked like one in a file."""
    refused = await writer(tmp_path / "in").write(ObjectKey("Profile", "team", "../../../x"), BODY)
    assert not isinstance(refused, bool)
    assert refused[0].path == "metadata.name"
    assert list(tmp_path.iterdir()) == []


async def test_an_object_of_a_shared_file_is_replaced_where_it_stands(tmp_path: Path) -> None:
    """Comments and documents around it stay; removing it leaves them; the last one takes its file along."""
    head = "apiVersion: metagate.legivellum.io/v1alpha1\nkind: Profile\n"
    shared = tmp_path / "team.yaml"
    first = f"# people wrote this\n{head}metadata: {{name: first, namespace: team}}\nspec: {{}}"
    shared.write_text(f"{first}\n---\n{head}metadata: {{name: worker, namespace: team}}\nspec: {{}}\n")
    writing = writer(tmp_path)
    assert await writing.write(KEY, BODY) is False
    text = shared.read_text()
    assert text.startswith(f"{first}\n---\n")
    assert "read: true" in text
    assert not (tmp_path / "profiles").exists()
    assert await writing.remove(KEY) is True
    assert shared.read_text() == f"{first}\n"
    assert await writing.remove(KEY) is False
    assert await writing.remove(ObjectKey("Profile", "team", "first")) is True
    assert not shared.exists()


async def test_a_file_that_is_broken_is_not_rewritten(tmp_path: Path) -> None:
    """Where the object cannot be found any more a person must repair the file; nothing is lost."""
    shared = tmp_path / "team.yaml"
    shared.write_text(
        "apiVersion: metagate.legivellum.io/v1alpha1\nkind: Profile\nmetadata: {name: worker, namespace: team}\nspec: {}\n"
    )
    source = DirectorySource(tmp_path, FileIdentities(), on_problems=lambda *_: None)
    await source.listing()
    shared.write_text(broken := "kind: [\n")
    with pytest.raises(OSError, match="repair the file"):
        await DirectoryWriter(source).write(KEY, BODY)
    with pytest.raises(OSError, match="repair the file"):
        await DirectoryWriter(source).remove(KEY)
    assert shared.read_text() == broken


async def test_an_item_of_a_list_is_replaced_where_it_stands(tmp_path: Path) -> None:
    """F5: its neighbours in the List keep their values; the last one takes the file along."""
    path = tmp_path / "all.yaml"
    item = "- apiVersion: metagate.legivellum.io/v1alpha1\n  kind: Profile\n"
    path.write_text(
        f"apiVersion: v1\nkind: List\nitems:\n{item}  metadata: {{name: first, namespace: team}}\n"
        f"  spec: {{policy: {{a: '08'}}}}\n{item}  metadata: {{name: worker, namespace: team}}\n  spec: {{}}\n"
        "---\napiVersion: v1\nkind: ConfigMap\n"
    )
    writing = writer(tmp_path)
    assert await writing.write(KEY, BODY) is False
    contents = read_documents(path.read_bytes(), "all.yaml")
    assert {document.name: document.spec for document in contents.documents} == {
        "first": {"policy": {"a": "08"}},
        "worker": BODY["spec"],
    }
    assert contents.skipped == 1
    assert await writing.remove(KEY) is True
    assert [document.name for document in read_documents(path.read_bytes(), "f").documents] == ["first"]
    assert await writing.remove(ObjectKey("Profile", "team", "first")) is True
    assert read_documents(path.read_bytes(), "f") == FileContents(skipped=1)


@pytest.mark.parametrize(
    "text", ["08", "1e3", "y", "N", "0o17", "1_0", "0b1", "0x_", "", "on", "null", ".5", "<<", "a: b"]
)
async def test_text_stays_text(tmp_path: Path, text: str) -> None:
    """What a request declares as text is read back as text, as a value and as a key."""
    spec = {"policy": {"a": text, "b": [text], "c": {text or "empty": 1}}}
    assert await writer(tmp_path).write(KEY, {"spec": spec}) is True
    (document,) = read_documents((tmp_path / "profiles/team/worker.yaml").read_bytes(), "f").documents
    assert document.spec == spec


async def test_nothing_is_written_through_a_link_out_of_the_directory(tmp_path: Path) -> None:
    """L11: neither by a new object nor in the place of one that stood there; a link that stays inside is fine."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    (root / "real").mkdir(parents=True)
    (root / "profiles").symlink_to(outside)
    (root / "manifests").symlink_to("real")
    refused = await writer(root).write(KEY, BODY)
    assert not isinstance(refused, bool)
    assert [(problem.path, problem.reason) for problem in refused] == [("metadata", "LinkNotFollowed")]
    assert list(outside.iterdir()) == []
    assert await writer(root).remove(KEY) is False
    manifest = {"spec": {"deploymentKey": "default", "version": 1}}
    assert await writer(root).write(ObjectKey("Manifest", "team", "prod"), manifest) is True
    assert (root / "real" / "team" / "prod.yaml").exists()
    (root / "profiles").unlink()
    source = DirectorySource(root, FileIdentities())
    assert await DirectoryWriter(source).write(KEY, BODY) is True
    await source.listing()
    (root / "profiles").rename(outside / "profiles")
    (root / "profiles").symlink_to(outside / "profiles")
    before = (outside / "profiles" / "team" / "worker.yaml").read_text()
    refused = await DirectoryWriter(source).write(KEY, {"spec": {}})
    assert not isinstance(refused, bool)
    with pytest.raises(OSError, match="leads out of the directory"):
        await DirectoryWriter(source).remove(KEY)
    assert (outside / "profiles" / "team" / "worker.yaml").read_text() == before
