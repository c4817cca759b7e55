"""The site of docs/ as somebody reads it from the disk: no server, and whatever asks another host fails the test."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Playwright, expect
from tests.browser.looking import SIZES, Browser, BrowserTab, Scheme
from tests.docs.site import built_site

pytestmark = pytest.mark.timeout(120)
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
PAGES = ("index", "tutorial/one-machine", "kinds/profile", "runbooks/index", "errors")


@pytest.fixture(scope="module")
def site_browser(tmp_path_factory: pytest.TempPathFactory, playwright: Playwright) -> Iterator[Browser]:
    site = built_site(tmp_path_factory.mktemp("site"))
    pictures = Path("build/site-pictures")
    pictures.mkdir(parents=True, exist_ok=True)
    with Browser.another(playwright, tmp_path_factory.mktemp("site-profile"), site.as_uri(), pictures) as made:
        yield made


@pytest.fixture
def tab(site_browser: Browser) -> Iterator[BrowserTab]:
    with site_browser.tab() as made:
        yield made


@pytest.mark.parametrize("page", PAGES)
def test_every_page(tab: BrowserTab, page: str) -> None:
    """Light and dark, wide and narrow: nothing wider than the window, no serious finding of axe, the search in sight."""
    for scheme in SCHEMES:
        for size in SIZES:
            tab.see(f"/{page}.html", scheme=scheme, size=size)
            tab.picture(f"{page.replace('/', '-')}-{size}-{scheme}", whole=False)
            assert tab.overflow() <= 0, (page, scheme, size)
            assert tab.accessible() == [], (page, scheme, size)
            search = ".md-search__input" if size == "wide" else "label.md-header__button[for=__search]"
            expect(tab.page.locator(search)).to_be_visible()


@pytest.mark.parametrize("size", SIZES)
def test_a_search_finds(tab: BrowserTab, size: str) -> None:
    """Opened from the disk, a word that is typed leads to the page that explains it."""
    tab.see("/index.html", size=size)
    button = tab.page.locator("label.md-header__button[for=__search]")
    (tab.page.locator(".md-search__input") if size == "wide" else button).click()
    expect(tab.page.locator(".md-search__input")).to_be_focused()
    tab.page.keyboard.type("PRINCIPAL_MISMATCH")
    hit = tab.page.locator(".md-search-result__link[href*='errors.html']").first
    expect(hit).to_be_visible()
    tab.picture(f"search-{size}", whole=False)
    hit.click()
    tab.page.wait_for_url(re.compile(r"/errors\.html"))


def background(tab: BrowserTab) -> str:
    return str(tab.page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_dark_mode_follows_the_system_and_can_be_chosen(tab: BrowserTab) -> None:
    tab.see("/index.html", scheme="light")
    light = background(tab)
    tab.see("/index.html", scheme="dark")
    dark = background(tab)
    assert light != dark
    tab.page.get_by_title("Always light").click()
    expect(tab.page.locator("body")).to_have_css("background-color", light)
    tab.page.get_by_title("Always dark").click()
    expect(tab.page.locator("body")).to_have_css("background-color", dark)
    tab.see("/errors.html", scheme="light")
    expect(tab.page.locator("body")).to_have_css("background-color", dark)


def test_a_terminal_is_copied_without_the_prompt(tab: BrowserTab) -> None:
    tab.see("/tutorial/one-machine.html")
    block = tab.page.locator(".highlight", has_text="metagate doctor --resources").first
    expect(block).to_contain_text("$ metagate doctor")
    block.hover()
    block.get_by_title("Copy to clipboard").click()
    tab.page.evaluate("document.body.append(Object.assign(document.createElement('textarea'), {id: 'pasted'}))")
    tab.page.locator("#pasted").focus()
    tab.page.keyboard.press("Control+V")
    pasted = tab.page.locator("#pasted").input_value()
    assert pasted.splitlines() == [
        "export METAGATE_URL=http://127.0.0.1:8000 METAGATE_API_KEY_FILE=.metagate/data/keys/admin.key",
        "metagate doctor --resources .metagate/resources",
    ]


def test_code_is_highlighted(tab: BrowserTab) -> None:
    tab.see("/kinds/profile.html")
    colours = tab.page.evaluate(
        "[...new Set([...document.querySelectorAll('.highlight code span')].map(span => getComputedStyle(span).color))]"
    )
    assert len(colours) > 2
