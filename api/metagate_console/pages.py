"""The pages: each asks the store what it shows, as the viewer may see it, in as few statements as it takes.

One statement after the other: a page has one connection of the pool at a time (`turns`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from legivellum.base.uuids import parse_uuid
from legivellum.http.problem_codes import Code
from legivellum.http.problems import Problem, RequestRefused, refuse
from legivellum.identity.tenancy import authorized_tenant, tenants_for
from metagate_console import charts
from metagate_console.page import Page, PageRequest, Redirect
from metagate_console.request_parsing import link
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


async def overview(visit: PageRequest) -> Page:
    whose = tenants_for(visit.viewer, visit.tenant)
    overviews = visit.reader.overviews
    found = await overviews.overview(whose)
    state = await visit.reader.state()
    failures = await overviews.failures(whose, limit=ERRORS)
    not_served = await overviews.not_served(whose, limit=REFUSED + 1) if visit.viewer.admin else ()
    issuers = await overviews.issuers() if visit.viewer.admin else ()
    down = [trouble for trouble in found.troubles if not trouble.up_again]
    names = {one.tenant: one.namespace for one in found.tenants}
    return Page(
        "overview.html",
        "Overview",
        {
            "found": found, "state": state, "issuers": issuers, "names": names,
            "timeline": charts.timeline(found.minutes, found.at), "now": found.at, "down": down, "few": FEW,
            "recovered": len(found.troubles) - len(down), "failures": failures, "not_served": not_served,
            "most_refused": REFUSED,
        },
        live=True,
    )  # fmt: skip


async def principals(visit: PageRequest) -> Page:
    whose = tenants_for(visit.viewer, visit.tenant)
    after, after_tenant = visit.query.text("after", 512), visit.query.id("after_tenant")
    seen = None if after is None else (str(after_tenant or whose or UUID(int=0)), after)
    page = await visit.reader.listing("principals", whose, after=seen, limit=PAGE)
    following = None
    if page.next is not None:
        following = link("principals", tenant=visit.tenant, after=page.next[1], after_tenant=page.next[0])
    return Page("principals.html", "Principals", {"items": page.items, "following": following, "first": after is None})


async def principal(visit: PageRequest) -> Page:
    whose, reader, key = authorized_tenant(visit.viewer, visit.tenant), visit.reader, visit.name
    found = None if "\0" in key or len(key) > 512 else await reader.item("principals", whose, key)
    if found is None:
        raise refuse(Code.NOT_FOUND, "There is no such principal.")
    bound = found.body.get("binding")
    binding = None if bound is None else await reader.item("bindings", whose, bound)
    last = await reader.startups(whose, principal_key=key, limit=LAST, span=LOOKED)
    state = await reader.state()
    values: dict[str, Any] = {"found": found, "binding": binding, "last": last, "now": state.now, "more": None}
    if visit.viewer.admin:
        boot = await reader.history.current_boot(whose, key)
        history = await reader.history.change_events(whose, kind="Principal", name=key, limit=LAST)
        values["more"] = {"history": history.items, **await _explained(visit, whose, boot)}
    return Page("principal.html", f"Principal {key}", values, live=True)


async def startups(visit: PageRequest) -> Page:
    whose, query = tenants_for(visit.viewer, visit.tenant), visit.query
    status = query.one_of("status", "OPEN", "READY", "FAILED", "overdue")
    component, who = query.text("component"), query.text("principal")
    after, after_tenant = query.id("after"), query.id("after_tenant")
    seen = None if after is None else (str(after_tenant or whose or UUID(int=2**128 - 1)), str(after))
    page = await visit.reader.startups(
        whose, status=status, component_key=component, principal_key=who, after=seen, limit=PAGE
    )
    state, names = await visit.reader.state(), await _names(visit)
    given = {"tenant": visit.tenant, "status": status, "component": component, "principal": who}
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


async def startup(visit: PageRequest) -> Page:
    whose, found = authorized_tenant(visit.viewer, visit.tenant), parse_uuid(visit.name)
    row = None if found is None else await visit.reader.startup(whose, found)
    if row is None:
        raise refuse(Code.NOT_FOUND, "There is no such startup.")
    state, more = await visit.reader.state(), None
    if visit.viewer.admin:
        more = await _explained(visit, whose, await visit.reader.history.boot_of(whose, row.startup_id))
    return Page("startup.html", f"Startup {row.startup_id}", {"row": row, "now": state.now, "more": more}, live=True)


async def topology(visit: PageRequest) -> Page:
    whose = tenants_for(visit.viewer, visit.tenant)
    if whose is None:
        return Page("tenants.html", "Topology: of whom?", {"tenants": await visit.reader.overviews.tenants()})
    found = await visit.reader.topology(whose)
    values = {"found": found, "picture": charts.topology_diagram(found), "most": ROWS}
    return Page("topology.html", "Topology", values)


async def history(visit: PageRequest) -> Page:
    if not visit.viewer.admin:
        raise refuse(Code.ROLE_REQUIRED, "Only a principal of type admin sees what was changed.")
    whose, before = tenants_for(visit.viewer, visit.tenant), visit.query.position("before")
    page = await visit.reader.history.change_events(whose, before=before, limit=PAGE)
    state = await visit.reader.state()
    following = None
    if page.next is not None:
        following = link("history", tenant=visit.tenant, before=f"{page.next[0]}.{page.next[1]}")
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


async def search(visit: PageRequest) -> Page | Redirect:
    whose, wanted = tenants_for(visit.viewer, visit.tenant), visit.query.text("q", 512)
    startup_id = parse_uuid(wanted or "")
    if startup_id is not None:
        owner = await _owner(visit, whose, startup_id)
        if owner is not None:
            return Redirect(link("startups", startup_id, tenant=owner if visit.viewer.everywhere else None))
    found: tuple[SearchMatch, ...] = ()
    if wanted is not None and startup_id is None:
        found = await visit.reader.overviews.search(whose, wanted.lstrip("…"), limit=MATCHES + 1)
    by_kind = {kind: [match for match in found if match.kind == kind] for kind in _KINDS}
    groups = [(kind, _KINDS[kind], matches) for kind, matches in by_kind.items() if matches]
    values = {"wanted": wanted, "groups": groups, "most": MATCHES, "is_id": startup_id is not None}
    return Page("search.html", "Search", values)


async def _owner(visit: PageRequest, whose: UUID | None, startup_id: UUID) -> UUID | None:
    if whose is None:
        return await visit.reader.overviews.tenant_of(startup_id)
    return whose if await visit.reader.startup(whose, startup_id) is not None else None


async def _names(visit: PageRequest) -> Mapping[UUID, str]:
    return await visit.reader.overviews.tenants() if visit.viewer.everywhere else {}


async def _explained(visit: PageRequest, tenant: UUID, boot: Boot | None) -> dict[str, Any]:
    """Packet and layers, or why there are none: a packet that cannot be made again is told loudly; the rest stays."""
    told: dict[str, Any] = {"boot": boot, "explained": None, "problem": None, "leaves": ()}
    if boot is None:
        return told
    try:
        found = await visit.explain(tenant, boot)
    except RequestRefused as refused:
        return {**told, "problem": _only_of_packets(refused)}
    return {**told, "explained": found, "leaves": found["leaves"][:LEAVES]}


def _only_of_packets(refused: RequestRefused) -> Problem:
    if refused.problem.code.name not in {"NOT_REBUILT", "BINDING_INCOMPLETE"}:
        raise refused
    return refused.problem
