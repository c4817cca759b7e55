"""A browser without a screen: cookies, forms, and what a page says."""

import re
from html import unescape
from html.parser import HTMLParser
from typing import Self

import httpx

SESSION = "metagate_console"
FORM = "metagate_console_form"


class Text(HTMLParser):
    """What a page says to somebody who reads it, and which elements and attributes it is made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_text(answer: httpx.Response) -> str:
    return Text(answer.text).text


def hidden(answer: httpx.Response, name: str) -> str:
    """The value of a hidden field."""
    match = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)"', answer.text)
    assert match is not None, answer.text
    return unescape(match[1])


class Visitor:
    def __init__(self, url: str) -> None:
        self.client = httpx.AsyncClient(base_url=url, timeout=10, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def see(self, path: str = "/console", **params: str) -> httpx.Response:
        return await self.client.get(path, params=params or None)

    async def sign_in(self, credential: str, **more: str) -> httpx.Response:
        """What the form answers; the cookies stay."""
        page = await self.see("/console/sign-in")
        form = {"token": hidden(page, "token"), "next": "/console", "credential": credential, **more}
        return await self.client.post("/console/sign-in", data=form)

    async def inside(self, credential: str) -> Self:
        answer = await self.sign_in(credential)
        assert answer.status_code == 303, page_text(answer)
        return self

    async def page(self, path: str = "/console", **params: str) -> str:
        """What a page says to somebody who may see it."""
        answer = await self.see(path, **params)
        assert answer.status_code == 200, (answer.status_code, page_text(answer))
        return page_text(answer)
