"""What a page of MetaGate's is drawn from: the request, and the database's reader."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from legivellum.console.page import Page, Redirect
from legivellum.console.request_parsing import PageQuery
from legivellum.console.sessions import Viewer
from metagate_store.history import Boot
from metagate_store.reader import Reader


class Explain(Protocol):
    """Why a packet is as it is, as `metagate explain` gives it.

    Raises RequestRefused: BINDING_INCOMPLETE, NOT_REBUILT.
    """

    async def __call__(self, tenant: UUID, boot: Boot) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class ValueDifference:
    """One value that differs, by its JSON pointer; each side as JSON, None where there is no value."""

    path: str
    before: str | None
    after: str | None


ComparePackets = Callable[[bytes, bytes], Sequence[ValueDifference]]
CompareSpecs = Callable[[str, Any, Any], Sequence[ValueDifference]]
"""Kind, spec before and spec after (None: there is none); without material of API keys."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request of somebody who may look. `name` is the part of the path that a page takes, "" where it takes none;
    `tenant` is what `?tenant=` says.
    """

    viewer: Viewer
    reader: Reader
    explain: Explain
    compare_packets: ComparePackets
    compare_specs: CompareSpecs
    query: PageQuery
    name: str
    tenant: UUID | None


PageFunction = Callable[[PageRequest], Awaitable[Page | Redirect]]
