"""The pages: each asks the store what it shows, as the viewer may see it, in as few statements as it takes.

One statement after the other: a page has one connection of the pool at a time (`concurrency_limit`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from legivellum.base.uuids import parse_uuid
from legivellum.console.page import Page, Redirect
from legivellum.console.request_parsing import link
from legivellum.http.problem_codes import Code
from legivellum.http.problems import Problem, RequestRefused, refuse
from legivellum.identity.tenancy import authorized_tenant, tenants_for
from metagate_console import charts
from metagate_console.page import PageRequest
from metagate_store.history import Boot, ChangeEvent
from metagate_store.overviews import SearchMatch

PAGE: Final = 50
LAST: Final = 15
LOOKED: Final = 20_000
"""Sessions among which a principal's page looks for its last ones; the list of startups looks further back."""
LEAVES: Final = 600
"""Lines of a packet that a page shows; more are told by the command line."""
ROWS: Final = 200
FEW: Final = 8
"""Components in trouble that the overview shows at once; the others unfold, so that the chart stays in sight."""
ERRORS: Final = 12
REFUSED: Final = 25
MATCHES: Final = 20
_KINDS: Final = {
    "principal": "Principals", "component": "Components", "service": "Services", "manifest": "Manifests",
    "startup": "Startups",
}  # fmt: skip


async def overview(request: PageRequest) -> Page:
    tenant = tenants_for(request.viewer, request.tenant)
    overviews = request.reader.overviews
    boots = await overviews.overview(tenant)
    state = await request.reader.state()
    failures = await overviews.failures(tenant, limit=ERRORS)
    not_served = await overviews.not_served(tenant, limit=REFUSED + 1) if request.viewer.admin else ()
    issuers = await overviews.issuers() if request.viewer.admin else ()
    down = [trouble for trouble in boots.troubles if not trouble.up_again]
    names = {one.tenant: one.namespace for one in boots.tenants}
    return Page(
        "overview.html",
        "Overview",
        {
            "found": boots, "state": state, "issuers": issuers, "names": names,
            "timeline": charts.timeline(boots.minutes, boots.at), "now": boots.at, "down": down, "few": FEW,
            "errors": await overviews.errors(down), "recovered": len(boots.troubles) - len(down),
            "failures": failures, "not_served": not_served,
            "most_refused": REFUSED,
        },
        live=True,
    )  # fmt: skip


async def principals(request: PageRequest) -> Page:
    tenant = tenants_for(request.viewer, request.tenant)
    after, after_tenant = request.query.text("after", 512), request.query.id("after_tenant")
    position = None if after is None else (str(after_tenant or tenant or UUID(int=0)), after)
    page = await request.reader.listing("principals", tenant, after=position, limit=PAGE)
    following = None
    if page.next is not None:
        following = link("principals", tenant=request.tenant, after=page.next[1], after_tenant=page.next[0])
    return Page("principals.html", "Principals", {"items": page.items, "following": following, "first": after is None})


async def principal(request: PageRequest) -> Page:
    tenant, reader, key = authorized_tenant(request.viewer, request.tenant), request.reader, request.name
    served = None if "\0" in key or len(key) > 512 else await reader.item("principals", tenant, key)
    if served is None:
        raise refuse(Code.NOT_FOUND, "There is no such principal.")
    bound = served.body.get("binding")
    binding = None if bound is None else await reader.item("bindings", tenant, bound)
    last = await reader.startups(tenant, principal_key=key, limit=LAST, span=LOOKED)
    state = await reader.state()
    values: dict[str, Any] = {"found": served, "binding": binding, "last": last, "now": state.now, "more": None}
    if request.viewer.admin:
        boot = await reader.history.current_boot(tenant, key)
        history = await reader.history.change_events(tenant, kind="Principal", name=key, limit=LAST)
        values["more"] = {"history": history.items, **await _explained(request, tenant, boot)}
    return Page("principal.html", f"Principal {key}", values, live=True)


async def startups(request: PageRequest) -> Page:
    tenant, query = tenants_for(request.viewer, request.tenant), request.query
    status = query.one_of("status", "OPEN", "READY", "FAILED", "overdue")
    component, principal_key = query.text("component"), query.text("principal")
    after, after_tenant = query.id("after"), query.id("after_tenant")
    position = None if after is None else (str(after_tenant or tenant or UUID(int=2**128 - 1)), str(after))
    page = await request.reader.startups(
        tenant, status=status, component_key=component, principal_key=principal_key, after=position, limit=PAGE
    )
    state, names = await request.reader.state(), await _names(request)
    given = {"tenant": request.tenant, "status": status, "component": component, "principal": principal_key}
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


