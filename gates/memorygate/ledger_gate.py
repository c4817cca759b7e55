"""What MemoryGate's handlers share: the process, and whose signatures are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from legivellum.gate.process import GateProcess
from legivellum.identity.request_authenticator import RequestAuthenticator
from legivellum.receipts.signers import Signers
from memorygate.ledger import MemoryGateDatabase
from memorygate.settings import Settings

LedgerProcess = GateProcess[Settings, MemoryGateDatabase]


@dataclass(frozen=True, slots=True)
class LedgerGate:
    process: LedgerProcess
    signers: Signers = field(default_factory=Signers.none)

    @property
    def settings(self) -> Settings:
        return self.process.settings

    @property
    def authenticator(self) -> RequestAuthenticator:
        return self.process.authenticator

    def is_principal(self, tenant: UUID, name: str) -> bool:
        """Whether the tenant has a principal of this name, as far as the process knows (D-71)."""
        return self.process.is_principal(tenant, name)

    @property
    def ledger(self) -> MemoryGateDatabase:
        """Raises Unavailable while the database was never reached."""
        return self.process.database
