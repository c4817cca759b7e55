"""Overview, stories, inbox, admissions, verification and search. Each asks the ledger in few statements, one after
another: a page has one connection of the pool at a time.
"""

from __future__ import annotations

import json
from typing import Any, Final

from legivellum.console.page import Page, Redirect
from legivellum.console.request_parsing import link
from legivellum.gate.cursors import decode_cursor, decode_time, encode_cursor, encode_time
from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from legivellum.receipts.rights import CUSTODIAL
from memorygate.console.admission_rows import ALLOW, admission_row
from memorygate.console.page import ROWS, LedgerPageRequest
from memorygate.console_queries import SCANNED_ADMISSIONS, BackwardListing, TreeEnd, TreePlace
from memorygate.ledger import START, LedgerPage, Open, Position

FEW: Final = 10
"""Entries of each list on the overview."""


async def overview(request: LedgerPageRequest) -> Page:
    ledger, tenant = request.ledger, request.tenant
    summary = await ledger.summary(tenant) if request.reads_tenant else None
    waiting = await ledger.inbox(tenant, request.viewer.principal_key, most=FEW)
    trees = await ledger.newest_trees(tenant, principal=request.limited_to, most=FEW)
    verification = await ledger.verification(tenant)
    return _page(
        request, "overview.html", "Overview", summary=summary, waiting=_waiting(waiting), more_waiting=waiting.more,
        trees=trees, verification=verification,
    )  # fmt: skip


async def tasks(request: LedgerPageRequest) -> Page:
    listing, place = await _trees(request, "tasks")
    following = _next_trees(request, "tasks", listing)
    return _page(request, "tasks.html", "Stories", trees=listing, first=place is None, following=following)


async def inbox(request: LedgerPageRequest) -> Page:
    """Of the viewer; of anybody for who reads the tenant."""
    whose = request.query.text("principal") or request.viewer.principal_key
    kind = request.query.one_of("kind", *sorted(CUSTODIAL)) or "obligation"
    if not request.reads_tenant and whose != request.viewer.principal_key:
        raise refuse(Code.ROLE_REQUIRED, "principal: only an admin or observer looks into another's inbox.")
    name = f"console/{request.tenant}/{whose}/{kind}"
    cursor = request.query.text("after", 1_024)
    after: Position = START if cursor is None else decode_time(name, cursor)
    page = await request.ledger.inbox(request.tenant, whose, kind=kind, after=after, most=ROWS)
    given = {"tenant": request.link_tenant, "principal": request.query.text("principal"), "kind": kind}
    last = page.items[-1] if page.more else None
    following = (
        None if last is None else link("inbox", **given, after=encode_time(name, last.custody_at, last.obligation_id))
    )
    values = {"whose": whose, "kind": kind, "kinds": sorted(CUSTODIAL), "first": cursor is None, "following": following}
    return _page(request, "inbox.html", f"Inbox of {whose}", live=cursor is None, items=_waiting(page), **values)


def _waiting(page: LedgerPage[Open]) -> list[dict[str, Any]]:
    """Each open obligation with what its receipt says of the work."""
    rows = []
    for obligation in page.items:
        receipt = json.loads(obligation.body)
        rows.append({"open": obligation, "task_type": receipt.get("task_type"), "emitter": receipt.get("emitter")})
    return rows


async def admissions(request: LedgerPageRequest) -> Page:
    reason = request.query.text("reason", 64)
    name, cursor = f"admissions/{request.tenant}/{reason}", request.query.text("after", 1_024)
    before = None if cursor is None else decode_time(name, cursor)
    counts = await request.ledger.admission_reasons(request.tenant, principal=request.limited_to)
    listing = await request.ledger.admissions(
        request.tenant, principal=request.limited_to, reason=reason, before=before, most=ROWS
    )
    given = {"tenant": request.link_tenant, "reason": reason}
    following = None if listing.after is None else link("admissions", **given, after=encode_time(name, *listing.after))
    return _page(
        request, "admissions.html", "Admissions", live=before is None, counts=counts, chosen=reason,
        rows=[admission_row(entry) for entry in listing.entries], first=before is None, following=following,
        counted=SCANNED_ADMISSIONS, allow=ALLOW,
    )  # fmt: skip


async def verify(request: LedgerPageRequest) -> Page:
    verification = await request.ledger.verification(request.tenant)
    listing, place = await _trees(request, "verify")
    following = _next_trees(request, "verify", listing)
    return _page(
        request, "verify.html", "Verify", live=place is None, verification=verification, trees=listing,
        first=place is None, following=following,
    )  # fmt: skip


async def search(request: LedgerPageRequest) -> Page | Redirect:
    """A task by its id; a receipt's id leads to the story in which it stands."""
    wanted = request.query.text("q", 200)
    if wanted is not None:
        receipt = await request.ledger.receipt(request.tenant, wanted)
        task = wanted if receipt is None else receipt.root_task_id
        if await _may_see(request, task):
            anchor = "" if receipt is None else f"#{receipt.receipt_id}"
            return Redirect(link("tasks", task, tenant=request.link_tenant) + anchor)
    return _page(request, "search.html", "Search", wanted=wanted)


async def _may_see(request: LedgerPageRequest, task: str) -> bool:
    """Whether there is such a task that the viewer may see."""
    if request.limited_to is not None:
        return await request.ledger.tree_names(request.tenant, task, request.limited_to)
    return bool((await request.ledger.root(request.tenant, task, most=1)).items)


async def _trees(request: LedgerPageRequest, path: str) -> tuple[BackwardListing[TreeEnd, TreePlace], TreePlace | None]:
    cursor = request.query.text("after", 1_024)
    before = None
    if cursor is not None:
        # The list is named beside the place, so that no cursor of another list is taken for one of this.
        written, moment = decode_cursor(_name(request, path), cursor, valid=_is_tree_place)
        before = int(written), decode_time("tree", moment)[0]
    ledger, limited_to = request.ledger, request.limited_to
    return await ledger.newest_trees(request.tenant, principal=limited_to, before=before, most=ROWS), before


def _next_trees(request: LedgerPageRequest, path: str, listing: BackwardListing[TreeEnd, TreePlace]) -> str | None:
    if listing.after is None:
        return None
    written, moment = listing.after
    cursor = encode_cursor(_name(request, path), (str(written), encode_time("tree", moment, "")))
    return link(path, tenant=request.link_tenant, after=cursor)


def _name(request: LedgerPageRequest, path: str) -> str:
    return f"{path}/{request.tenant}"


def _is_tree_place(position: Any) -> bool:
    return len(position) == 2 and position[0].isascii() and position[0].isdigit() and int(position[0]) < 2**64


def _page(request: LedgerPageRequest, template: str, title: str, *, live: bool = True, **values: Any) -> Page:
    about = {"tenant": request.link_tenant, "namespaces": request.namespaces, "now": request.now}
    return Page(template, title, {**about, "reads_tenant": request.reads_tenant, **values}, live=live)
