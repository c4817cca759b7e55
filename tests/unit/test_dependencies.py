"""The pages about dependencies and the project file say the same."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_dependency_has_its_reason() -> None:
    """Each direct dependency of each extra stands in docs/dependencies.md, and nothing else does."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    declared = {re.split(r"[\[<>=~! ]", requirement)[0] for group in extras.values() for requirement in group} - {
        "metagate"
    }
    rows = re.findall(
        r"^\| ([^|]+) \| (?:api|operator|embedded|otel|bench|dev) \|",
        (ROOT / "docs/dependencies.md").read_text(),
        re.MULTILINE,
    )
    documented = {re.sub(r"\[.*\]", "", name.strip()) for row in rows for name in row.split(",")}
    assert documented == declared


def test_every_dependency_is_locked_with_a_hash() -> None:
    """The lock file pins each direct dependency and every pin carries at least one hash."""
    lock = (ROOT / "requirements.lock").read_text()
    pins = re.split(r"\n(?=[a-z0-9])", lock.strip())
    assert all("--hash=sha256:" in pin for pin in pins)
    assert "://" not in lock
