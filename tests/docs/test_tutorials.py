"""What the pages say was typed prints what they say."""

import difflib
import os
from pathlib import Path

import pytest
from tests.docs.typed import PAGES, masked, retyped

ALL = os.environ.get("METAGATE_DOCS") == "all"  # noqa: TID251 - `make docs`; the suite types the tutorial alone


@pytest.mark.parametrize("page", PAGES if ALL else PAGES[:1], ids=lambda page: page.stem)
def test_a_page_prints_what_it_says(page: Path) -> None:
    """Every command of the page, in its order, beside a fresh `make run`: the same words, but for ids and times.
    `python -m tests.docs.typed` writes the pages anew."""
    output, printed = (masked(text) for text in retyped(page))
    assert output == printed, "\n".join(difflib.unified_diff(output, printed, "the page", "printed", lineterm=""))
