"""The layout of the house: which packages there are, in which source root, and that every tool knows each of them."""

import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = {
    "crds": {"metagate_crds"},
    "store": {"metagate_store", "metagate_postgres"},
    "operator": {"metagate_operator"},
    "api": {"metagate_api", "metagate_console"},
    "kit": {"legivellum"},
    "gates": {"asyncgate", "cognigate", "delegate", "depotgate", "interrogate", "memorygate"},
    "client": {"legivellum_worker", "metagate_client"},
    "cli": {"metagate_cli"},
}
"""Source root → packages: the table of docs/architecture.md. A gate to come is one more in `gates`."""
NAMES = {name for names in PACKAGES.values() for name in names}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(name) for name in listed.stdout.split("\0") if name.endswith(".py")]


def test_each_package_is_in_its_root() -> None:
    """Every folder at the top that holds packages is a source root of the table, and holds what the table says."""
    result: dict[str, set[str]] = {}
    for path in tracked():
        if path.name == "__init__.py" and len(path.parts) == 3:
            result.setdefault(path.parts[0], set()).add(path.parts[1])
    result.pop("tests", None)
    assert result == PACKAGES
    assert len(result) <= 10


def test_a_root_is_no_package() -> None:
    """A package called `operator` would shadow the standard library's, so no root has an `__init__.py`."""
    assert [root for root in PACKAGES if (ROOT / root / "__init__.py").exists()] == []


def test_every_tool_knows_every_package() -> None:
    """What mypy, import-linter, coverage, the linter or the wheel forgets is neither checked nor shipped."""
    tool = PROJECT["tool"]
    build = tool["hatch"]["build"]
    assert set(tool["mypy"]["packages"]) == NAMES
    assert set(tool["importlinter"]["root_packages"]) == NAMES
    assert set(tool["coverage"]["run"]["source_pkgs"]) == NAMES
    assert set(build["targets"]["wheel"]["packages"]) == {
        f"{root}/{name}" for root, names in PACKAGES.items() for name in names
    }
    for roots in (tool["mypy"]["mypy_path"], tool["ruff"]["src"], build["dev-mode-dirs"]):
        assert set(roots) == set(PACKAGES)


def test_no_contract_has_an_exception() -> None:
    """Arrows are held as they are drawn: no import is left out of a contract, and one contract forbids circles."""
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    assert [contract["name"] for contract in contracts if "ignore_imports" in contract] == []
    [acyclic] = [contract for contract in contracts if contract["type"] == "acyclic_siblings"]
    assert set(acyclic["ancestors"]) == NAMES


def test_the_architecture_shows_the_layout() -> None:
    """docs/architecture.md names every root and package."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [
        name for name in (*(f"`{root}/`" for root in PACKAGES), *(f"`{name}`" for name in NAMES)) if name not in page
    ] == []
