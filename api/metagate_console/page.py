"""What a visit is, and what a page gives back."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from metagate_console.ports import Explain
from metagate_console.request_parsing import PageQuery
from metagate_console.viewer import Viewer
from metagate_store.reader import Reader


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request of somebody who may look. `name` is the part of the path that a page takes, "" where it takes none;
    `tenant` is what `?tenant=` says.
    """

    viewer: Viewer
    reader: Reader
    explain: Explain
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


PageHandler = Callable[[PageRequest], Awaitable[Page | Redirect]]
