"""What a page of the ledger's is drawn from, and what its viewer may see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from legivellum.console.page import Page, Redirect
from legivellum.console.request_parsing import PageQuery
from legivellum.console.sessions import Viewer
from legivellum.identity.caller import may_read_others
from legivellum.identity.tenancy import authorized_tenant
from legivellum.receipts.rights import role_of
from memorygate.ledger import MemoryGateDatabase

ROWS: Final = 50
"""Rows of a list; the next page has the others."""


@dataclass(frozen=True, slots=True)
class LedgerPageRequest:
    """A request of somebody who may look. `name` is the part of the path that a page takes, "" where it takes none;
    `tenant` is whose ledger is shown: the viewer's own unless it reads every tenant and names another.
    """

    viewer: Viewer
    ledger: MemoryGateDatabase
    query: PageQuery
    name: str
    tenant: UUID
    namespaces: Mapping[UUID, str]
    """Names of the tenants that are known, for who reads all of them; empty for everybody else."""
    now: datetime

    @property
    def reads_tenant(self) -> bool:
        """Whether the viewer sees the whole tenant, not only what names it (INV-057)."""
        return may_read_others(role_of(self.viewer.type, self.viewer.rights))

    @property
    def limited_to(self) -> str | None:
        """The principal to which lists are limited; None: the whole tenant is shown."""
        return None if self.reads_tenant else self.viewer.principal_key

    @property
    def link_tenant(self) -> UUID | None:
        """The `tenant` of the page's links; None where they need not name it."""
        return None if self.tenant == self.viewer.tenant else self.tenant


PageFunction = Callable[[LedgerPageRequest], Awaitable[Page | Redirect]]


def page_request(
    viewer: Viewer,
    query: PageQuery,
    name: str,
    tenant: UUID | None,
    *,
    ledger: MemoryGateDatabase,
    namespaces: Callable[[], Mapping[UUID, str]],
) -> LedgerPageRequest:
    """Raises TENANT_MISMATCH."""
    return LedgerPageRequest(
        viewer=viewer,
        ledger=ledger,
        query=query,
        name=name,
        tenant=authorized_tenant(viewer, tenant),
        namespaces=namespaces() if viewer.everywhere else {},
        now=datetime.now(UTC),
    )
