"""The pages about the language say what the code does."""

import re

import pytest
import yaml
from tests.unit.crds.tables import DOCS, condition_table, field_table, page_of, reason_table

from metagate_crds.kinds import API_VERSION, KINDS
from metagate_crds.validation import validate

HEADINGS = ["Example", "Fields", "Rules", "Status"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_page_with_the_same_headings(kind):
    """Whoever knows one page finds their way on the others."""
    text = page_of(kind).read_text()
    assert text.startswith(f"# {kind}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("kind", KINDS)
def test_the_field_table_is_the_schema(kind):
    """`python -m tests.unit.crds.tables` writes it."""
    assert field_table(kind) in page_of(kind).read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_is_valid(kind):
    """And of the kind that the page is about."""
    (block,) = re.findall(r"^## Example\n+```yaml\n(.*?)^```", page_of(kind).read_text(), re.MULTILINE | re.DOTALL)
    documents = yaml.safe_load(block)
    assert (documents["apiVersion"], documents["kind"]) == (API_VERSION, kind)
    assert validate(kind, documents["spec"], namespace=documents["metadata"].get("namespace", "team-a")) == ()


def test_every_condition_and_reason_is_in_the_table():
    """And nothing else is."""
    text = (DOCS / "reasons.md").read_text()
    assert condition_table() in text
    assert reason_table() in text
