"""Every link of every page leads somewhere: to a file of the repository, and to a heading of it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    page.relative_to(ROOT)
    for page in (*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("charts/*/README.md"))
)  # fmt: skip
FENCED = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?\)")
HEADING = re.compile(r"^#{1,6} +(.*?)\s*#*$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Of its headings, as both GitHub and mkdocs make them."""
    result: set[str] = set()
    for heading in HEADING.findall(FENCED.sub("", text)):
        plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        result.add(re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-"))
        result.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain.lower()).strip()))
    return result


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative ones; addresses elsewhere are nobody's promise."""
    lost = []
    for target in LINK.findall(FENCED.sub("", (ROOT / page).read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (ROOT / page).parent / place if place else ROOT / page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file.read_text())):
            lost.append(target)
    assert lost == []
