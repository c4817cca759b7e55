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
    told = json.loads(metagate("plan", draft, "--against", QUICKSTART, "-o", "json").stdout)
    assert [each["kind"] for each in told["objects"]["removed"]] == ["PrincipalBinding"]
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
