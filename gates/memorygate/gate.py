"""What the routes share: one process's database, settings, signers, and what it knows about both databases."""

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from legivellum.postgres.errors import Unavailable
from memorygate.ledger import Ledger
from memorygate.settings import Settings
from memorygate.signatures import Signers


@dataclass(slots=True)
class Seen:
    """What the databases last said. Ready stays ready (D-52)."""

    ready: bool = False
    up: bool = False
    fits: bool = True
    identity: bool = False
    schema_version: int | None = None


def _anybody(_tenant: UUID, _name: str) -> bool:
    """Without an identity of its own a gate judges no recipient; `composition` gives it one."""
    return True


@dataclass(slots=True)
class Gate:
    settings: Settings
    signers: Signers = field(default_factory=Signers.none)
    seen: Seen = field(default_factory=Seen)
    connected: Ledger | None = None
    is_principal: Callable[[UUID, str], bool] = _anybody
    """Whether a tenant has a principal of this name: asked of the identity that the process holds in memory."""

    @property
    def ledger(self) -> Ledger:
        """Raises Unavailable while the database was never reached."""
        if self.connected is None:
            raise Unavailable("The ledger's database was not reached yet.")
        return self.connected
