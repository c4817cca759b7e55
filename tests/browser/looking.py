"""Chromium as somebody uses it, and everything that it complains about."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, FloatRect, Page, Playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SIZES = {"wide": (1440, 900), "tablet": (768, 1024), "narrow": (390, 844)}
SERIOUS = {"serious", "critical"}
VIOLATIONS = "addEventListener('securitypolicyviolation', e => console.error('POLICY ' + e.violatedDirective + ' ' + e.blockedURI))"

Scheme = Literal["light", "dark"]


@dataclass
class BrowserTab:
    """One tab. `complaints` is what must not have happened."""

    page: Page
    url: str
    pictures: Path
    complaints: list[str] = field(default_factory=list)

    def see(self, path: str, *, scheme: Scheme = "light", size: str = "wide") -> None:
        width, height = SIZES[size]
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(color_scheme=scheme)
        self.page.goto(f"{self.url}{path}", wait_until="load")

    def text(self) -> str:
        return str(self.page.inner_text("body"))

    def picture(self, name: str, *, whole: bool = True) -> None:
        self.page.screenshot(path=self.pictures / f"{name}.png", full_page=whole, animations="disabled")

    def picture_from_top(self, name: str, height: int) -> None:
        """As much of the page as `height` pixels show."""
        width, there = self.page.evaluate("[innerWidth, document.documentElement.scrollHeight]")
        clip: FloatRect = {"x": 0, "y": 0, "width": width, "height": min(height, there)}
        self.page.screenshot(path=self.pictures / f"{name}.png", full_page=True, clip=clip, animations="disabled")

    def accessible(self) -> list[str]:
        """Findings of axe that matter, by rule and element."""
        # axe would fetch the style sheets again, which a browser refuses to pages from the disk
        result: dict[str, Any] = Axe().run(self.page, options={"preload": not self.url.startswith("file:")}).response
        return [
            f"{violation['id']}: {node['html'][:160]}"
            for violation in result["violations"]
            if violation["impact"] in SERIOUS
            for node in violation["nodes"]
        ]

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def _watch(self) -> None:
        own = urlsplit(self.url).netloc

        def asked(address: str) -> None:
            if urlsplit(address).netloc != own and not address.startswith(("data:", "about:")):
                self.complaints.append(f"asked {address}")

        def told(kind: str, text: str) -> None:
            # a page that is refused is a page all the same
            if kind in {"error", "warning"} and not re.match(r"Failed to load resource: .* (403|404)", text):
                self.complaints.append(text)

        self.page.add_init_script(VIOLATIONS)
        self.page.on("console", lambda message: told(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("a dialog"), dialog.dismiss())[0])
        self.page.on("request", lambda request: asked(request.url))


@dataclass
class Browser:
    context: BrowserContext
    url: str
    pictures: Path
    playwright: Playwright

    @classmethod
    @contextmanager
    def another(cls, playwright: Playwright, profile: Path, url: str, pictures: Path, **options: Any) -> Iterator[Self]:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            headless=True,
            args=ARGUMENTS,
            timezone_id="UTC",
            locale="en-GB",
            **options,
        )
        try:
            context.set_default_timeout(15_000)
            yield cls(context, url, pictures, playwright)
        finally:
            context.close()

    @contextmanager
    def tab(self) -> Iterator[BrowserTab]:
        tab = BrowserTab(self.context.new_page(), self.url, self.pictures)
        tab._watch()
        try:
            yield tab
            assert tab.complaints == []
        finally:
            tab.page.close()

    def sign_in(self, key: str) -> None:
        with self.tab() as tab:
            tab.see("/console/sign-in")
            tab.page.fill("#credential", key)
            tab.page.click("main button")
            tab.page.wait_for_url(f"{self.url}/console")
