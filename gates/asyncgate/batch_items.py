"""What the items of a batch are answered.

One that failed is answered as that, and takes no answer from the others: they may be committed, and whoever heard only
of the failure would not know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import structlog

from asyncgate.problem_codes import Code
from legivellum.gate.snapshot_poller import LOST
from legivellum.http.deadline import DeadlineExceeded, Overloaded
from legivellum.http.problem_codes import ProblemCode

_log = structlog.get_logger("asyncgate.batch")

Item: TypeAlias = dict[str, Any]


def answered_items(items: Sequence[Item | BaseException]) -> list[Item]:
    """An answer for each. Raises the first failure where every item failed: then there is nothing else to tell."""
    failures = [item for item in items if isinstance(item, BaseException)]
    if len(failures) == len(items):
        raise failures[0]
    return [_failed_item(item) if isinstance(item, BaseException) else item for item in items]


def refused_item(code: ProblemCode, detail: str) -> Item:
    return {"status": code.status, "code": code.name, "title": code.title, "detail": detail}


def _failed_item(error: BaseException) -> Item:
    """As the edge answers the same error of a single request."""
    if isinstance(error, DeadlineExceeded):
        return refused_item(Code.DEADLINE_EXCEEDED, "There was no answer in time; send the same again.")
    if isinstance(error, Overloaded):
        return refused_item(Code.OVERLOADED, "More is being asked than can be answered now.")
    if isinstance(error, LOST):
        return refused_item(Code.UNAVAILABLE, "The database cannot be asked right now.")
    _log.error("item_failed", error=type(error).__qualname__, exc_info=error)
    return refused_item(Code.INTERNAL_ERROR, "This should not have happened; the operators were told.")
