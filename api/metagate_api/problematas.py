"""The registry of Problematas: their gateways announce themselves, anybody of the tenant reads (INV-119).

Nothing depends on it: a gateway that is not announced, or that nobody hears of for a while, goes on answering.
"""

import re
from typing import Annotated, Any, Final

from fastapi import Path, Request, Response

from legivellum.http import strict_json
from legivellum.http.problems import refuse
from legivellum.identity.tenancy import authorized_tenant
from metagate_api import cursors
from metagate_api.gate import exchange_of, gate_of
from metagate_api.problem_codes import Code
from metagate_api.request_parameters import (
    Authentication,
    CurrentCaller,
    KeyParameter,
    PageCursor,
    PageLimit,
    UuidParameter,
    revalidated,
)
from metagate_api.responses import empty_response, json_response
from metagate_api.schemas import COMPONENT_PATTERN, GATEWAY_URL, HEALTH, MOST_ANNOUNCED
from metagate_crds.rules.secret_detection import looks_secret
from metagate_store.problematas import AnnouncedProblemata, Announcement, AnnouncementOutcome

InstanceParameter = Annotated[str, Path(min_length=1, max_length=253, pattern=COMPONENT_PATTERN)]

_URL: Final = re.compile(GATEWAY_URL)
_MEMBERS: Final = frozenset({"endpoint", "version", "capabilities", "health"})
_REFUSALS: Final = {
    AnnouncementOutcome.UNKNOWN: (Code.NOT_FOUND, "No such Problemata is served."),
    AnnouncementOutcome.NOT_PERMITTED: (
        Code.NOT_ITS_GATEWAY,
        "spec.gateway.principals of the Problemata does not name this principal.",
    ),
    AnnouncementOutcome.OTHER_VERSION: (
        Code.OTHER_VERSION,
        "The Problemata is served in another version, or this one lacks a capability that is announced.",
    ),
}


async def announce(
    request: Request, authentication: Authentication, problemata_id: KeyParameter, instance: InstanceParameter
) -> Response:
    exchange_of(request).require_json()
    body = strict_json.parse_object(await request.body())
    endpoint, version, capabilities, health = _announced(body)
    gate = gate_of(request)
    caller = await revalidated(gate, authentication)
    outcome = await gate.reader.problematas.announce(
        Announcement(
            tenant=caller.tenant,
            problemata=problemata_id,
            instance=instance,
            principal_key=caller.principal_key,
            endpoint=endpoint,
            version=version,
            capabilities=capabilities,
            health=health,
        )
    )
    return _no_content(outcome)


async def withdraw(
    request: Request, caller: CurrentCaller, problemata_id: KeyParameter, instance: InstanceParameter
) -> Response:
    store = gate_of(request).reader.problematas
    return _no_content(await store.withdraw(caller.tenant, problemata_id, instance, caller.principal_key))


async def problematas(
    request: Request,
    caller: CurrentCaller,
    tenant: UuidParameter | None = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
) -> Response:
    asked = authorized_tenant(caller, tenant)
    position = cursors.read(cursors.PROBLEMATAS, cursor)
    cursors.require_tenant(position, asked)
    after = None if position is None else position[1]
    page = await gate_of(request).reader.problematas.page(asked, after=after, limit=limit)
    following = None if page.next is None else (str(asked), page.next)
    return json_response(
        {
            "items": [shown(item) for item in page.items],
            "next_cursor": cursors.written(cursors.PROBLEMATAS, following),
        }
    )


async def problemata(
    request: Request, caller: CurrentCaller, problemata_id: KeyParameter, tenant: UuidParameter | None = None
) -> Response:
    item = await gate_of(request).reader.problematas.one(authorized_tenant(caller, tenant), problemata_id)
    if item is None:
        raise refuse(*_REFUSALS[AnnouncementOutcome.UNKNOWN])
    return json_response(shown(item))


def shown(item: AnnouncedProblemata) -> dict[str, Any]:
    return {
        "id": item.name,
        "version": item.version,
        "payload_kind": item.payload_kind,
        "capabilities": item.capabilities,
        "policy_profile": item.policy_profile,
        "surface": item.surface,
        "available": item.available,
        "instances": item.instances,
    }


def _no_content(outcome: AnnouncementOutcome) -> Response:
    if outcome in _REFUSALS:
        raise refuse(*_REFUSALS[outcome])
    return empty_response(204)


def _announced(body: dict[str, Any]) -> tuple[str, str, tuple[str, ...], str]:
    """Endpoint, version, capabilities and health. Raises INVALID_REQUEST."""
    if body.keys() - _MEMBERS:
        raise refuse(Code.INVALID_REQUEST, f"Only {', '.join(sorted(_MEMBERS))} may be sent.")
    endpoint, version, health = (body.get(name) for name in ("endpoint", "version", "health"))
    if not isinstance(endpoint, str) or len(endpoint) > 512 or not _URL.fullmatch(endpoint) or looks_secret(endpoint):
        raise refuse(Code.INVALID_REQUEST, "endpoint: required, an http or https URL without user info or a secret.")
    if not isinstance(version, str) or not 0 < len(version) <= 63:
        raise refuse(Code.INVALID_REQUEST, "version: required, a string of 1 to 63 characters.")
    if health not in HEALTH:
        raise refuse(Code.INVALID_REQUEST, f"health: required, one of {', '.join(HEALTH)}.")
    return endpoint, version, _capabilities(body.get("capabilities")), health


def _capabilities(value: object) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or len(value) > MOST_ANNOUNCED
        or not all(isinstance(item, str) and 0 < len(item) <= 128 for item in value)
    ):
        raise refuse(Code.INVALID_REQUEST, f"capabilities: required, a list of at most {MOST_ANNOUNCED} ids.")
    return tuple(value)
