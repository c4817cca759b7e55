"""The ledger's console in Chromium: every page light and dark, wide and narrow, the story's picture, live, without JavaScript."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Playwright, expect
from tests.browser.conftest import PICTURES
from tests.browser.ledger_scene import HOSTILE, REVIEW, WAITING, LedgerScene, ledger_played
from tests.browser.looking import Browser, BrowserTab, Scheme
from tests.integration.memorygate.conftest import accepted

pytestmark = pytest.mark.timeout(120)
VIEWS: tuple[tuple[Scheme, str], ...] = (("light", "wide"), ("dark", "narrow"), ("dark", "wide"), ("light", "narrow"))
PAGES = {
    "ledger-overview": "/console",
    "ledger-stories": "/console/tasks",
    "ledger-story": f"/console/tasks/{REVIEW}",
    "ledger-steps": f"/console/tasks/{REVIEW}?by=step",
    "ledger-waiting": f"/console/tasks/{WAITING}",
    "ledger-inbox": "/console/inbox?principal=alice",
    "ledger-admissions": "/console/admissions",
    "ledger-verify": "/console/verify",
}


@pytest.fixture(scope="module")
def ledger_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerScene]:
    with ledger_played(tmp_path_factory.mktemp("ledger")) as made:
        yield made


@pytest.fixture(scope="module")
def ledger_browser(
    tmp_path_factory: pytest.TempPathFactory, playwright: Playwright, ledger_scene: LedgerScene
) -> Iterator[Browser]:
    """Signed in as an observer."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    profile = tmp_path_factory.mktemp("ledger-profile")
    with Browser.another(playwright, profile, ledger_scene.url, PICTURES) as made:
        made.sign_in(ledger_scene.observer)
        yield made


@pytest.fixture
def tab(ledger_browser: Browser) -> Iterator[BrowserTab]:
    with ledger_browser.tab() as made:
        yield made


@pytest.mark.parametrize(
    ("name", "scheme", "size"),
    [(name, *view) for name in PAGES for view in (VIEWS if name == "ledger-story" else VIEWS[:2])],
)
def test_every_page(tab: BrowserTab, name: str, scheme: Scheme, size: str) -> None:
    """No serious finding of axe, nothing wider than the window, nothing that the policy blocked."""
    tab.see(PAGES[name], scheme=scheme, size=size)
    assert tab.accessible() == []
    assert tab.overflow() <= 0
    tab.picture_from_top(f"{name}-{size}-{scheme}", 1_390 if size == "wide" else 1_600)


def test_the_picture_and_the_table_say_the_same(tab: BrowserTab) -> None:
    """Each node leads to its row; under the pointer, what it hangs together with stays. One drawing for each width."""
    tab.see(f"/console/tasks/{REVIEW}")
    expect(tab.page.locator("svg.story.full a.node")).to_have_count(33)
    expect(tab.page.locator("tr[id]")).to_have_count(33)
    expect(tab.page.locator("svg.story.slim")).to_be_hidden()
    node = tab.page.locator("svg.story.full a.node path.receipt").nth(4)
    node.hover()
    expect(tab.page.locator("svg.story.full")).to_have_class("story full fading")
    node.click()
    expect(tab.page.locator("tr:target td").first).to_have_text("5")
    tab.see(f"/console/tasks/{REVIEW}", size="narrow")
    expect(tab.page.locator("svg.story.slim")).to_be_visible()
    expect(tab.page.locator("svg.story.full")).to_be_hidden()


def test_live(ledger_scene: LedgerScene, tab: BrowserTab) -> None:
    """What was given to somebody shows in the open inbox by itself."""
    tab.see("/console/inbox?principal=lead")
    expect(tab.page.locator("#fresh")).to_have_text("Follows what happens.")
    receipt = accepted(task_id="shown-live", principal_ai="alice", recipient_ai="lead")
    answer = httpx.post(f"{ledger_scene.url}/receipts", json=receipt, headers={"X-API-Key": ledger_scene.alice})
    assert answer.status_code == 201, answer.text
    expect(tab.page.get_by_text("shown-live")).to_be_visible(timeout=20_000)


def test_without_javascript_as_anybody(ledger_scene: LedgerScene, ledger_browser: Browser, tmp_path: Path) -> None:
    """A principal signs in, finds what waits, follows it to its story, searches, and signs out."""
    with Browser.another(
        ledger_browser.playwright, tmp_path, ledger_scene.url, PICTURES, java_script_enabled=False
    ) as plain:
        plain.sign_in(ledger_scene.alice)
        with plain.tab() as tab:
            page = tab.page
            tab.see("/console")
            for name in ("Stories", "Inbox", "Admissions", "Verify", "Overview"):
                page.get_by_role("navigation", name="Console").get_by_role("link", name=name).click()
                expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
            page.get_by_role("link", name=f"{WAITING}.approval").click()
            expect(page.get_by_role("heading", level=1)).to_contain_text(f"Story of {WAITING}.approval")
            page.get_by_role("searchbox").fill(REVIEW)
            page.get_by_role("button", name="Search").click()
            expect(page.get_by_role("heading", level=1, name=f"Story of {REVIEW}")).to_be_visible()
            page.get_by_role("button", name="Sign out").click()
            expect(page.get_by_role("heading", level=1, name="Sign in")).to_be_visible()


def test_hostile_words_are_read_and_not_obeyed(tab: BrowserTab) -> None:
    """In the list, and in the story's picture and table: nothing runs, and there is no element of theirs."""
    tab.see("/console/tasks")
    row = tab.page.get_by_role("row").filter(has_text="onerror")
    address = row.get_by_role("link").first.get_attribute("href")
    assert address is not None
    assert quote(HOSTILE, safe="") in address
    tab.see(address)
    assert HOSTILE in json.dumps(tab.text())[1:-1]
    assert tab.page.locator("main img, main script, main iframe").count() == 0
