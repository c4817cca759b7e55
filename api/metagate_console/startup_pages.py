"""Startups: the list, and the page of one: what it was told and reported, the one before it, others with its error."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from legivellum.base.uuids import parse_uuid
from legivellum.console.page import Page
from legivellum.console.request_parsing import link
from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from legivellum.identity.tenancy import authorized_tenant, tenants_for
from metagate_console.explained import explained_packet
from metagate_console.page import PageRequest
from metagate_store.rows import StartupPage, StartupRow

PAGE: Final = 50
LOOKED: Final = 20_000
"""Sessions among which the one before is looked for."""
ERROR: Final = 300
"""Characters of an error that are compared."""


async def startups(request: PageRequest) -> Page:
    query = request.query
    given: dict[str, Any] = {
        "tenant": request.tenant,
        "status": query.one_of("status", "OPEN", "READY", "FAILED", "overdue"),
        "component": query.text("component"),
        "principal": query.text("principal"),
        "error": query.text("error", ERROR),
    }
    after, after_tenant = query.id("after"), query.id("after_tenant")
    page = await _page(request, given, after, after_tenant)
    state, names = await request.reader.state(), await _names(request)
    following = None
    if page.next is not None:
        following = link("startups", **given, after=page.next[1], after_tenant=page.next[0])
    return Page(
        "startups.html",
        "Startups",
        {"items": page.items, "given": given, "following": following, "first": after is None, "now": state.now,
         "names": names},
        live=after is None,
    )  # fmt: skip


async def _page(
    request: PageRequest, given: Mapping[str, Any], after: UUID | None, after_tenant: UUID | None
) -> StartupPage:
    tenant = tenants_for(request.viewer, request.tenant)
    if given["error"] is not None:
        return await request.reader.overviews.failed_with(tenant, given["error"], before=after, limit=PAGE)
    position = None if after is None else (str(after_tenant or tenant or UUID(int=2**128 - 1)), str(after))
    return await request.reader.startups(
        tenant,
        status=given["status"],
        component_key=given["component"],
        principal_key=given["principal"],
        after=position,
        limit=PAGE,
    )


async def _names(request: PageRequest) -> Mapping[UUID, str]:
    return await request.reader.overviews.tenants() if request.viewer.everywhere else {}


async def startup(request: PageRequest) -> Page:
    tenant, startup_id = authorized_tenant(request.viewer, request.tenant), parse_uuid(request.name)
    row = None if startup_id is None else await request.reader.startup(tenant, startup_id)
    if row is None:
        raise refuse(Code.NOT_FOUND, "There is no such startup.")
    state, before = await request.reader.state(), await _startup_before(request, tenant, row)
    same = await request.reader.overviews.same_error(tenant, row.startup_id) if row.status == "FAILED" else None
    values = {
        "row": row, "now": state.now, "before": before, "same": same, "details": None, "packet_differences": None,
        "differences": [] if before is None else _differences(before, row),
    }  # fmt: skip
    if request.viewer.admin:
        boot = await request.reader.history.boot_of(tenant, row.startup_id)
        values["details"] = await explained_packet(request, tenant, boot)
        if before is not None and before.digest != row.digest:
            earlier = await request.reader.history.boot_of(tenant, before.startup_id)
            if boot is not None and earlier is not None and boot.body is not None and earlier.body is not None:
                values["packet_differences"] = request.compare_packets(earlier.body, boot.body)
    return Page("startup.html", f"Startup {row.startup_id}", values, live=True)


async def _startup_before(request: PageRequest, tenant: UUID, row: StartupRow) -> StartupRow | None:
    """The last one of the same component, if it is among the sessions before this one."""
    earlier = await request.reader.startups(
        tenant,
        principal_key=row.principal_key,
        component_key=row.component_key,
        after=(str(tenant), str(row.startup_id)),
        limit=1,
        span=LOOKED,
    )
    return next(iter(earlier.items), None)


def _differences(before: StartupRow, row: StartupRow) -> list[tuple[str, Any, Any]]:
    """What differs of the session itself: name, then, now. The packet's values are another list."""
    pairs = [
        ("State", _state(before), _state(row)),
        ("Reported after", _seconds(before), _seconds(row)),
        ("Revision", before.revision, row.revision),
        ("Pod", before.pod and (before.pod.name or before.pod.uid), row.pod and (row.pod.name or row.pod.uid)),
        ("Node", before.pod and before.pod.node, row.pod and row.pod.node),
    ]
    then, now = before.report or {}, row.report or {}
    # what somebody reported may have any name and be of any kind: in the order of this report, then what is gone
    pairs += [(name, then.get(name), now.get(name)) for name in [*now, *(name for name in then if name not in now)]]
    return [(name, old, new) for name, old, new in pairs if old != new]


def _state(row: StartupRow) -> str:
    return "overdue" if row.overdue else {"OPEN": "starting"}.get(row.status, row.status.lower())


def _seconds(row: StartupRow) -> str | None:
    if row.acknowledged_at is None:
        return None
    return f"{(row.acknowledged_at - row.opened_at).total_seconds():.1f} s"
