"""The story of a task: a picture over the table of the same rows, a row for each receipt or, of a long story, for each
step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from legivellum.console.page import Page
from legivellum.console.request_parsing import link
from legivellum.console.text import visible
from legivellum.http.problem_codes import Code
from legivellum.http.problems import RequestRefused, refuse
from legivellum.receipts.story import ReceiptDocument, TaskStep, TaskStory, cause_of, cost, task_steps, why
from memorygate.console.page import LedgerPageRequest
from memorygate.console.story_diagram import OpenEnd, StoryNode, story_diagram
from memorygate.console.story_reader import MOST_RECEIPTS, ReadStory, is_named, read_story

MOST_ROWS: Final = 300
"""Receipts up to which each has a row, and steps of one page."""
FEW_ROWS: Final = 12
"""Receipts that nobody wishes to see as steps."""
_LONG_NAME: Final = 20
_LONGEST_WORDS: Final = 30
_TONES: Final[Mapping[str, str]] = {
    "rejected": "failed",
    "escalate": "overdue",
    "expired": "overdue",
    "revoked": "overdue",
    "retired": "suspended",
    "stored": "ready",
    "lease_issued": "starting",
}
_OUTCOMES: Final[Mapping[str, str]] = {"success": "ready", "failure": "failed", "canceled": "suspended"}


class StoryRow(NamedTuple):
    """A row of the table, and a node of the picture. `anchor`: the receipt's id, or that of a step's first receipt."""

    anchor: str
    number: int
    at: datetime
    since_begin: str
    emitter: str
    kind: str
    phase: str
    status: str | None
    task_id: str
    task_words: str
    """The task without the name of the root where that is long: every task below the root begins with it."""
    why: str
    cost: str
    receipts: int
    causes: tuple[str, ...]
    """Anchors of the rows that made it happen."""
    elsewhere: str | None
    """The root of another tree in which its cause is."""
    missing: bool
    """The ledger does not have its cause."""
    tone: str


async def story(request: LedgerPageRequest) -> Page:
    read = await read_story(request.ledger, request.tenant, request.name)
    if read is None or not await _may_see(request, read):
        raise _no_such_task()
    folded = len(read.story.receipts) > MOST_ROWS or request.query.one_of("by", "step") is not None
    every_row = _step_rows(read) if folded else _receipt_rows(read)
    start = _start(request, len(every_row))
    rows = every_row[start : start + MOST_ROWS]
    nodes, ends = _nodes(rows, read.root_task_id, folded=folded), _open_ends(read.story, rows, read.root_task_id)
    values = {
        "asked": request.name, "read": read, "rows": rows, "rows_in_all": len(every_row), "start": start,
        "numbers": {row.anchor: row.number for row in every_row},
        "kinds": list(dict.fromkeys(row.kind for row in rows)),
        "wide": story_diagram(nodes, ends, narrow=False), "narrow": story_diagram(nodes, ends, narrow=True),
        "folded": folded, "may_fold": not folded and len(every_row) > FEW_ROWS, "ends": ends,
        "gaps": read.story.gaps, "total": cost(read.story.receipts), "most_receipts": MOST_RECEIPTS,
        "last_at": max(_at(receipt) for receipt in read.story.receipts), "now": request.now,
        "following": _following(request, start, len(every_row)), "tenant": request.link_tenant,
    }  # fmt: skip
    return Page("story.html", f"Story of {request.name}", values, live=True)


async def _may_see(request: LedgerPageRequest, read: ReadStory) -> bool:
    principal = request.limited_to
    if principal is None or any(is_named(receipt, principal) for receipt in read.story.receipts):
        return True
    return not read.complete and await request.ledger.tree_names(request.tenant, request.name, principal)


def _no_such_task() -> RequestRefused:
    """The same for a task that nobody began, another tenant's, and one that does not concern the viewer."""
    return refuse(Code.NOT_FOUND, "There is no such task.")


def _start(request: LedgerPageRequest, rows: int) -> int:
    text = request.query.text("from", 6) or "0"
    if not (text.isascii() and text.isdigit() and int(text) < max(rows, 1)):
        raise refuse(Code.INVALID_REQUEST, "from: the number of a row of this story.")
    return int(text)


def _following(request: LedgerPageRequest, start: int, rows: int) -> str | None:
    if start + MOST_ROWS >= rows:
        return None
    by = request.query.one_of("by", "step")
    return link("tasks", request.name, tenant=request.link_tenant, by=by, **{"from": start + MOST_ROWS})


def _receipt_rows(read: ReadStory) -> list[StoryRow]:
    receipts = read.story.receipts
    begin = min(_at(receipt) for receipt in receipts)
    return [_row(number, receipt, read, begin, (receipt,)) for number, receipt in enumerate(receipts, 1)]


def _step_rows(read: ReadStory) -> list[StoryRow]:
    """A row for each task: by whoever ended it, or began it if nobody did."""
    begin, steps = min(_at(receipt) for receipt in read.story.receipts), task_steps(read.story)
    anchors = {str(receipt["receipt_id"]): _anchor(step) for step in steps for receipt in step.receipts}
    return [_step_row(number, step, read, begin, anchors) for number, step in enumerate(steps, 1)]


def _anchor(step: TaskStep) -> str:
    return str(step.receipts[0]["receipt_id"])


