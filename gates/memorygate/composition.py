"""One serving process, put together from settings: identity, followers, application."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from legivellum.gate.identity_poller import IdentityReplica
from legivellum.http import tracing
from legivellum.identity.auth_failure_throttle import AuthFailureThrottle
from legivellum.identity.authenticator import Authenticator
from legivellum.identity.keyring import KeyRing
from legivellum.identity.replica import IdentityDatabase, ReplicatedDirectory
from legivellum.identity.tokens import TokenVerifier
from memorygate.app import Application, create_app
from memorygate.following import following
from memorygate.gate import Gate
from memorygate.ledger import Ledger
from memorygate.schema import needed
from memorygate.settings import Settings
from memorygate.signatures import Signers


def compose(settings: Settings) -> Application:
    """An application that connects by itself when it starts to serve. Raises SignersUnreadable, UnusableAddress."""
    ledger_dsn, identity_dsn = settings.dsn, settings.identity_dsn
    spans = tracing.traces("memorygate", settings)
    signers = Signers.none() if settings.signers_file is None else Signers.from_file(Path(settings.signers_file))
    directory = ReplicatedDirectory(stale_seconds=settings.identity_stale_seconds, clock=time.monotonic)
    authenticator = Authenticator(
        keys=KeyRing(),
        tokens=TokenVerifier(audiences=(settings.audience,)),
        directory=directory,
        api_key_header=settings.api_key_header,
        throttle=AuthFailureThrottle(),
    )

    async def ledger() -> Ledger:
        return await Ledger.connect(ledger_dsn, size=settings.pool_size, query_timeout=settings.deadline_seconds * 0.8)

    async def identity() -> IdentityDatabase:
        return await IdentityDatabase.connect(identity_dsn, application_name="memorygate identity")

    @asynccontextmanager
    async def lifespan(gate: Gate) -> AsyncIterator[None]:
        replica = IdentityReplica(authenticator, directory, identity)
        async with following(gate, ledger, replica, needed=needed()), spans.sending() if spans else nullcontext():
            yield

    return create_app(
        Gate(settings, signers, is_principal=directory.has_principal), authenticator, lifespan=lifespan, traces=spans
    )
