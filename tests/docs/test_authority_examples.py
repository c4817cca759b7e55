"""What pages and examples grant a model's work is enough for CogniGate, which denies whatever is absent."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.docs.test_links import ROOT

from cognigate.spending import JobLimits

FENCED_YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def documents(path: Path) -> Iterator[Any]:
    text = path.read_text(encoding="utf-8")
    for block in FENCED_YAML.findall(text) if path.suffix == ".md" else [text]:
        # Some pages show templates of other programs, which are no YAML before they are rendered.
        try:
            yield from yaml.safe_load_all(block)
        except yaml.YAMLError:
            continue


def authorities(value: Any) -> Iterator[dict[str, Any]]:
    """Every authority of a step that grants questions to models."""
    if isinstance(value, dict):
        if isinstance(authority := value.get("authority"), dict) and "cognition" in authority:
            yield authority
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from authorities(inner)


GRANTS = [
    pytest.param(authority, id=f"{path.relative_to(ROOT)}-{number}")
    for path in sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.yaml")])
    for number, authority in enumerate(authorities(list(documents(path))))
]


@pytest.mark.parametrize("authority", GRANTS)
def test_a_grant_is_complete(authority: dict[str, Any]) -> None:
    assert JobLimits.of(authority, {}).models


def test_grants_are_found() -> None:
    assert len(GRANTS) >= 5
