"""The pages in a world of 3 principals and in one of 200: nothing overflows, nothing is empty without a word, and the topology
can be read.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Locator, Playwright, expect
from tests.browser.conftest import PICTURES
from tests.browser.looking import SIZES, Browser, BrowserTab, Scheme
from tests.browser.sized_scene import MANIFESTS, SizedScene, large_scene, small_scene

pytestmark = pytest.mark.timeout(240)
LOOKS: tuple[tuple[Scheme, str], ...] = (
    ("light", "wide"), ("dark", "wide"), ("light", "tablet"), ("light", "narrow"), ("dark", "narrow"),
)  # fmt: skip
SCENES = {"small": small_scene, "large": large_scene}
PAGES = {
    "overview": "/console",
    "principals": "/console/principals",
    "ready": "/console/principals?state=ready",
    "startups": "/console/startups",
    "topology": "/console/topology",
    "history": "/console/history",
    "runbook": "/console/runbook",
}
OF_LARGE = {
    "troubled": "/console/principals?state=failed",
    "failed": "/console/startups/{failed}",
    "alike": "/console/startups?error=payments:8000:%20connection%20refused",
    "manifest": "/console/topology?manifest=billing",
    "service": "/console/topology?service=documents",
    "nothing-fits": "/console/topology?manifest=no-such-manifest",
}
LONGEST_PHONE_PAGE = 25_000
HEIGHTS = {"wide": 1_660, "tablet": 1_500, "narrow": 1_400}
"""Of a picture."""


@dataclass
class SizedWorld:
    name: str
    scene: SizedScene
    browser: Browser


@pytest.fixture(scope="module", params=SCENES)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, playwright: Playwright
) -> Iterator[SizedWorld]:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with (
        SCENES[request.param](tmp_path_factory.mktemp(request.param)) as scene,
        Browser.another(playwright, tmp_path_factory.mktemp("profile"), scene.url, PICTURES) as browser,
    ):
        browser.sign_in(scene.admin)
        yield SizedWorld(request.param, scene, browser)


@pytest.fixture
def tab(world: SizedWorld) -> Iterator[BrowserTab]:
    with world.browser.tab() as made:
        yield made


CASES = [(world, name) for world in SCENES for name in (PAGES if world == "small" else PAGES | OF_LARGE)]


@pytest.mark.parametrize(("world", "name"), CASES, indirect=["world"], scope="module")
def test_every_page(world: SizedWorld, tab: BrowserTab, name: str) -> None:
    """Light and dark, wide and on a phone, and on a tablet: no finding of axe, nothing wider than the window, no endless page."""
    path = (PAGES | OF_LARGE)[name].format(failed=world.scene.failed)
    for scheme, size in LOOKS:
        tab.see(path, scheme=scheme, size=size)
        assert tab.accessible() == [], (scheme, size)
        assert tab.overflow() <= 0, (scheme, size)
        assert tab.page.evaluate("document.documentElement.scrollHeight") < LONGEST_PHONE_PAGE, (scheme, size)
        tab.picture_from_top(f"{name}-{world.name}-{size}-{scheme}", HEIGHTS[size])


def test_counts_lead_to_who_is_counted(world: SizedWorld, tab: BrowserTab) -> None:
    """Each number above the list of principals is a filter, and gives as many as it says."""
    tab.see("/console/principals")
    states = tab.page.get_by_role("navigation", name="By state")
    counts = {
        "small": {"all": 3, "ready": 1, "not seen": 1, "no Binding": 1},
        "large": {"all": 200, "failed": 16, "overdue": 3},
    }
    for word, count in counts[world.name].items():
        expect(states.get_by_role("link", name=f"{count} {word}", exact=True)).to_be_visible()
    word, count = [*counts[world.name].items()][1]
    states.get_by_role("link", name=f"{count} {word}", exact=True).click()
    expect(tab.page.locator("tbody tr")).to_have_count(count)
    expect(tab.page.locator("tbody .state")).to_have_text([word] * count)
    expect(states.get_by_role("link", name=f"{count} {word}", exact=True)).to_have_attribute("aria-current", "true")


def test_hover_and_focus_fade_what_does_not_belong(world: SizedWorld, tab: BrowserTab) -> None:
    """The Manifest under the pointer, or focused, keeps its services and wires; all others fade, and come back."""
    tab.see("/console/topology")
    name, services = (
        ("library", ["memorygate"]) if world.name == "small" else ("support-agents", MANIFESTS["support-agents"])
    )
    picture = tab.page.locator("svg.topology")
    box = picture.locator(".node", has=tab.page.get_by_text(name, exact=True))
    group = [name, *services]
    box.locator("rect").hover()
    expect(picture.locator(".wire.lit")).to_have_count(len(services))
    assert sorted(_names(picture.locator(".node.lit"))) == sorted(group)
    tab.page.mouse.move(1, 1)
    expect(picture.locator(".lit")).to_have_count(0)
    box.get_by_role("link").first.focus()
    expect(picture.locator(".wire.lit")).to_have_count(len(services))
    tab.page.locator("#main").focus()
    expect(picture.locator(".lit")).to_have_count(0)
    if world.name == "large":
        picture.locator(".node", has=tab.page.get_by_text("payments", exact=True)).locator("rect").hover()
        assert sorted(_names(picture.locator(".node.lit"))) == ["billing", "checkout", "payments"]
        expect(picture.locator(".node", has=tab.page.get_by_text("warehouse", exact=True))).to_have_css(
            "opacity", "0.22"
        )
        assert tab.accessible() == []


def _names(nodes: Locator) -> list[str]:
    """The heading of each box."""
    return [
        str(text) for text in nodes.evaluate_all("nodes => nodes.map(node => node.querySelector('text').textContent)")
    ]


def test_health_is_told_by_shape_too(world: SizedWorld, tab: BrowserTab) -> None:
    """In the picture and beside each word: without colours one state is still not another."""
    tab.see("/console/topology")
    marks = tab.page.locator("svg.topology a.mark")
    shapes = marks.evaluate_all(
        "marks => marks.map(mark => [mark.classList[1], mark.querySelector('path').getAttribute('d'), "
        "getComputedStyle(mark.querySelector('path')).fill === 'none'])"
    )
    by_state: dict[str, set[tuple[str, bool]]] = {}
    for state, path, hollow in shapes:
        by_state.setdefault(state, set()).add((path, hollow))
    assert all(len(drawn) == 1 for drawn in by_state.values())
    assert len({next(iter(drawn)) for drawn in by_state.values()}) == len(by_state)
    expected = {"small": {"ready", "silent"}, "large": {"ready", "silent", "failed", "overdue", "incomplete"}}
    assert expected[world.name] <= by_state.keys()
    assert len(shapes) == {"small": 2, "large": 197}[world.name], "one for each principal that has a Binding"


def test_the_keyboard_goes_from_box_to_box(world: SizedWorld, tab: BrowserTab) -> None:
    """A stop for each Manifest and service, none for each of 200 marks: the table below has the principals."""
    tab.see("/console/topology")
    stops = tab.page.locator("svg.topology a:not([tabindex='-1'])")
    expect(stops).to_have_count({"small": 2, "large": 24}[world.name])
    stops.first.focus()
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**/console/topology?manifest=*")
    expect(tab.page.get_by_text("Clear")).to_be_visible()


def test_services_are_seen_on_a_phone(world: SizedWorld, tab: BrowserTab) -> None:
    """Where the picture has no room, each Manifest is a card with its health and services, none of it cut off."""
    tab.see("/console/topology", size="narrow")
    expect(tab.page.locator("svg.topology")).to_be_hidden()
    name, services = ("library", ["memorygate"]) if world.name == "small" else ("billing", MANIFESTS["billing"])
    card = tab.page.get_by_role("listitem").filter(has=tab.page.get_by_role("heading", name=name, exact=True))
    for service in services:
        link = card.get_by_role("link", name=service, exact=True)
        expect(link).to_be_visible()
        box = link.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= SIZES["narrow"][0]
    if world.name == "large":
        expect(tab.page.locator(".cards h3").first).to_have_text("billing")
        card.get_by_role("link", name="12 failed").click()
        expect(tab.page.locator("#people ~ .scroll tbody tr")).to_have_count(12)


def test_an_error_is_read_on_a_phone(world: SizedWorld, tab: BrowserTab) -> None:
    """What is not up says why within the width of the window, without scrolling sideways."""
    if world.name == "small":
        tab.see("/console", size="narrow")
        expect(tab.page.get_by_text("Nobody: nothing failed")).to_be_visible()
        return
    for path in ("/console", "/console/startups?status=FAILED"):
        tab.see(path, size="narrow")
        error = tab.page.locator("td.words .value").first
        expect(error).to_have_text("payments:8000: connection refused")
        box = error.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= SIZES["narrow"][0]
        assert box["height"] < 60


def test_a_failed_startup_leads_on(world: SizedWorld, tab: BrowserTab) -> None:
    """From one failure to all of its kind, to the runbook, and back to what differed."""
    if world.name == "small":
        tab.see("/console/startups?status=FAILED")
        expect(tab.page.get_by_text("There are none.")).to_be_visible()
        return
    tab.see(f"/console/startups/{world.scene.failed}")
    expect(tab.page.get_by_role("region", name="What differs of the session")).to_contain_text("connection refused")
    expect(tab.page.get_by_text("The packet is the same, to the byte.")).to_be_visible()
    tab.page.get_by_role("link", name="15 others with the same error").click()
    expect(tab.page.locator("tbody tr")).to_have_count(16)
    tab.page.go_back()
    tab.page.get_by_role("link", name="a startup failed").click()
    tab.page.wait_for_url("**/console/runbook#failed")
    expect(tab.page.get_by_role("heading", name="A startup failed")).to_be_in_viewport()
