"""What the routes share: one process's database, authenticator, packets and what it knows of the database."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from fastapi import Request

from legivellum.gate.snapshot_poller import DatabaseStatus
from legivellum.http.exchange import Exchange
from metagate_api.callers import (
    ApiAuthenticator,
    CallerAuthenticator,
)
from metagate_api.declared_files import DeclaredFiles
from metagate_api.packet_cache import PacketCache
from metagate_api.packet_rendering import Signer
from metagate_api.settings import Settings
from metagate_store.errors import StoreUnavailable
from metagate_store.reader import Reader


@dataclass(slots=True)
class SnapshotStatus(DatabaseStatus):
    """What polling found last: whether the database answers, and what is published in it."""

    revision: int = 0
    credential_mark: int = 0
    """Another number whenever a key, an issuer or a key of an issuer changed."""
    compiled_at: datetime | None = None


@dataclass(slots=True)
class Gate:
    settings: Settings
    authenticator: ApiAuthenticator
    caller_authenticator: CallerAuthenticator
    packet_cache: PacketCache
    issuers: Callable[[], Sequence[str]]
    declared: DeclaredFiles | None = None
    signer: Signer | None = None
    status: SnapshotStatus = field(default_factory=SnapshotStatus)
    connected: Reader | None = None

    @property
    def reader(self) -> Reader:
        """The database. Raises StoreUnavailable while it was never reached."""
        if self.connected is None:
            raise StoreUnavailable("The database was not reached yet.")
        return self.connected


def gate_of(request: Request) -> Gate:
    gate: Gate = request.app.state.gate
    return gate


def exchange_of(request: Request) -> Exchange:
    exchange: Exchange = request.scope["state"]["exchange"]
    return exchange
