"""What DeleGate's handlers share: the process, the tenants' credentials, the other gates, the templates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from delegate import metrics
from delegate.gate_clients import GateClients
from delegate.plan_templates import TemplateDatabase, TemplateReplica
from delegate.problem_codes import Code
from delegate.settings import Settings
from legivellum.gate.process import IdentityProcess
from legivellum.identity.caller import Caller
from legivellum.identity.tenant_credentials import ServedTenant, TenantCredentials

DeleGateProcess = IdentityProcess[Settings]


@dataclass(frozen=True, slots=True)
class TenantPrincipals:
    """The names of a tenant's Principals, as far as MetaGate published them."""

    process: DeleGateProcess
    tenant: UUID

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.process.is_principal(self.tenant, name)


@dataclass(frozen=True, slots=True)
class DeleGate:
    """One per process."""

    process: DeleGateProcess
    credentials: TenantCredentials
    clients: GateClients
    templates: TemplateReplica

    @classmethod
    def of(cls, process: DeleGateProcess) -> DeleGate:
        """Raises OSError, UnusableSettingError for a file of certificates that cannot be used."""
        settings = process.settings

        async def connect() -> TemplateDatabase:
            return await TemplateDatabase.connect(settings.identity_dsn, size=1, query_timeout=5.0)

        directory = None if settings.credentials is None else Path(settings.credentials)
        gate = cls(
            process,
            TenantCredentials(
                directory,
                process.introspect,
                principal_type="delegate",
                not_served=Code.TENANT_NOT_SERVED,
                gate=process.name,
                api_key_header=settings.api_key_header,
            ),
            GateClients(settings),
            TemplateReplica(connect, stale_seconds=settings.identity_stale_seconds),
        )
        process.status.followed = False
        process.beside.append(gate.running)
        return gate

    @property
    def settings(self) -> Settings:
        return self.process.settings

    def principals(self, tenant: UUID) -> TenantPrincipals:
        return TenantPrincipals(self.process, tenant)

    async def served(self, caller: Caller, tenant: UUID) -> ServedTenant:
        """The tenant that is asked about, by the credential that reads there. Raises TENANT_NOT_SERVED."""
        if tenant == caller.tenant:
            return await self.credentials.of(caller.namespace)
        return await self.credentials.by_uid(tenant)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the templates while the block runs."""
        status = self.process.status

        def on_look(succeeded: bool) -> None:
            metrics.TEMPLATE_AGE.set(-1 if self.templates.age is None else self.templates.age)
            metrics.TENANTS.set(len(self.credentials.namespaces()))
            status.followed = succeeded
            status.settle()

        try:
            async with self.templates.following(seconds=self.settings.identity_poll_ms / 1_000, on_look=on_look):
                yield
        finally:
            await self.clients.close()
