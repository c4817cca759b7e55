"""`metagate plan` between two directories, without a database."""

import json
from pathlib import Path

import pytest
from tests.unit.cli.running import metagate

QUICKSTART = Path("examples/quickstart")


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    """The quickstart with another region and without its second binding."""
    for file in QUICKSTART.rglob("*.yaml"):
        copy = tmp_path / "draft" / file.relative_to(QUICKSTART)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text().replace("eu-central", "eu-north"))
    (tmp_path / "draft" / "bindings" / "concierge.yaml").unlink()
    return tmp_path / "draft"


def test_the_same_files_change_nothing() -> None:
    """Exit 0, and said so."""
    done = metagate("plan", QUICKSTART, "--against", QUICKSTART)
    assert (done.returncode, done.stderr) == (0, "")
    assert "No changes" in done.stdout


def test_changes_exit_with_2(draft: Path) -> None:
    """Changed paths with both values, who loses its packet, what is removed; the same in JSON and as Markdown."""
    done = metagate("plan", draft, "--against", QUICKSTART)
    assert done.returncode == 2, done.stderr
    assert '- /environment/region: "eu-central"' in done.stdout
    assert '+ /environment/region: "eu-north"' in done.stdout
    assert "default/concierge loses its packet" in done.stdout
    document = json.loads(metagate("plan", draft, "--against", QUICKSTART, "-o", "json").stdout)
    assert [item["kind"] for item in document["objects"]["removed"]] == ["PrincipalBinding"]
    marked = metagate("plan", draft, "--against", QUICKSTART, "-o", "markdown").stdout
    assert marked.startswith("### MetaGate plan")
    kept = metagate("plan", draft, "--against", QUICKSTART, "--no-prune", "-o", "json")
    assert json.loads(kept.stdout)["objects"]["removed"] == []


def test_errors_exit_with_1(tmp_path: Path) -> None:
    """A broken file, nothing to compare with, a command that is not understood: never 2, which says changes."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("kind: [")
    assert metagate("plan", broken, "--against", QUICKSTART).returncode == 1
    assert metagate("plan", QUICKSTART).returncode == 1
    assert metagate("plan", QUICKSTART, "--nonsense").returncode == 1
    assert metagate("plan", QUICKSTART, "--url", "http://127.0.0.1:9", "--key-file", broken).returncode == 1


def test_markdown_fits_into_a_comment(tmp_path: Path) -> None:
    """However much changes, a pull request takes it, and what was left out is said."""
    head = "apiVersion: metagate.legivellum.io/v1alpha1"
    many = [
        f"{head}\nkind: Principal\nmetadata: {{name: p{number}}}\nspec: {{}}\n---\n"
        f"{head}\nkind: PrincipalBinding\nmetadata: {{name: p{number}}}\nspec: {{principalRef: {{name: p{number}}}, "
        f"profileRef: {{name: writer}}, manifestRef: {{name: search}}, components: [c{number}], "
        f"overrides: {{environment: {{note: '{'a b ' * 60}{number}'}}}}}}\n"
        for number in range(60)
    ]
    (tmp_path / "many.yaml").write_text("---\n".join(many))
    done = metagate("plan", tmp_path, "--against", QUICKSTART, "--no-prune", "-o", "markdown")
    assert done.returncode == 2, done.stderr
    assert 50_000 < len(done.stdout) < 65_536
    assert "too long for a comment" in done.stdout


def test_standard_input(draft: Path) -> None:
    """`-` is what was piped in, of any length, with its lines; both sides may be it, and then nothing changes."""
    text = "\n---\n".join(file.read_text() for file in sorted(draft.rglob("*.yaml")))
    files = json.loads(metagate("plan", draft, "--against", QUICKSTART, "-o", "json").stdout)
    piped = metagate("plan", "-", "--against", QUICKSTART, "-o", "json", stdin=text)
    assert (piped.returncode, json.loads(piped.stdout)) == (2, files)
    assert metagate("plan", "-", "--against", "-", stdin=text).returncode == 0
    long = text + "".join(f"\n---\n# {'x' * 100}" for _ in range(50_000))
    assert len(long) > 5_000_000
    assert metagate("validate", "-", stdin=long).returncode == 0
    broken = metagate("validate", "-", stdin=text.replace("kind: Manifest", "kind: [", 1))
    assert (broken.returncode, broken.stdout.startswith("<stdin>:")) == (1, True)
    empty = metagate("plan", "-", "--against", QUICKSTART, stdin="\n")
    assert (empty.returncode, empty.stdout, "standard input is empty" in empty.stderr) == (1, "", True)


@pytest.mark.parametrize(
    "command", [("validate",), ("plan", "--against", QUICKSTART), ("compile", "--principal=x", "--component=y")]
)
def test_a_directory_without_a_file_is_named(command: tuple[str | Path, ...], tmp_path: Path) -> None:
    """Most likely it is the wrong one: exit 1, and not a plan to remove everything."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("nothing")
    done = metagate(command[0], tmp_path / "empty", *command[1:])
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path / 'empty'}: holds no file that ends in .yaml" in done.stderr


def test_files_of_others_only_are_named(tmp_path: Path) -> None:
    """Nothing of ours is there to be valid."""
    file = tmp_path / "deployment.yaml"
    file.write_text("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n")
    done = metagate("validate", file)
    assert done.returncode == 1
    assert f"nothing of metagate.legivellum.io is declared in {file}" in done.stderr


def test_the_reason_for_a_lost_packet_comes_first(draft: Path) -> None:
    """A Binding that names a Profile which is not there: why stands before what is lost, and that is not spelt out."""
    binding = draft / "bindings" / "indexer.yaml"
    binding.write_text(binding.read_text().replace("name: writer", "name: writter"))
    done = metagate("plan", draft, "--against", QUICKSTART)
    lines = done.stdout.splitlines()
    assert lines[0] == "Would not be served as declared"
    assert "Unresolved: PrincipalBinding default/indexer" in lines[1]
    lost = lines.index("default/indexer loses its packet") if "default/indexer loses its packet" in lines else None
    assert (lost is not None) or "2 principals lose their packet" in lines
    assert "/memory_map/scratch/backend" not in done.stdout
    assert "/memory_map/scratch/backend" in metagate("plan", draft, "--against", QUICKSTART, "-o", "wide").stdout
