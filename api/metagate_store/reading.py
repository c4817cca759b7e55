"""What the API asks the database. Role `metagate_api`: it may EXECUTE functions and touch no table."""

from collections.abc import Sequence
from typing import Self
from uuid import UUID

from metagate_store.rows import (
    BootstrapAnswer,
    BootstrapAsk,
    Credential,
    CredentialChanges,
    Cursor,
    Identity,
    Item,
    ItemPage,
    Kind,
    PacketAnswer,
    PacketAsk,
    PolicyProfile,
    ReportAnswer,
    ReportAsk,
    StartupPage,
    StartupRow,
    State,
    Topology,
)


class Reader:
    @classmethod
    async def connect(
        cls,
        dsn: str,
        *,
        size: int = 4,
        acquire_timeout: float = 0.3,
        query_timeout: float = 0.45,
        prepared: bool = True,
    ) -> Self:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def bootstrap(self, asks: Sequence[BootstrapAsk]) -> list[BootstrapAnswer]:
        raise NotImplementedError

    async def report(self, asks: Sequence[ReportAsk]) -> list[ReportAnswer]:
        raise NotImplementedError

    async def resolve(self, credentials: Sequence[Credential]) -> list[Identity | None]:
        """Whom each credential speaks for; None when it stands for nobody (any more). Suspension is a field."""
        raise NotImplementedError

    async def credentials(self, since: int = 0) -> CredentialChanges:
        raise NotImplementedError

    async def packet(self, ask: PacketAsk) -> PacketAnswer:
        raise NotImplementedError

    async def startup(self, tenant: UUID, startup_id: UUID) -> StartupRow | None:
        raise NotImplementedError

    async def startups(
        self,
        tenant: UUID | None,
        *,
        status: str | None = None,
        component_key: str | None = None,
        principal_key: str | None = None,
        after: Cursor | None = None,
        limit: int = 100,
    ) -> StartupPage:
        """Newest first. `status`: OPEN, READY, FAILED or overdue. `tenant` None: every tenant (D-51)."""
        raise NotImplementedError

    async def listing(
        self, kind: Kind, tenant: UUID | None, *, after: Cursor | None = None, limit: int = 100
    ) -> ItemPage:
        raise NotImplementedError

    async def item(self, kind: Kind, tenant: UUID, name: str) -> Item | None:
        raise NotImplementedError

    async def policy_profile(self, tenant: UUID, name: str) -> PolicyProfile | None:
        raise NotImplementedError

    async def topology(self, tenant: UUID) -> Topology:
        raise NotImplementedError

    async def state(self) -> State:
        raise NotImplementedError
