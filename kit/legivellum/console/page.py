"""A page: what it is asked with, what it gives back, and where it stands in the console."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from legivellum.console.request_parsing import PageQuery
from legivellum.console.sessions import Viewer


@dataclass(frozen=True, slots=True)
class ConsoleRequest:
    """A request of somebody who may look. `name` is the part of the path that a page takes, "" where it takes none;
    `tenant` is what `?tenant=` says.
    """

    viewer: Viewer
    query: PageQuery
    name: str
    tenant: UUID | None


@dataclass(frozen=True, slots=True)
class Page:
    """A template and its values. `live`: it is worth fetching again when something changes."""

    template: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    live: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    """The page is at another address of the console."""

    address: str


PageHandler = Callable[[ConsoleRequest], Awaitable[Page | Redirect]]


@dataclass(frozen=True, slots=True)
class PageRoute:
    """`label`: the path with the place of a name in braces, as metrics and logs have it."""

    label: str
    draw: PageHandler


@dataclass(frozen=True, slots=True)
class NavigationItem:
    """A link that every page has. `path` is the first part below `/console`, "" for the first page."""

    path: str
    title: str
    admin_only: bool = False
    url: str | None = None
    """Of a link that leads out of this console: the whole address."""
