"""MetaGate's console: its pages in the kit's frame."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from legivellum.console import page as frame
from legivellum.console.definition import ConsoleDefinition
from legivellum.console.page import NavigationItem, PageRoute
from legivellum.console.sessions import Session
from legivellum.postgres.published_identity import KnownPrincipal
from metagate_console import (
    charts,
    history_page,
    pages,
    principal_pages,
    startup_pages,
    topology_diagram,
    topology_page,
)
from metagate_console.page import ComparePackets, CompareSpecs, Explain, PageFunction, PageRequest
from metagate_store.reader import Reader
from metagate_store.rows import CredentialRow

_PAGES: Final[dict[tuple[str, int], tuple[str, PageFunction]]] = {
    ("", 0): ("/console", pages.overview),
    ("principals", 0): ("/console/principals", principal_pages.principals),
    ("principals", 1): ("/console/principals/{name}", principal_pages.principal),
    ("startups", 0): ("/console/startups", startup_pages.startups),
    ("startups", 1): ("/console/startups/{startup_id}", startup_pages.startup),
    ("topology", 0): ("/console/topology", topology_page.topology),
    ("history", 0): ("/console/history", history_page.history),
    ("runbook", 0): ("/console/runbook", pages.runbook),
    ("search", 0): ("/console/search", pages.search),
}
_NAVIGATION: Final = (
    NavigationItem("", "Overview"),
    NavigationItem("principals", "Principals"),
    NavigationItem("startups", "Startups"),
    NavigationItem("topology", "Topology"),
    NavigationItem("history", "History", admin_only=True),
)


@dataclass(frozen=True, slots=True)
class MetaGateConsole:
    """The pages, and what the frame asks of the database. `reader` raises what it raises while there is none."""

    reader: Callable[[], Reader]
    explain: Explain
    compare_packets: ComparePackets
    compare_specs: CompareSpecs
    ledger_console: str | None = None
    """Where people reach the ledger's console; linked to and never asked (INV-126)."""

    def definition(self) -> ConsoleDefinition:
        return ConsoleDefinition(
            gate="metagate",
            title="MetaGate",
            footer="MetaGate is truth, not control. This console shows and changes nothing.",
            package="metagate_console",
            navigation=self._navigation(),
            pages={place: PageRoute(label, self._drawn(draw)) for place, (label, draw) in _PAGES.items()},
            search_label="Name or startup id",
            template_globals={"charts": charts, "diagrams": topology_diagram, "ledger_story": self.ledger_story},
        )

    def _navigation(self) -> tuple[NavigationItem, ...]:
        if self.ledger_console is None:
            return _NAVIGATION
        return (*_NAVIGATION, NavigationItem("ledger", "Ledger", url=self.ledger_console))

    def ledger_story(self, startup_id: UUID) -> str | None:
        """The page of the ledger's console that tells a startup's story; None where no console of it is known."""
        return None if self.ledger_console is None else f"{self.ledger_console}/tasks/{startup_id}"

    async def resolve(self, session: Session) -> KnownPrincipal | None:
        """The principal of the session's credential, as the database says now."""
        shown = session.credential
        credential = CredentialRow(shown.kind, shown.issuer, shown.subject, shown.kid)
        (identity,) = await self.reader().resolve([credential])
        return identity

    async def tenant_state(self, tenant: UUID | None) -> object:
        """What the live pages show."""
        reader = self.reader()
        overview, state = await reader.overviews.overview(tenant), await reader.state()
        return (
            state.revision, overview.starting, overview.overdue, overview.latest, overview.troubles,
            # the time line moves by the minute, whether or not anything happens
            [(counts.opened, counts.ready, counts.failed) for counts in overview.tenants],
            int(overview.at.timestamp()) // 60,
        )  # fmt: skip

    def _drawn(self, draw: PageFunction) -> frame.PageHandler:
        async def drawn(request: frame.ConsoleRequest) -> frame.Page | frame.Redirect:
            return await draw(
                PageRequest(
                    viewer=request.viewer,
                    reader=self.reader(),
                    explain=self.explain,
                    compare_packets=self.compare_packets,
                    compare_specs=self.compare_specs,
                    query=request.query,
                    name=request.name,
                    tenant=request.tenant,
                )
            )

        return drawn
