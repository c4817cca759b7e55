"""The console in Debian's Chromium: `make test-browser`. Without METAGATE_BROWSER=1 nothing here is collected."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Playwright, sync_playwright
from tests.browser.looking import Browser, BrowserTab
from tests.browser.scene import Scene, played

ENVIRONMENT = os.environ  # noqa: TID251 - whether this suite runs
PICTURES = Path("build/console")

if ENVIRONMENT.get("METAGATE_BROWSER") != "1":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A `metagate dev` in which things have happened for an hour."""
    with played(tmp_path_factory.mktemp("scene")) as made:
        yield made


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as made:
        yield made


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory, playwright: Playwright, scene: Scene) -> Iterator[Browser]:
    """One Chromium with a profile of its own, signed in as an admin."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with Browser.another(playwright, tmp_path_factory.mktemp("profile"), scene.url, PICTURES) as made:
        made.sign_in(scene.admin)
        yield made


@pytest.fixture
def tab(browser: Browser) -> Iterator[BrowserTab]:
    """A new tab. Whatever the policy blocked, a script threw or another host was asked for fails the test."""
    with browser.tab() as made:
        yield made
