"""The standalone reporter: one structured line per verdict that changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from metagate_crds.objects import ObjectKey
from metagate_crds.verdict import Condition, Verdict
from metagate_operator.sources.documents import Document

_log = structlog.stdlib.get_logger("metagate.verdict")
Known = tuple[str, int | None, tuple[Condition, ...], str | None]


class VerdictLog:
    """A `Reporter`. `origin` tells where an object is declared, so that a line can name file and line."""

    def __init__(self, origin: Callable[[ObjectKey], Document | None] = lambda _key: None) -> None:
        self._origin = origin
        self._told: dict[ObjectKey, Known] = {}

    async def report(self, verdicts: Sequence[Verdict], revision: int) -> None:
        for verdict in verdicts:
            known = (verdict.uid, verdict.served_generation, verdict.conditions, verdict.digest)
            if self._told.get(verdict.key) != known:
                self._told[verdict.key] = known
                self._tell(verdict, revision)

    def _tell(self, verdict: Verdict, revision: int) -> None:
        condition = verdict.condition("Ready")
        document = self._origin(verdict.key)
        facts = {
            "kind": verdict.key.kind,
            "namespace": verdict.key.namespace,
            "name": verdict.key.name,
            "ready": verdict.ready,
            "reason": condition.reason if condition else "",
            "generation": verdict.generation,
            "served": verdict.served_generation,
            "revision": revision,
        }
        if document is not None:
            facts["where"] = f"{document.file}:{document.line}"
        if verdict.ready:
            _log.info("verdict", **facts)
        else:
            _log.warning("verdict", **facts, message=condition.message if condition else "")