def _step_row(number: int, step: TaskStep, read: ReadStory, begin: datetime, anchors: Mapping[str, str]) -> StoryRow:
    first = step.receipts[0]
    row = _row(number, step.end or first, read, begin, step.receipts)
    named = [cause for receipt in step.receipts if (cause := cause_of(receipt)) is not None]
    causes = dict.fromkeys(anchors[cause] for cause in named if cause in anchors)
    return row._replace(
        anchor=_anchor(step),
        at=_at(first),
        since_begin=_since(_at(first), begin),
        task_id=step.task_id,
        task_words=_without_root(step.task_id, read.root_task_id),
        causes=tuple(cause for cause in causes if cause != _anchor(step)),
        elsewhere=read.elsewhere.get(str(cause_of(first))),
        status=step.state,
        tone="starting" if step.open_with is not None else row.tone,
    )


def _row(
    number: int, receipt: ReceiptDocument, read: ReadStory, begin: datetime, receipts: Sequence[ReceiptDocument]
) -> StoryRow:
    cause = cause_of(receipt)
    status = receipt.get("status")
    return StoryRow(
        anchor=str(receipt["receipt_id"]),
        number=number,
        at=_at(receipt),
        since_begin=_since(_at(receipt), begin),
        emitter=str(receipt["emitter"]),
        kind=str(receipt["kind"]),
        phase=str(receipt["phase"]),
        status=None if status in {None, "", "NA"} else str(status),
        task_id=str(receipt["obligation_id"]),
        task_words=_without_root(str(receipt["obligation_id"]), read.root_task_id),
        why=_without_root(why(receipt, read.story.receipts), read.root_task_id),
        cost=cost(receipts),
        receipts=len(receipts),
        causes=() if cause is None else (cause,),
        elsewhere=read.elsewhere.get(str(cause)),
        missing=cause is not None and cause in read.story.dangling,
        tone=_tone(receipt),
    )


def _without_root(text: str, root: str) -> str:
    """Names of tasks as a table has room for: `.read-0` for a task below the root, the end of the root's own name."""
    if len(root) <= _LONG_NAME:
        return text
    for separator in (".", ":"):
        text = text.replace(f"{root}{separator}", separator)
    return text.replace(root, f"…{root[-8:]}")


def _tone(receipt: ReceiptDocument) -> str:
    if receipt["phase"] == "complete":
        return _OUTCOMES.get(str(receipt.get("status")), "silent")
    return _TONES.get(str(receipt["phase"]), "silent" if receipt["kind"] == "lifecycle" else "accent")


def _nodes(rows: Sequence[StoryRow], root: str, *, folded: bool) -> list[StoryNode]:
    return [
        StoryNode(
            node_id=row.anchor,
            emitter=row.emitter,
            kind=row.kind,
            tone=row.tone,
            words=_words(row, root, folded=folded),
            title=f"{row.number}: {row.kind} {row.phase} by {row.emitter}, {row.task_id}. {row.why}",
            time=row.since_begin,
            causes=row.causes,
            missing_cause=row.missing,
        )
        for row in rows
    ]


def _words(row: StoryRow, root: str, *, folded: bool) -> str:
    state = row.status if folded else row.status if row.phase == "complete" and row.status else row.phase
    return _short(f"{state} {short_task(row.task_id, root)}".strip())


def short_task(task_id: str, root: str) -> str:
    """A task below the root without the root's name, which all of them begin with."""
    if task_id == root:
        return ""
    return task_id[len(root) :].lstrip(".:") if task_id.startswith((f"{root}.", f"{root}:")) else task_id


def _short(text: str) -> str:
    """Words of a picture cannot wrap. What cannot be seen is spelt before it is measured."""
    spelt = visible(text)
    return spelt if len(spelt) <= _LONGEST_WORDS else spelt[: _LONGEST_WORDS - 1] + "…"


def _open_ends(story: TaskStory, rows: Sequence[StoryRow], root: str) -> list[OpenEnd]:
    """Each open obligation, at the receipt that gave its custodian custody."""
    shown = {row.anchor for row in rows}
    givers: dict[str, str] = {}
    anchors = {step.task_id: _anchor(step) for step in task_steps(story)}
    for receipt in story.receipts:
        if receipt["kind"] == "obligation" and receipt["phase"] in {"accepted", "escalate"}:
            own, step = str(receipt["receipt_id"]), anchors[str(receipt["task_id"])]
            givers[str(receipt["obligation_id"])] = own if own in shown else step
    return [
        OpenEnd(
            obligation, custodian, givers.get(obligation), _short(f"open {short_task(obligation, root)} {custodian}")
        )
        for obligation, custodian in story.open_with.items()
    ]


def _at(receipt: ReceiptDocument) -> datetime:
    return datetime.fromisoformat(str(receipt["stored_at"])).astimezone(UTC)


def _since(moment: datetime, begin: datetime) -> str:
    """How long after the first receipt, as short as a lane's margin."""
    passed: timedelta = moment - begin
    seconds = passed.total_seconds()
    if seconds < 100:
        return f"+{seconds:.3f} s"
    if seconds < 6_000:
        return f"+{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"+{int(seconds) // 3_600} h {int(seconds) // 60 % 60} min" if seconds < 172_800 else f"+{passed.days} d"
