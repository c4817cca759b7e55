"""The pages about dependencies and the project file say the same."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_dependency_has_its_reason() -> None:
    """Each direct dependency of each extra stands in docs/dependencies.md, and nothing else does."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    declared = {re.split(r"[\[<>=~! ]", requirement)[0] for group in extras.values() for requirement in group} - {
        "metagate"
    }
    rows = re.findall(
        r"^\| ([^|]+) \| (?:api|operator|operator, standalone|interrogate, standalone|depotgate|embedded|otel|build|bench|frameworks|dev) \|",
        (ROOT / "docs/dependencies.md").read_text(),
        re.MULTILINE,
    )
    documented = {re.sub(r"\[.*\]", "", name.strip()) for row in rows for name in row.split(",")}
    assert documented == declared


LOCKS = ("requirements-run.lock", "requirements.lock", "requirements-dev.lock")
FRAMEWORKS = "requirements-frameworks.lock"


def pins(lock: str) -> dict[str, str]:
    """What a lock file says of each package: its version and all of its hashes. Where it is installed may differ: what
    the product needs on one platform only, a tool of development may need on all.
    """
    text = re.sub(r" ; [^\\\n]*", " ", (ROOT / lock).read_text().strip())
    return {re.split(r"==", pin)[0]: pin.rstrip() for pin in re.split(r"\n(?=[a-z0-9])", text)}


@pytest.mark.parametrize("lock", [*LOCKS, FRAMEWORKS])
def test_every_dependency_is_locked_with_a_hash(lock: str) -> None:
    """Every pin carries at least one hash, and no line names an index."""
    assert all("--hash=sha256:" in pin for pin in pins(lock).values())
    assert "://" not in (ROOT / lock).read_text()


def test_the_lock_files_agree() -> None:
    """What runs is part of the product, and that of what developers need: the same versions with the same hashes."""
    running, product, development = map(pins, LOCKS)
    assert running.items() < product.items() < development.items()
    assert "kubernetes" not in running
    assert not {"pytest", "ruff", "mypy", "playwright"} & product.keys()


def test_the_frameworks_are_locked_as_they_are_declared() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras["frameworks"]) <= {pin.split(" ")[0] for pin in pins(FRAMEWORKS).values()}
    assert not {re.split("==", requirement)[0] for requirement in extras["frameworks"]} & pins(LOCKS[2]).keys()
