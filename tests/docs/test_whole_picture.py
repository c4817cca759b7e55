"""The picture of the whole shows the edges of the table beside it, all of them and no others, in letters that fit."""

import html
import re
import subprocess
import sys

from tests.docs.test_links import ROOT

ROW = re.compile(r"^\| ([\w ,]+) \| ([\w ]+) \| .+ \|$", re.MULTILINE)


def test_the_picture_shows_the_table() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("| From | To |")[2].partition("\n\n")[0]
    picture = (ROOT / "docs" / "images" / "whole.svg").read_text(encoding="utf-8")
    drawn = [html.unescape(name) for name in re.findall(r'data-edge="([^"]+)"', picture)]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == {f"{caller} > {called}" for caller, called in ROW.findall(table)}


def test_the_picture_is_what_is_drawn() -> None:
    """`deploy/whole_picture.py` writes it."""
    assert subprocess.run([sys.executable, "deploy/whole_picture.py", "--check"], cwd=ROOT, check=False).returncode == 0


def test_its_letters_can_be_read_on_a_phone() -> None:
    picture = (ROOT / "docs" / "images" / "whole.svg").read_text(encoding="utf-8")
    assert re.search(r'viewBox="0 0 470 \d+"', picture)
    assert min(map(int, re.findall(r'font-size="(\d+)"', picture))) * 343 / 470 > 9  # pixels, where a page is 343 wide
