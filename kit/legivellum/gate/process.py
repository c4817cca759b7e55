"""What the handlers of one process of a gate share: its settings, databases, identity and streams, and the pollers that
keep them up to date.

    ServedProcess         answers requests, and runs what stands beside them
      IdentityProcess     … and knows its callers, from MetaGate's database
        GateProcess       … and has a database of its own, and streams
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, Generic, Protocol, TypeVar
from uuid import UUID

from legivellum.base.token_bucket import TokenBuckets
from legivellum.gate.event_stream import EventStreams
from legivellum.gate.identity_poller import IdentityReplica
from legivellum.gate.metrics import GateMetrics, IdentityMetrics, ServedMetrics
from legivellum.gate.settings import DatabaseGateSettings, IdentityGateSettings, ServedGateSettings
from legivellum.gate.snapshot_poller import (
    DatabaseStatus,
    SnapshotPoller,
    close_quietly,
    polling,
    read_connected,
    require_version,
)
from legivellum.http.edge import Edge
from legivellum.http.exchange import App
from legivellum.identity.auth_failure_throttle import AuthFailureThrottle
from legivellum.identity.authenticator import Authenticator
from legivellum.identity.caller import AuthFailure, Caller
from legivellum.identity.keyring import KeyRing
from legivellum.identity.replica import IdentityDatabase, ReplicatedDirectory
from legivellum.identity.request_authenticator import Authenticate, RequestAuthenticator
from legivellum.identity.tokens import TokenVerifier
from legivellum.postgres.errors import SchemaMismatch, Unavailable

_FIRST_LOOK_SECONDS: Final = 3.0
_DATABASE_POLL_SECONDS: Final = 1.0


class GateDatabase(Protocol):
    """A gate's own database: a pool, and one method for each statement."""

    async def schema_version(self) -> int: ...
    async def close(self) -> None: ...


ServedSettingsT = TypeVar("ServedSettingsT", bound=ServedGateSettings)
IdentitySettingsT = TypeVar("IdentitySettingsT", bound=IdentityGateSettings)
SettingsT = TypeVar("SettingsT", bound=DatabaseGateSettings)
DatabaseT = TypeVar("DatabaseT", bound=GateDatabase)
Settings_contra = TypeVar("Settings_contra", contravariant=True)
Database_co = TypeVar("Database_co", covariant=True)


class ProcessDefinition(Protocol[Settings_contra, Database_co]):
    """What a process with a database needs of its gate's definition (`GateDefinition`)."""

    @property
    def name(self) -> str: ...
    @property
    def metrics(self) -> GateMetrics: ...
    @property
    def database_event(self) -> str: ...
    @property
    def needed_version(self) -> int: ...
    @property
    def connect(self) -> Callable[[Settings_contra], Awaitable[Database_co]]: ...


