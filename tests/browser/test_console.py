"""Every page, light and dark, wide and narrow; live; without JavaScript; by keyboard; with hostile words on it."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect
from tests.browser.looking import Browser, BrowserTab, Scheme
from tests.browser.scene import Scene

pytestmark = pytest.mark.timeout(120)
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
PAGES = {
    "sign-in": "/console/sign-in",
    "overview": "/console",
    "principals": "/console/principals",
    "principal": "/console/principals/shop-web",
    "startups": "/console/startups?status=FAILED",
    "startup": "/console/startups/{explained}",
    "reported": "/console/startups/{hostile}",
    "topology": "/console/topology",
    "history": "/console/history",
    "search": "/console/search?q=shop",
    "runbook": "/console/runbook",
    "nothing": "/console/principals/nobody",
}


@pytest.mark.parametrize("name", PAGES)
def test_every_page(scene: Scene, tab: BrowserTab, name: str) -> None:
    """In four ways of looking: no serious finding of axe, nothing wider than the window, nothing that the policy blocked."""
    path = PAGES[name].format(explained=scene.explained, hostile=scene.hostile)
    for scheme in SCHEMES:
        for size in ("wide", "narrow"):
            tab.see(path, scheme=scheme, size=size)
            assert tab.accessible() == [], (name, scheme, size)
            assert tab.overflow() <= 0, (name, scheme, size)
            tab.picture(f"{name}-{size}-{scheme}", whole=size == "wide")


def test_every_tenant(scene: Scene, browser: Browser, tmp_path: Path) -> None:
    """A cluster-wide observer has a table of tenants, and no packet to see."""
    with Browser.another(browser.playwright, tmp_path, scene.url, browser.pictures) as other:
        other.sign_in(scene.ruler)
        with other.tab() as tab:
            tab.see("/console")
            expect(tab.page.get_by_role("link", name="default", exact=True)).to_be_visible()
            assert tab.accessible() == []
            tab.picture("everywhere-wide-light")
            tab.page.get_by_role("link", name="default", exact=True).click()
            expect(tab.page.get_by_text("Showing tenant")).to_be_visible()
            expect(tab.page.get_by_role("link", name="History")).to_have_count(0)


def test_live(scene: Scene, tab: BrowserTab) -> None:
    """A boot shows by itself; paused, the page stands still; followed again, it catches up. Focus stays where it was."""
    tab.see("/console")
    expect(tab.page.locator("#fresh")).to_have_text("Follows what happens.")
    tab.page.get_by_role("link", name=re.compile("overdue")).focus()
    scene.boot("seen_live")
    expect(tab.page.get_by_text("seen_live")).to_be_visible(timeout=15_000)
    assert "overdue" in tab.page.evaluate("document.activeElement.textContent")
    tab.page.get_by_role("button", name="Pause").click()
    expect(tab.page.locator("#fresh")).to_have_text("Stands still.")
    scene.boot("not_seen_yet")
    tab.page.wait_for_timeout(4_000)
    expect(tab.page.get_by_text("not_seen_yet")).to_have_count(0)
    tab.page.get_by_role("button", name="Follow again").click()
    expect(tab.page.get_by_text("not_seen_yet")).to_be_visible()
    assert tab.accessible() == []


def test_a_stream_that_is_refused(scene: Scene, tab: BrowserTab) -> None:
    """The page says that it stands still, tries again by itself, and then has what happened meanwhile."""
    tab.page.route("**/console/live*", lambda route: route.fulfill(status=503))
    tab.see("/console")
    expect(tab.page.locator("#fresh")).to_have_text("Does not follow; trying again.")
    scene.boot("while_it_stood")
    tab.page.unroute("**/console/live*")
    expect(tab.page.get_by_text("while_it_stood")).to_be_visible(timeout=60_000)
    assert all("503" in complaint for complaint in tab.complaints), tab.complaints
    tab.complaints.clear()


def test_without_javascript(scene: Scene, browser: Browser, tmp_path: Path) -> None:
    """Signing in, every link of the navigation, searching, filtering and signing out work."""
    with Browser.another(browser.playwright, tmp_path, scene.url, browser.pictures, java_script_enabled=False) as plain:
        plain.sign_in(scene.admin)
        with plain.tab() as tab:
            page = tab.page
            tab.see("/console")
            for name in ("Principals", "Startups", "Topology", "History", "Overview"):
                page.get_by_role("navigation", name="Console").get_by_role("link", name=name).click()
                expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
            page.get_by_role("searchbox").fill("shop-w")
            page.get_by_role("button", name="Search").click()
            page.get_by_role("link", name="shop-web", exact=True).click()
            expect(page.get_by_role("heading", level=1, name="Principal shop-web")).to_be_visible()
            tab.see("/console/startups")
            page.get_by_label("State").select_option("FAILED")
            page.get_by_role("button", name="Filter").click()
            expect(page.locator("td .state.ready")).to_have_count(0)
            page.get_by_role("button", name="Sign out").click()
            expect(page.get_by_role("heading", level=1, name="Sign in")).to_be_visible()
            tab.see("/console/topology")
            expect(page.get_by_role("heading", level=1, name="Sign in")).to_be_visible()


def test_errors_are_grouped_and_ids_can_be_copied(scene: Scene, tab: BrowserTab) -> None:
    """Equal errors are one line; its startup is shown by the end of its id, copied whole, and found by what is shown."""
    for _ in range(3):
        scene.fail("no route to the database")
    newest = scene.fail("no route to the database")
    tab.see("/console")
    section = tab.page.get_by_role("region", name="Failed startups by error")
    row = section.get_by_role("row").filter(has_text="no route to the database")
    expect(row).to_have_count(1)
    expect(row.get_by_role("cell").nth(1)).to_have_text("4")
    expect(row.get_by_role("link", name=f"…{newest[-8:]}")).to_be_visible()
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    row.get_by_role("button", name="Copy").click()
    expect(row.get_by_role("button", name="Copy")).to_have_text("Copied")
    assert tab.page.evaluate("navigator.clipboard.readText()") == newest
    tab.page.locator("h1").click()
    tab.page.keyboard.press("/")
    expect(tab.page.get_by_role("searchbox")).to_be_focused()
    tab.page.get_by_role("searchbox").fill(newest[-8:])
    tab.page.keyboard.press("Enter")
    tab.page.get_by_role("link", name=f"…{newest[-8:]}").click()
    expect(tab.page.get_by_role("heading", level=1, name=f"Startup {newest}")).to_be_visible()
    assert tab.accessible() == []


def test_search_finds_letters_anywhere(scene: Scene, tab: BrowserTab) -> None:
    """Principals, services and Manifests, each under its heading."""
    tab.see("/console/search?q=AIL")
    for heading, name in (("Principals", "shop-mail"), ("Services", "mailrelay"), ("Manifests", "shop-mail")):
        section = tab.page.get_by_role("region", name=heading, exact=True).last
        expect(section.get_by_text(name, exact=True).first).to_be_visible()
    assert tab.accessible() == []


def test_what_is_declared_but_not_served_is_on_the_first_page(scene: Scene, tab: BrowserTab) -> None:
    """An object that the writer refuses, with the reason, until it is gone."""
    path = scene.refuse("never-served")
    try:
        tab.see("/console")
        row = tab.page.get_by_role("row").filter(has_text="never-served")
        expect(row).to_contain_text("nothing", timeout=30_000)
        expect(row).to_contain_text("Invalid")
        assert tab.accessible() == []
        tab.picture("refused-wide-light", whole=True)
    finally:
        path.unlink()
    expect(tab.page.get_by_text("never-served")).to_have_count(0, timeout=30_000)


def test_by_keyboard(tab: BrowserTab) -> None:
    """The first Tab reaches a way past the navigation; each stop has a name and can be seen."""
    tab.see("/console")
    tab.page.keyboard.press("Tab")
    expect(tab.page.get_by_role("link", name="To the content")).to_be_focused()
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#main")).to_be_focused()
    stops = []
    for _ in range(8):
        tab.page.keyboard.press("Tab")
        stops.append(tab.page.evaluate(
            "(e => [e.textContent.trim() || e.getAttribute('aria-label'), getComputedStyle(e).outlineStyle])(document.activeElement)"
        ))  # fmt: skip
    assert all(name and outline == "solid" for name, outline in stops), stops


def test_a_link_from_elsewhere(tab: BrowserTab) -> None:
    """It arrives without the cookie, which is not lost by that: one more click, and the page is there."""
    tab.page.goto(f"data:text/html,<a href='{tab.url}/console/topology'>look</a>")
    tab.page.get_by_role("link", name="look").click()
    expect(tab.page.get_by_role("heading", level=1, name="Sign in")).to_be_visible()
    tab.page.get_by_role("link", name="Go on").click()
    expect(tab.page.get_by_role("heading", level=1, name="Topology")).to_be_visible()


def test_hostile_words_are_read_and_not_obeyed(scene: Scene, tab: BrowserTab) -> None:
    """What was declared and reported stands there letter by letter; nothing ran, nothing turned around."""
    for path in (f"/console/startups/{scene.hostile}", f"/console/startups/{scene.explained}"):
        tab.see(path)
        assert "<img src=x onerror=alert(1)><svg onload=alert(2)>" in tab.text()
        assert "\\u202etxt.exe\\u001b[31m" in tab.text()
        assert tab.page.locator("main img, main script, main iframe").count() == 0


def test_a_packet_is_explained(scene: Scene, tab: BrowserTab) -> None:
    """Each value with the layer and the object that gave it."""
    tab.see(f"/console/startups/{scene.explained}")
    for path, value, layer in (
        ("/environment/tier", '"gold"', "override"), ("/environment/region", '"eu-central"', "manifest"),
        ("/capabilities/serve", "true", "profile"), ("/capabilities/refund", "true", "override"),
    ):  # fmt: skip
        row = tab.page.get_by_role("row").filter(has=tab.page.get_by_text(path, exact=True))
        expect(row).to_contain_text(value)
        expect(row.locator(".layer")).to_have_text(layer)
    expect(tab.page.get_by_text("equal to the byte")).to_be_visible()
