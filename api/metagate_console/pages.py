"""Overview and search. Each page asks the store what it shows, as the viewer may see it, in few statements.

One statement after the other: a page has one connection of the pool at a time (`concurrency_limit`).
"""

from typing import Final
from uuid import UUID

from legivellum.base.uuids import parse_uuid
from legivellum.console.page import Page, Redirect
from legivellum.console.request_parsing import link
from legivellum.identity.tenancy import tenants_for
from metagate_console import charts
from metagate_console.page import PageRequest
from metagate_store.overviews import SearchMatch

FEW: Final = 8
"""Components in trouble that the overview shows at once; the others unfold, so that the chart stays in sight."""
ERRORS: Final = 12
REFUSED: Final = 25
MATCHES: Final = 20
_KINDS: Final = {
    "principal": "Principals", "component": "Components", "service": "Services", "manifest": "Manifests",
    "problemata": "Problematas", "plan-template": "PlanTemplates", "startup": "Startups",
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
    names = {counts.tenant: counts.namespace for counts in boots.tenants}
    return Page(
        "overview.html",
        "Overview",
        {
            "boots": boots, "state": state, "issuers": issuers, "names": names,
            "timeline": charts.timeline(boots.minutes, boots.at), "now": boots.at, "down": down, "few": FEW,
            "errors": await overviews.errors(down), "recovered": len(boots.troubles) - len(down),
            "failures": failures, "not_served": not_served,
            "most_refused": REFUSED,
        },
        live=True,
    )  # fmt: skip


async def runbook(_request: PageRequest) -> Page:
    """What to do about a startup that failed or is overdue: it is read when nothing else may be reachable."""
    return Page("runbook.html", "Runbook")


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
    values = {"wanted": wanted, "groups": groups, "limit": MATCHES, "is_id": startup_id is not None}
    return Page("search.html", "Search", values)


async def _owner(request: PageRequest, tenant: UUID | None, startup_id: UUID) -> UUID | None:
    if tenant is None:
        return await request.reader.overviews.tenant_of(startup_id)
    return tenant if await request.reader.startup(tenant, startup_id) is not None else None
