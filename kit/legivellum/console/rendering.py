"""From a page's values to HTML. Every expression of a template is made visible and then escaped, each once.

What goes into an attribute that the browser sends back or follows (an address, a field's value) is never cut nor spelt
otherwise, or it would be another one: addresses come from `link`, everything else goes through the filter `whole`.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from legivellum.console.definition import ConsoleDefinition
from legivellum.console.request_parsing import link
from legivellum.console.text import ago, character_references, stamp, value, visible

STATIC: Final[Mapping[str, str]] = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class TemplateRenderer:
    """Renders the templates of a gate's console. They are loaded once, and shared by every request."""

    def __init__(self, definition: ConsoleDefinition) -> None:
        self._environment = Environment(
            # the gate's own first: it may put another template in place of one of the frame's
            loader=ChoiceLoader([PackageLoader(definition.package), PackageLoader("legivellum.console")]),
            autoescape=True,
            finalize=_finalised,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters |= {"ago": ago, "stamp": stamp, "json": _json, "cut": _cut, "whole": _whole}
        self._environment.globals |= {
            "link": _link,
            "asset": _asset,
            "console": definition,
            **definition.template_globals,
        }

    def render(self, template: str, values: Mapping[str, Any]) -> bytes:
        return self._environment.get_template(template).render(values).encode()


@cache
def static(name: str) -> bytes:
    return (files(__package__) / "static" / name).read_bytes()


@cache
def version(name: str) -> str:
    """Of a static file: another one when its content is another."""
    return hashlib.sha256(static(name)).hexdigest()[:12]


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
    # A dash instead of the word None, which readers take for a value that somebody declared.
    return "–" if item is None else item
