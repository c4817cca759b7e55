"""The built site: complete, and of one host; that it works in a browser shows tests/browser/test_site.py."""

import importlib.util
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.docs.site import ROOT, built_site

# What a browser fetches without being told to, by tag and attribute. `a href` is followed by people alone.
FETCHED = {
    "audio": {"src"}, "embed": {"src"}, "iframe": {"src"}, "image": {"href", "xlink:href"}, "img": {"src", "srcset"},
    "input": {"src"}, "link": {"href", "imagesrcset"}, "object": {"data"}, "script": {"src"}, "source": {"src", "srcset"},
    "track": {"src"}, "use": {"href", "xlink:href"}, "video": {"src", "poster"},
}  # fmt: skip
IN_STYLES = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s;]+)""", re.IGNORECASE)
FOREIGN = re.compile(r"\s*(?:https?:)?//\S+", re.IGNORECASE)


class ForeignResources(HTMLParser):
    """Addresses of other hosts that a page fetches from."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in FETCHED.get(tag, ()):
                self.addresses += [part.strip() for part in (value or "").split(",") if FOREIGN.match(part)]
            elif name == "style":
                self.addresses += IN_STYLES.findall(value or "")


def foreign_resources(text: str, *, style: bool = False) -> list[str]:
    styles = [text] if style else re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL)
    parser = ForeignResources()
    if not style:
        parser.feed(text)
    return [*parser.addresses, *(address for block in styles for address in IN_STYLES.findall(block))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_site(tmp_path_factory.mktemp("site"))


def published_pages() -> Iterator[str]:
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html")
        yield str(name.with_name("index.html") if name.stem == "README" else name)


def test_the_site_is_built_without_a_complaint(site: Path) -> None:
    """`mkdocs build --strict`, offline: no link or anchor is lost, and every page of docs/ is there."""
    assert {str(page.relative_to(site)) for page in site.rglob("*.html")} >= {*published_pages(), "404.html"}


def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    """No script, style, font or picture: the site can be read without a network, and nobody learns who reads it."""
    files = [*site.rglob("*.html"), *site.rglob("*.css"), *site.rglob("*.svg")]
    foreign = {
        str(file.relative_to(site)): foreign_resources(file.read_text(), style=file.suffix == ".css") for file in files
    }
    assert {name: addresses for name, addresses in foreign.items() if addresses} == {}


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel=preconnect href="//fonts.example" crossorigin>',
        '<img alt="" srcset="a.png 1x, https://cdn.example/b.png 2x">',
        "<style>@import 'https://cdn.example/x.css';</style>",
        '<p style="background: url(https://cdn.example/x.png)">',
        '<svg><use xlink:href="https://cdn.example/x.svg#a"/></svg>',
    ],
)
def test_such_resources_are_seen(text: str) -> None:
    assert len(foreign_resources(text)) == 1


def test_every_page_is_searched_and_every_mode_can_be_chosen(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert 'class="md-search__input"' in text, page
        assert text.count('name="__palette"') == 3, page
        assert "assets/iframe-worker.js" in text, page


def test_a_terminal_is_copied_without_prompts_and_without_what_it_printed(site: Path) -> None:
    copied = re.findall(r'data-copy="([^"]*)"', (site / "install.html").read_text())
    assert "helm test metagate --namespace metagate-system --logs" in copied
    here_document = next(text for text in copied if "&lt;&lt;END" in text)
    assert here_document.endswith("\nEND")
    assert "trial: {enabled: false}" in here_document
    for page in site.rglob("*.html"):
        for text in re.findall(r'data-copy="([^"]*)"', page.read_text()):
            assert not text.startswith("$ "), page
            assert "\n$ " not in text, page


@pytest.mark.parametrize(
    ("block", "copied"),
    [
        ("$ make run\nServing\n$ echo '$ 1'\n$ 1\n", "make run\necho '$ 1'\n1"),
        ("$ helm install \\\n    --wait\nNAME: m\n", "helm install \\\n    --wait"),
        ("$ for x in 1; do\n> echo $x\n> done\n1\n", "for x in 1; do\necho $x\ndone"),
        ("$ cat <<'END' > x\n$ no prompt\nEND\nprinted\n", "cat <<'END' > x\n$ no prompt\nEND"),
        ("$ grep a <<< text\na\n", "grep a <<< text"),
        ("> quoted\nGET /health\n", ""),
    ],
)
def test_what_is_typed_in_a_block(block: str, copied: str) -> None:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "deploy" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert hooks.typed_commands(block) == copied
