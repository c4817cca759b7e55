"""From a page's values to HTML. Every expression of a template is made visible and then escaped, each once.

What goes into an attribute that the browser sends back or follows (an address, a field's value) is never cut nor spelt
otherwise, or it would be another one: addresses come from `link`, everything else goes through the filter `whole`.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from metagate_console import charts
from metagate_console.request_parsing import link
from metagate_console.text import ago, character_references, stamp, value, visible

STATIC: Final[Mapping[str, str]] = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def rendered(template: str, values: Mapping[str, Any]) -> bytes:
    return _environment().get_template(template).render(values).encode()


@cache
def static(name: str) -> bytes:
    return (files(__package__) / "static" / name).read_bytes()


@cache
def version(name: str) -> str:
    """Of a static file: another one when its content is another."""
    return hashlib.sha256(static(name)).hexdigest()[:12]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("metagate_console"),
        autoescape=True,
        finalize=_finalised,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"ago": ago, "stamp": stamp, "json": _json, "cut": _cut, "whole": _whole}
    environment.globals |= {"link": _link, "asset": _asset, "charts": charts}
    return environment


def _asset(name: str) -> Markup:
    return _link("static", name, v=version(name))


def _link(*parts: object, **query: object) -> Markup:
    return escape(link(*parts, **query))


def _cut(text: str, longest: int) -> Markup:
    return escape(visible(text, longest))


def _json(item: Any) -> Markup:
    return escape(value(item))


def _whole(text: str) -> Markup:
    return Markup(character_references(escape(text)))  # noqa: S704 - it is escaped


def _finalised(item: Any) -> Any:
    if isinstance(item, str) and not hasattr(item, "__html__"):  # else it is HTML: a macro's or a filter's
        return visible(item)
    return "–" if item is None else item
