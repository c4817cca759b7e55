"""One serving process, put together from settings: identity, follower, application."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from legivellum.base.settings import UnusableSettingError
from legivellum.http import tracing
from legivellum.http.batching import Batcher, BatchLimits
from legivellum.identity.auth_failure_throttle import AuthFailureThrottle
from legivellum.identity.authenticator import Authenticator
from legivellum.identity.keyring import KeyRing
from legivellum.identity.packet_signing import PacketSigner
from legivellum.identity.shared_secret import SharedSecret
from legivellum.identity.tokens import TokenVerifier
from legivellum.postgres.published_identity import KnownPrincipal
from metagate_api.app import Application, create_app
from metagate_api.callers import SubjectDirectory
from metagate_api.declared_files import DeclaredFiles
from metagate_api.gate import Gate
from metagate_api.published_state import DatabaseSnapshot, following
from metagate_api.settings import Settings
from metagate_store.migrating import needed_version
from metagate_store.reader import Reader
from metagate_store.rows import CredentialRow


def shared_secret(settings: Settings) -> SharedSecret | None:
    """D-37: HS256 as the seeds have it, or None while JWT_SECRET is unset."""
    if settings.jwt_secret is None:
        return None
    return SharedSecret(
        issuer=settings.jwt_issuer,
        secret=settings.jwt_secret.get_secret_value().encode(),
        algorithm=settings.jwt_algorithm,
        audience=settings.jwt_audience,
    )


def compose(settings: Settings, *, declared: DeclaredFiles | None = None) -> Application:
    """An application that connects by itself when it starts to serve.

    Raises UnusableSettingError and UnusableAddress; OSError for a file that cannot be read.
    """
    try:
        return _composed(settings, declared)
    except ValueError as error:
        raise UnusableSettingError(str(error)) from error


def _composed(settings: Settings, declared: DeclaredFiles | None) -> Application:
    shared = shared_secret(settings)
    spans = tracing.span_recorder("metagate", settings)
    keys, tokens = KeyRing(), TokenVerifier(audiences=(settings.audience,), shared=shared)
    dsn = settings.dsn
    # The authenticator asks the application's reader, and the application needs the authenticator: it is filled in
    # last.
    pending: list[Application] = []

    async def resolve(credentials: Sequence[CredentialRow]) -> list[KnownPrincipal | None]:
        return await pending[0].gate.reader.resolve(credentials)

    directory = SubjectDirectory(
        Batcher(resolve, name="resolve", limits=BatchLimits(queue=settings.queue)), seconds=settings.deadline_seconds
    )
    authenticator = Authenticator(
        keys=keys,
        tokens=tokens,
        directory=directory,
        api_key_header=settings.api_key_header,
        throttle=AuthFailureThrottle(),
    )

    async def connect() -> Reader:
        return await Reader.connect(dsn, size=settings.pool_size, prepared=settings.prepared_statements)

    @asynccontextmanager
    async def lifespan(gate: Gate) -> AsyncIterator[None]:
        state = DatabaseSnapshot(gate, authenticator, directory, connect, needed=needed_version())
        async with following(state, gate), spans.sending() if spans else nullcontext():
            yield

    def issuers() -> list[str]:
        return [*([settings.jwt_issuer] if shared else []), *tokens.ring.issuers]

    key = settings.signing_key_file
    signer = None if key is None else PacketSigner(Path(key).read_bytes())
    application = create_app(
        settings,
        None,
        authenticator,
        issuers=issuers,
        declared=declared,
        signer=signer,
        lifespan=lifespan,
        traces=spans,
    )
    pending.append(application)
    return application
