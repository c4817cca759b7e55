"""What the routes share: one process's reader, door, packets and what it knows about the database."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Path, Request, Response
from pydantic import BeforeValidator

from legivellum.base.uuids import uuid_of
from legivellum.http.exchange import Exchange
from legivellum.http.problem_codes import Code
from legivellum.http.problems import JSON_TYPE, SECURITY_HEADERS, RequestRefused, refuse
from metagate_api.callers import (
    ApiAuthenticator,
    Caller,
    CallerAuthenticator,
    credential_row,
    principal_suspended,
    require_caller,
)
from metagate_api.declared_files import DeclaredFiles
from metagate_api.packet_cache import PacketCache
from metagate_api.packet_rendering import Signer
from metagate_api.rendering import rendered
from metagate_api.schemas import LONGEST_KEY
from metagate_api.settings import Settings
from metagate_store.errors import StoreUnavailable
from metagate_store.reader import Reader


def _canonical(text: object) -> UUID:
    found = uuid_of(text)
    if found is None:
        raise ValueError("a UUID has 36 characters")
    return found


Id = Annotated[UUID, BeforeValidator(_canonical)]
Key = Annotated[str, Path(min_length=1, max_length=LONGEST_KEY)]


@dataclass(slots=True)
class Seen:
    """What the database last said, and whether it still answers. Ready stays ready (D-52)."""

    ready: bool = False
    up: bool = False
    fits: bool = True
    revision: int = 0
    credential_mark: int = 0
    """Another number whenever a key, an issuer or a key of an issuer changed."""
    compiled_at: datetime | None = None
    schema_version: int | None = None


@dataclass(slots=True)
class Gate:
    settings: Settings
    authenticator: ApiAuthenticator
    door: CallerAuthenticator
    packet_cache: PacketCache
    issuers: Callable[[], Sequence[str]]
    declared: DeclaredFiles | None = None
    signer: Signer | None = None
    seen: Seen = field(default_factory=Seen)
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


async def speaker_of(request: Request) -> Caller | RequestRefused:
    """Dependency of routes with a body: who speaks; a 403 is kept until the body was judged (D-42)."""
    return await gate_of(request).door.authenticate(exchange_of(request))


async def standing(gate: Gate, speaker: Caller | RequestRefused) -> Caller:
    """The caller as the database knows it now: what is remembered of it must not outlive what it rests on (D-45).

    For answers whose own statement does not look again; boots, reports and packets do. Raises Refused: 401 when the
    credential stands for this principal no more, 403 while it is suspended.
    """
    caller = require_caller(speaker)
    (now,) = await gate.reader.resolve([credential_row(caller)])
    if now is None or (now.tenant, now.principal_key) != (caller.tenant, caller.principal_key):
        raise refuse(Code.CREDENTIAL_REVOKED, "What this credential rests on was withdrawn.")
    if now.suspended:
        raise principal_suspended()
    return replace(caller, type=now.type, scope=now.scope, rights=frozenset(now.rights))


async def admin(gate: Gate, speaker: Caller | RequestRefused) -> Caller:
    caller = await standing(gate, speaker)
    if caller.type != "admin":
        raise refuse(Code.ROLE_REQUIRED, "Only a principal of type admin may do this.")
    return caller


async def holder_of(request: Request) -> Caller:
    """Dependency of routes without a body whose own statement looks at the credential again."""
    return require_caller(await speaker_of(request))


async def caller_of(request: Request) -> Caller:
    """Dependency of routes without a body that need somebody."""
    return await standing(gate_of(request), await speaker_of(request))


async def admin_of(request: Request) -> Caller:
    return await admin(gate_of(request), await speaker_of(request))


def said(value: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer in JSON with the headers that every answer has."""
    return sent(rendered(value), status=status, headers=headers)


def sent(body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Like said, for what is JSON already."""
    response = Response(body, status_code=status, headers=headers)
    response.raw_headers[:0] = [(b"content-type", JSON_TYPE), *SECURITY_HEADERS]
    return response


def empty(status: int, headers: dict[str, str] | None = None) -> Response:
    response = Response(status_code=status, headers=headers)
    response.raw_headers.extend(SECURITY_HEADERS)
    return response
