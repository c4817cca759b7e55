"""From a page's values to HTML. Every expression of a template is made visible and then escaped; nothing opts out."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from metagate_console import drawing
from metagate_console.asking import link
from metagate_console.text import ago, stamp, value, visible

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
    environment.filters |= {"ago": ago, "stamp": stamp, "json": value, "cut": visible}
    environment.globals |= {"link": link, "asset": _asset, "drawing": drawing}
    return environment


@cache
def _asset(name: str) -> str:
    """The address of a static file; another one when its content is another."""
    return link("static", name, v=hashlib.sha256(static(name)).hexdigest()[:12])


def _finalised(found: Any) -> Any:
    if isinstance(found, str) and not hasattr(found, "__html__"):  # what has it was escaped by a template
        return visible(found)
    return "–" if found is None else found
