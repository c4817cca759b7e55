"""Reading startup sessions and their packets again: GET only, own sessions unless admin or observer."""

from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response

from legivellum.http.etag import etag_matches
from legivellum.http.problems import refuse
from legivellum.identity.caller import may_read_others
from legivellum.identity.tenancy import authorized_tenant, tenants_for
from metagate_api import cursors
from metagate_api.callers import Caller, credential_row, pod_row
from metagate_api.gate import gate_of
from metagate_api.packet_rendering import render_packet, signature_headers
from metagate_api.problem_codes import Code
from metagate_api.request_parameters import AuthenticatedCaller, CurrentCaller, PageCursor, PageLimit, UuidParameter
from metagate_api.responses import empty_response, json_response, raw_json_response
from metagate_crds.packet import etag as packet_etag
from metagate_store.rows import PacketOutcome, PacketQuery, StartupRow, require

Name = Annotated[str | None, Query(min_length=1, max_length=253, pattern=r"^[^\x00-\x1f\x7f]+$")]

_REFUSALS = {
    PacketOutcome.UNKNOWN: (Code.SESSION_NOT_FOUND, "There is no such session."),
    PacketOutcome.NOT_YOURS: (Code.NOT_YOURS, "The session belongs to another principal."),
    PacketOutcome.NOT_THIS_POD: (Code.NOT_THIS_POD, "The session was opened by another pod."),
    PacketOutcome.UNKNOWN_PRINCIPAL: (Code.PRINCIPAL_UNKNOWN, "No Principal answers to this credential any more."),
    PacketOutcome.SUSPENDED: (Code.PRINCIPAL_SUSPENDED, "This principal is suspended."),
    PacketOutcome.CREDENTIAL_REVOKED: (Code.CREDENTIAL_REVOKED, "What this credential rests on was withdrawn."),
    PacketOutcome.NO_BINDING: (Code.NO_BINDING, "This principal has no active binding."),
    PacketOutcome.BINDING_INCOMPLETE: (Code.BINDING_INCOMPLETE, "The binding refers to something missing or invalid."),
    PacketOutcome.COMPONENT_NOT_PERMITTED: (
        Code.COMPONENT_NOT_PERMITTED,
        "The binding does not permit this component any more.",
    ),
}


def reads_all(caller: Caller) -> bool:
    return may_read_others(caller.type)


def shown(row: StartupRow) -> dict[str, Any]:
    """One session. `status` is what was stored, except that an OPEN one past its deadline is `overdue` (INV-022)."""
    return {
        "startup_id": row.startup_id,
        "tenant": row.tenant,
        "principal_key": row.principal_key,
        "component_key": row.component_key,
        "status": "overdue" if row.overdue else row.status,
        "overdue": row.overdue,
        "late": bool(row.late),
        "opened_at": row.opened_at,
        "deadline_at": row.deadline_at,
        "acknowledged_at": row.acknowledged_at,
        "packet_id": row.packet_id,
        "digest": row.digest,
        "revision": row.revision,
        "report": row.report,
        "pod": None if row.pod is None else {"uid": row.pod.uid, "name": row.pod.name, "node": row.pod.node},
    }


async def startups(  # noqa: PLR0917  # the framework fills them in by name
    request: Request,
    caller: CurrentCaller,
    status: Literal["OPEN", "READY", "FAILED", "overdue"] | None = None,
    component_key: Name = None,
    tenant: UuidParameter | None = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
) -> Response:
    page = await gate_of(request).reader.startups(
        tenants_for(caller, tenant),
        status=status,
        component_key=component_key,
        principal_key=None if reads_all(caller) else caller.principal_key,
        after=cursors.read(cursors.STARTUPS, cursor),
        limit=limit,
    )
    return json_response(
        {"items": [shown(row) for row in page.items], "next_cursor": cursors.written(cursors.STARTUPS, page.next)}
    )


async def summary(request: Request, caller: CurrentCaller, tenant: UuidParameter | None = None) -> Response:
    """Counts of one tenant (INV-095): a cluster-wide reader names which, as at the ledger (D-51)."""
    tenant_id = authorized_tenant(caller, tenant)
    principal_key = None if reads_all(caller) else caller.principal_key
    counted = await gate_of(request).reader.summary(tenant_id, principal_key=principal_key)
    return json_response(
        {
            "tenant": tenant_id,
            "principal_key": principal_key,
            "startups": {"open": counted.opened, "ready": counted.ready, "failed": counted.failed},
            "oldest_open_at": counted.oldest_open,
            "overdue": counted.overdue,
            "latest_opened_at": counted.latest,
            "counted_since": counted.counted_since,
        }
    )


async def startup(
    request: Request, caller: CurrentCaller, startup_id: UuidParameter, tenant: UuidParameter | None = None
) -> Response:
    row = await gate_of(request).reader.startup(authorized_tenant(caller, tenant), startup_id)
    if row is None:
        raise refuse(Code.SESSION_NOT_FOUND, "There is no such session.")
    if row.principal_key != caller.principal_key and not reads_all(caller):
        raise refuse(Code.NOT_YOURS, "The session belongs to another principal.")
    return json_response(shown(row))


async def packet_now(request: Request, caller: AuthenticatedCaller, startup_id: UuidParameter) -> Response:
    """The packet as of now, for the session's owner: no receipt, no new session (D-47)."""
    packet_cache = gate_of(request).packet_cache
    expected, checked = packet_cache.expected(caller.tenant, caller.principal_key)
    result = await gate_of(request).reader.packet(
        PacketQuery(
            tenant=caller.tenant,
            principal_key=caller.principal_key,
            credential=credential_row(caller),
            startup_id=startup_id,
            expected_digest=expected,
            pod=pod_row(caller),
        )
    )
    if result.outcome in _REFUSALS:
        raise refuse(*_REFUSALS[result.outcome])
    component_key, digest = require(result.component_key), require(result.digest)
    etag = packet_etag(digest, caller.principal_key, component_key)
    tags = b",".join(value for name, value in request.scope["headers"] if name == b"if-none-match")
    headers = {"etag": f'"{etag}"'}
    if etag_matches(tags or None, etag):
        return empty_response(304, headers)
    body = packet_cache.keep(
        caller.tenant, caller.principal_key, digest, checked if digest == expected else result.body
    )
    packet = render_packet(
        body, result, principal_key=caller.principal_key, component_key=component_key, startup_id=startup_id
    )
    headers |= {name.decode(): value.decode() for name, value in signature_headers(gate_of(request).signer, packet)}
    return raw_json_response(packet, headers=headers)
