"""What a gate gives the frame: its name, its navigation and pages, and what the frame asks of the process."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from legivellum.console.page import NavigationItem, PageRoute
from legivellum.console.sessions import Session
from legivellum.http.edge import Observer
from legivellum.http.exchange import Exchange
from legivellum.http.problems import Problem, RequestRefused
from legivellum.identity.caller import READER_TYPES, Caller, Identity, VerificationContext

Authenticate = Callable[[Exchange], Awaitable[Caller | RequestRefused]]
"""The caller of an exchange by its headers, as the gate's own endpoints find it (401, 429 and 503 are raised, 403 is
returned).
"""

IsCurrent = Callable[[str, str | None, VerificationContext | None], bool]
"""Whether this gate would still accept a credential of this issuer ("" for a key) and key id, verified like this."""


@dataclass(frozen=True, slots=True)
class ConsoleDefinition:
    """The gate's own part of the frame.

    Templates are looked for in `package` first and then here: a gate's pages extend `base.html`.
    """

    gate: str
    """Lower case; it names the cookies, so that two gates behind one host do not take each other's."""
    title: str
    footer: str
    package: str
    """The package that has the folder `templates`."""
    navigation: tuple[NavigationItem, ...]
    pages: Mapping[tuple[str, int], PageRoute]
    """By the first part of the path and how many parts follow."""
    search_label: str | None = None
    """What the search field takes; the page `search` answers it. None: there is no search."""
    viewer_types: tuple[str, ...] = tuple(sorted(READER_TYPES))
    """Types of principals that may look; empty: any."""
    across_tenants: bool = True
    """Whether a cluster-wide viewer who names no tenant is shown all of them; else the viewer's own."""
    template_globals: Mapping[str, Any] = field(default_factory=dict)

    def admits(self, principal_type: str) -> bool:
        return not self.viewer_types or principal_type in self.viewer_types


@dataclass(frozen=True, slots=True)
class ConsolePorts:
    """What the frame asks of the process that mounts it."""

    authenticate: Authenticate
    is_current: IsCurrent
    resolve: Callable[[Session], Awaitable[Identity | None]]
    """The principal of a session's credential as of now. Raises what the gate's storage raises."""
    tenant_state: Callable[[UUID | None], Awaitable[object]]
    """Whatever the live pages of a tenant (None: of all) show, as a value with a stable `repr`."""
    snapshot: Callable[[], object]
    """Another value whenever a credential was published or withdrawn."""
    problem: Callable[[Exception, Exchange | None], Problem]
    observe: Observer
    stream_count: Callable[[int], None]
    """Is called with 1 for each stream that begins and with -1 for each that ends."""
    unanswered: tuple[type[Exception], ...]
    """The errors that say that nobody knows for now: a live stream outlasts them."""
    api_key_header: str
    secret: bytes
    """Signs cookies; the same in every process that may be asked with them."""
    seconds: float
    """Within which a page is answered."""
    lifetime: int
    """Seconds of a session."""
    at_once: int
    """Connections of the gate's pool that the pages may have together."""
    secure: bool
    """People reach the console over https only."""
    public_url: str
    """Where they reach it; "" when that is not known."""