class ServedProcess(Generic[ServedSettingsT]):
    """A process that answers requests and needs no database for it: ready from its first moment, unless what stands
    beside its requests says otherwise (`status.followed`).
    """

    def __init__(self, name: str, metrics: ServedMetrics, settings: ServedSettingsT) -> None:
        self.name = name
        self.settings = settings
        self.metrics = metrics
        self.status = DatabaseStatus(present=False, up=True, identity=True)

        self.beside: list[Callable[[], AbstractAsyncContextManager[None]]] = []
        """What runs beside the requests, where a gate has more to do than answer: entered before the process serves,
        left before its databases are closed. A gate appends to it while it makes its handlers."""
        self.in_front: list[Callable[[Edge], App]] = []
        """What answers some requests itself and hands all others to the edge: for protocols whose answers last longer
        than a deadline. A gate appends to it while it makes its handlers."""

    @property
    def api_key_header(self) -> str | None:
        """Name of the header that carries an API key; None where nobody sends credentials."""
        return None

    def check_addresses(self) -> None:
        """Raises UnusableAddress for the malformed address of a database: before anything is served."""

    def readiness(self) -> Mapping[str, object]:
        """What `/readyz` answers beside its status, once the process is ready."""
        return {}

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow what the process follows, and run what stands beside the requests, while the block runs."""
        async with AsyncExitStack() as stack:
            self.status.settle()
            for enter in self.beside:
                await stack.enter_async_context(enter())
            yield


class IdentityProcess(ServedProcess[IdentitySettingsT]):
    """A process that knows its callers: principals and their credentials as MetaGate publishes them."""

    def __init__(
        self,
        name: str,
        metrics: IdentityMetrics,
        settings: IdentitySettingsT,
        *,
        authenticator: Authenticate | None = None,
        is_principal: Callable[[UUID, str], bool] | None = None,
    ) -> None:
        super().__init__(name, metrics, settings)
        self.metrics: IdentityMetrics = metrics
        self.status = DatabaseStatus(present=False, up=True)
        self.directory = ReplicatedDirectory(stale_seconds=settings.identity_stale_seconds, clock=time.monotonic)
        self.is_principal = is_principal or self.directory.has_principal
        """Whether a tenant has a principal of this name, as far as is known."""
        self.keys = KeyRing()
        # This gate's audience and no other: a token that was made for another gate opens nothing here (D-44).
        self.credentials = Authenticator(
            keys=self.keys,
            tokens=TokenVerifier(audiences=settings.audiences),
            directory=self.directory,
            api_key_header=settings.api_key_header,
            throttle=AuthFailureThrottle(),
        )
        self.authenticator = RequestAuthenticator(
            authenticator or self.credentials,
            TokenBuckets(settings.rate_per_second, settings.rate_burst),
            refused=lambda reason: metrics.auth_failures.labels(reason.value).inc(),
            limited=metrics.rate_limited.inc,
            # 401 would make a good caller give up while nobody knows yet who is good.
            informed=lambda: authenticator is not None or self.directory.age is not None,
        )

    @property
    def api_key_header(self) -> str | None:
        return self.settings.api_key_header

    def check_addresses(self) -> None:
        self.settings.identity_dsn  # noqa: B018 - it raises

    def readiness(self) -> Mapping[str, object]:
        return {"identity": "up" if self.status.identity else "down"}

    async def introspect(self, credential: bytes) -> Caller | AuthFailure:
        """Whose credential this is that the gate itself uses. Raises Unavailable until principals have been read:
        a refusal would be taken for a verdict.
        """
        answer = await self.credentials.introspect(credential)
        if isinstance(answer, AuthFailure) and self.directory.age is None:
            raise Unavailable("The principals are not known.")
        return answer

    def identity_poller(self, replica: IdentityReplica) -> SnapshotPoller:
        """Takes over keys, issuers and principals as they are published."""
        status, identity_age = self.status, self.metrics.identity_age

        def measure(*, reached: bool) -> None:
            status.identity = reached
            identity_age.set(-1 if replica.age is None else replica.age)

        async def look() -> Mapping[str, object]:
            facts = await replica.look()
            measure(reached=True)
            status.settle()
            return facts

        def on_lost(_error: Exception) -> None:
            measure(reached=False)

        return SnapshotPoller(
            "identity",
            look,
            logger=f"{self.name}.database",
            seconds=self.settings.identity_poll_ms / 1_000,
            on_lost=on_lost,
        )

    def pollers(self, replica: IdentityReplica) -> tuple[SnapshotPoller, ...]:
        """What is looked at while the process serves."""
        return (self.identity_poller(replica),)

    async def close(self) -> None:
        """What is left when nothing is served any more."""

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        identity_dsn, name = self.settings.identity_dsn, f"{self.name} identity"

        async def connect() -> IdentityDatabase:
            return await IdentityDatabase.connect(identity_dsn, application_name=name)

        replica = IdentityReplica(self.credentials, self.directory, connect)
        try:
            async with polling(*self.pollers(replica), first_look_seconds=_FIRST_LOOK_SECONDS), super().following():
                yield
        finally:
            await replica.close()
            await self.close()


class GateProcess(IdentityProcess[SettingsT], Generic[SettingsT, DatabaseT]):
    """A process with a database of its own. `connected` is None until the database was reached."""

    def __init__(
        self,
        definition: ProcessDefinition[SettingsT, DatabaseT],
        settings: SettingsT,
        *,
        authenticator: Authenticate | None = None,
        connected: DatabaseT | None = None,
        is_principal: Callable[[UUID, str], bool] | None = None,
    ) -> None:
        """A serving process makes the last three from its settings; tests give their own."""
        super().__init__(
            definition.name, definition.metrics, settings, authenticator=authenticator, is_principal=is_principal
        )
        self._definition = definition
        self.metrics: GateMetrics = definition.metrics
        self.status = DatabaseStatus()
        self.connected = connected
        self.streams = EventStreams(
            most=settings.streams, heartbeat_seconds=settings.heartbeat_seconds, opened=self.metrics.streams.inc
        )

    @property
    def database(self) -> DatabaseT:
        """Raises Unavailable while it was never reached."""
        if self.connected is None:
            raise Unavailable("The database was not reached yet.")
        return self.connected

    def check_addresses(self) -> None:
        self.settings.dsn  # noqa: B018 - it raises
        super().check_addresses()

    def database_poller(self) -> SnapshotPoller:
        """Connects to the gate's own database, and says whether it answers and fits."""
        status, definition = self.status, self._definition
        needed = definition.needed_version

        async def connect() -> DatabaseT:
            return await definition.connect(self.settings)

        async def read_version(database: DatabaseT) -> int:
            version = await database.schema_version()
            require_version(version, needed)
            return version

        async def look() -> Mapping[str, object]:
            status.schema_version = await read_connected(self, connect, read_version)
            status.up = status.fits = True
            status.settle()
            self.metrics.database_up.set(1)
            return {"schema_version": status.schema_version}

        def on_lost(error: Exception) -> None:
            status.up, status.fits = False, not isinstance(error, SchemaMismatch)
            self.metrics.database_up.set(0)

        return SnapshotPoller(
            definition.database_event,
            look,
            logger=f"{self.name}.database",
            seconds=_DATABASE_POLL_SECONDS,
            on_lost=on_lost,
        )

    def pollers(self, replica: IdentityReplica) -> tuple[SnapshotPoller, ...]:
        return self.database_poller(), *super().pollers(replica)

    async def close(self) -> None:
        await close_quietly(self.connected)
