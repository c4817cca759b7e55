"""What was changed: each revision folded, with what exactly changed in each object."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from legivellum.console.page import Page
from legivellum.console.request_parsing import link
from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from legivellum.identity.tenancy import tenants_for
from metagate_console.page import PageRequest, ValueDifference
from metagate_store.history import ChangeEvent, SpecChange

PAGE: Final = 50
DIFFERENCES: Final = 40
"""Lines of one object's difference; the command line tells all of them."""


@dataclass(frozen=True, slots=True)
class SpecDifference:
    """What changed in the spec of one object: the first lines of it. `complete`: both specs could be compared."""

    lines: tuple[ValueDifference, ...]
    more: int
    complete: bool


@dataclass(frozen=True, slots=True)
class RevisionChanges:
    """What one revision published, as far as it is on the page."""

    number: int
    changes: tuple[ChangeEvent, ...]
    differences: Mapping[int, SpecDifference]
    """By the change's `seq`."""

    @property
    def summary(self) -> str:
        """How many objects of each kind."""
        counts = Counter(change.kind for change in self.changes)
        return ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in sorted(counts.items()))


async def history(request: PageRequest) -> Page:
    if not request.viewer.admin:
        raise refuse(Code.ROLE_REQUIRED, "Only a principal of type admin sees what was changed.")
    tenant, before = tenants_for(request.viewer, request.tenant), request.query.position("before")
    page = await request.reader.history.change_events(tenant, before=before, limit=PAGE)
    specs = await request.reader.history.spec_changes(tenant, page.items)
    state = await request.reader.state()
    following = None
    if page.next is not None:
        following = link("history", tenant=request.tenant, before=f"{page.next[0]}.{page.next[1]}")
    return Page(
        "history.html",
        "History",
        {"revisions": _by_revision(request, page.items, specs), "following": following, "first": before is None,
         "now": state.now},
        live=before is None,
    )  # fmt: skip


def _by_revision(
    request: PageRequest, changes: Sequence[ChangeEvent], specs: Mapping[int, SpecChange]
) -> list[RevisionChanges]:
    """Newest first, as they come."""
    revisions = []
    for number, group in groupby(changes, lambda change: change.revision):
        members = tuple(group)
        compared = {change.seq: _compared(request, change.kind, specs.get(change.seq)) for change in members}
        revisions.append(RevisionChanges(number, members, compared))
    return revisions


def _compared(request: PageRequest, kind: str, specs: SpecChange | None) -> SpecDifference:
    if specs is None or not specs.complete:
        return SpecDifference((), 0, complete=False)
    lines = request.compare_specs(kind, specs.before, specs.after)
    return SpecDifference(tuple(lines[:DIFFERENCES]), max(0, len(lines) - DIFFERENCES), complete=True)