async def startup(request: PageRequest) -> Page:
    tenant, startup_id = authorized_tenant(request.viewer, request.tenant), parse_uuid(request.name)
    row = None if startup_id is None else await request.reader.startup(tenant, startup_id)
    if row is None:
        raise refuse(Code.NOT_FOUND, "There is no such startup.")
    state, more = await request.reader.state(), None
    earlier = await request.reader.startups(
        tenant,
        principal_key=row.principal_key,
        component_key=row.component_key,
        after=(str(tenant), str(row.startup_id)),
        limit=1,
        span=LOOKED,
    )
    if request.viewer.admin:
        more = await _explained(request, tenant, await request.reader.history.boot_of(tenant, row.startup_id))
    return Page(
        "startup.html",
        f"Startup {row.startup_id}",
        {"row": row, "now": state.now, "more": more, "before": next(iter(earlier.items), None)},
        live=True,
    )


async def topology(request: PageRequest) -> Page:
    tenant = tenants_for(request.viewer, request.tenant)
    if tenant is None:
        return Page("tenants.html", "Topology: of whom?", {"tenants": await request.reader.overviews.tenants()})
    page = await request.reader.topology(tenant)
    values = {"found": page, "picture": charts.topology_diagram(page), "most": ROWS}
    return Page("topology.html", "Topology", values)


async def history(request: PageRequest) -> Page:
    if not request.viewer.admin:
        raise refuse(Code.ROLE_REQUIRED, "Only a principal of type admin sees what was changed.")
    tenant, before = tenants_for(request.viewer, request.tenant), request.query.position("before")
    page = await request.reader.history.change_events(tenant, before=before, limit=PAGE)
    state = await request.reader.state()
    following = None
    if page.next is not None:
        following = link("history", tenant=request.tenant, before=f"{page.next[0]}.{page.next[1]}")
    return Page(
        "history.html",
        "History",
        {"revisions": _by_revision(page.items), "following": following, "first": before is None, "now": state.now},
        live=before is None,
    )


@dataclass(frozen=True, slots=True)
class RevisionChanges:
    """What one revision published, as far as it is on the page."""

    number: int
    changes: tuple[ChangeEvent, ...]

    @property
    def summary(self) -> str:
        """How many objects of each kind."""
        counts = Counter(change.kind for change in self.changes)
        return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def _by_revision(changes: Sequence[ChangeEvent]) -> list[RevisionChanges]:
    """Newest first, as they come."""
    return [RevisionChanges(number, tuple(group)) for number, group in groupby(changes, lambda change: change.revision)]


async def search(request: PageRequest) -> Page | Redirect:
    tenant, wanted = tenants_for(request.viewer, request.tenant), request.query.text("q", 512)
    startup_id = parse_uuid(wanted or "")
    if startup_id is not None:
        owner = await _owner(request, tenant, startup_id)
        if owner is not None:
            return Redirect(link("startups", startup_id, tenant=owner if request.viewer.everywhere else None))
    matches: tuple[SearchMatch, ...] = ()
    if wanted is not None and startup_id is None:
        matches = await request.reader.overviews.search(tenant, wanted.lstrip("…"), limit=MATCHES + 1)
    by_kind = {kind: [match for match in matches if match.kind == kind] for kind in _KINDS}
    groups = [(kind, _KINDS[kind], matches) for kind, matches in by_kind.items() if matches]
    values = {"wanted": wanted, "groups": groups, "most": MATCHES, "is_id": startup_id is not None}
    return Page("search.html", "Search", values)


async def _owner(request: PageRequest, tenant: UUID | None, startup_id: UUID) -> UUID | None:
    if tenant is None:
        return await request.reader.overviews.tenant_of(startup_id)
    return tenant if await request.reader.startup(tenant, startup_id) is not None else None


async def _names(request: PageRequest) -> Mapping[UUID, str]:
    return await request.reader.overviews.tenants() if request.viewer.everywhere else {}


async def _explained(request: PageRequest, tenant: UUID, boot: Boot | None) -> dict[str, Any]:
    """Packet and layers, or why there are none: a packet that cannot be made again is told loudly; the rest stays."""
    values: dict[str, Any] = {"boot": boot, "explained": None, "problem": None, "leaves": ()}
    if boot is None:
        return values
    try:
        explanation = await request.explain(tenant, boot)
    except RequestRefused as refused:
        return {**values, "problem": _only_of_packets(refused)}
    return {**values, "explained": explanation, "leaves": explanation["leaves"][:LEAVES]}


def _only_of_packets(refused: RequestRefused) -> Problem:
    if refused.problem.code.name not in {"NOT_REBUILT", "BINDING_INCOMPLETE"}:
        raise refused
    return refused.problem
