"""What handlers of FastAPI declare as parameters: the caller, and what several endpoints read from path and query."""

from dataclasses import replace
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Query, Request
from pydantic import BeforeValidator

from legivellum.base.uuids import parse_uuid
from legivellum.http.problem_codes import Code
from legivellum.http.problems import RequestRefused, refuse
from metagate_api.callers import Caller, credential_row, principal_suspended, require_caller
from metagate_api.gate import Gate, exchange_of, gate_of
from metagate_api.schemas import MAX_KEY_LENGTH


async def authenticate(request: Request) -> Caller | RequestRefused:
    """The caller of a request with a body; a 403 is returned, because the body is judged before it (D-42)."""
    return await gate_of(request).caller_authenticator.authenticate(exchange_of(request))


async def revalidated(gate: Gate, authentication: Caller | RequestRefused) -> Caller:
    """The caller as the database knows it now: what is remembered of it must not outlive what it rests on (D-45).

    For answers whose own statement does not look again; boots, reports and packets do. Raises RequestRefused: 401 when
    the credential stands for this principal no more, 403 while it is suspended.
    """
    caller = require_caller(authentication)
    (identity,) = await gate.reader.resolve([credential_row(caller)])
    if identity is None or (identity.tenant, identity.principal_key) != (caller.tenant, caller.principal_key):
        raise refuse(Code.CREDENTIAL_REVOKED, "What this credential rests on was withdrawn.")
    if identity.suspended:
        raise principal_suspended()
    return replace(caller, type=identity.type, scope=identity.scope, rights=frozenset(identity.rights))


async def require_admin(gate: Gate, authentication: Caller | RequestRefused) -> Caller:
    caller = await revalidated(gate, authentication)
    if caller.type != "admin":
        raise refuse(Code.ROLE_REQUIRED, "Only a principal of type admin may do this.")
    return caller


async def authenticated_only(request: Request) -> Caller:
    return require_caller(await authenticate(request))


async def current_caller(request: Request) -> Caller:
    return await revalidated(gate_of(request), await authenticate(request))


async def current_admin(request: Request) -> Caller:
    return await require_admin(gate_of(request), await authenticate(request))


def _parse_uuid(text: object) -> UUID:
    uuid = parse_uuid(text)
    if uuid is None:
        raise ValueError("a UUID has 36 characters")
    return uuid


Authentication = Annotated[Caller | RequestRefused, Depends(authenticate)]
"""For endpoints with a body, which is judged before the caller is."""
AuthenticatedCaller = Annotated[Caller, Depends(authenticated_only)]
"""For endpoints whose own statement looks at the credential again."""
CurrentCaller = Annotated[Caller, Depends(current_caller)]
"""For endpoints without a body that need somebody."""
CurrentAdmin = Annotated[Caller, Depends(current_admin)]

UuidParameter = Annotated[UUID, BeforeValidator(_parse_uuid)]
KeyParameter = Annotated[str, Path(min_length=1, max_length=MAX_KEY_LENGTH)]
PageLimit = Annotated[int, Query(ge=1, le=500)]
PageCursor = Annotated[str | None, Query(max_length=1_024)]
