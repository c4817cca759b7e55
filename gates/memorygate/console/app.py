"""The ledger's console: its pages in the kit's frame, mounted in front of the gate's edge."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from legivellum.console import page as frame
from legivellum.console.app import Console
from legivellum.console.definition import ConsoleDefinition
from legivellum.console.mounting import console_in_front
from legivellum.console.page import NavigationItem, PageRoute
from legivellum.http.edge import Edge
from memorygate import metrics
from memorygate.console import pages, story_diagram, story_page
from memorygate.console.page import PageFunction, page_request
from memorygate.ledger_gate import LedgerProcess

_PAGES: Final[dict[tuple[str, int], tuple[str, PageFunction]]] = {
    ("", 0): ("/console", pages.overview),
    ("tasks", 0): ("/console/tasks", pages.tasks),
    ("tasks", 1): ("/console/tasks/{task_id}", story_page.story),
    ("inbox", 0): ("/console/inbox", pages.inbox),
    ("admissions", 0): ("/console/admissions", pages.admissions),
    ("verify", 0): ("/console/verify", pages.verify),
    ("search", 0): ("/console/search", pages.search),
}
_NAVIGATION: Final = (
    NavigationItem("", "Overview"),
    NavigationItem("tasks", "Stories"),
    NavigationItem("inbox", "Inbox"),
    NavigationItem("admissions", "Admissions"),
    NavigationItem("verify", "Verify"),
)


def ledger_console(process: LedgerProcess, edge: Edge) -> Console:
    """The application with the console in front of `edge`."""

    async def tenant_state(tenant: UUID | None) -> object:
        """What the live pages show; the frame names a tenant, because this console never shows several."""
        assert tenant is not None
        database = process.database
        return await database.summary(tenant), await database.last_verification(tenant)

    return console_in_front(
        edge,
        process,
        _definition(process),
        tenant_state=tenant_state,
        stream_count=metrics.CONSOLE_STREAMS.inc,
    )


def _definition(process: LedgerProcess) -> ConsoleDefinition:
    return ConsoleDefinition(
        gate="memorygate",
        title="MemoryGate",
        footer="MemoryGate remembers. It does not decide. This console shows and changes nothing.",
        package="memorygate.console",
        navigation=_NAVIGATION,
        pages={place: PageRoute(label, _drawn(process, draw)) for place, (label, draw) in _PAGES.items()},
        search_label="Task or receipt id",
        viewer_types=(),
        across_tenants=False,
        template_globals={"diagrams": story_diagram},
    )


def _drawn(process: LedgerProcess, draw: PageFunction) -> frame.PageHandler:
    async def drawn(request: frame.ConsoleRequest) -> frame.Page | frame.Redirect:
        namespaces = process.directory.namespaces
        return await draw(
            page_request(
                request.viewer,
                request.query,
                request.name,
                request.tenant,
                ledger=process.database,
                namespaces=namespaces,
            )
        )

    return drawn
