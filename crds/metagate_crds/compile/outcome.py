"""The outcome of compiling one object, and the conditions in which it is reported."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from metagate_crds import reasons
from metagate_crds.compile.object_state import ObjectState
from metagate_crds.compile.snapshot import SnapshotRow
from metagate_crds.rules.findings import Finding
from metagate_crds.verdict import Condition, Verdict

_LONGEST_MESSAGE: Final = 4_000
_ROOM_FOR_COUNT: Final = 40
# Of several findings the most severe gives the condition its reason; the message has them all.
_SEVERITY: Final = {
    reason: rank
    for rank, reason in enumerate(
        (reasons.INLINE_SECRET, reasons.SECRET_VALUE, reasons.FORBIDDEN_KEY, reasons.SYSTEM_NAMESPACE_ONLY)
    )
}
_READY_MESSAGES: Final = {
    reasons.SERVED: "what is declared is served",
    reasons.INACTIVE: "declared inactive; nothing of it is served",
    reasons.SUSPENDED: "declared suspended; refused everywhere",
}


@dataclass(slots=True)
class CompileOutcome:
    """Rows to serve, and what stands in the way: unresolved references, conflicts, refusals of the merged result.

    `warnings` stand in the way of nothing.
    `digest` and `body` are a Binding's packet. `extra` are conditions that only this kind has.
    """

    rows: list[SnapshotRow] = field(default_factory=list)
    unresolved: list[Finding] = field(default_factory=list)
    conflicts: list[Finding] = field(default_factory=list)
    refusals: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    extra: tuple[Condition, ...] = ()
    served_generation: int | None = None
    ready_reason: str = reasons.SERVED
    digest: str | None = None
    body: bytes | None = None


def build_verdict(state: ObjectState, outcome: CompileOutcome, uses: int) -> Verdict:
    """Everything that the status says of one object."""
    return Verdict(
        key=state.declared.key,
        uid=state.declared.uid,
        generation=state.declared.generation,
        served_generation=outcome.served_generation,
        conditions=_conditions(state, outcome),
        uses=uses,
        digest=outcome.digest,
    )


def join_findings(findings: Iterable[Finding]) -> str:
    """All findings as one message: sorted, stable, bounded."""
    parts = [str(finding) for finding in sorted(set(findings))]
    text = "; ".join(parts)
    if len(text) <= _LONGEST_MESSAGE:
        return text
    shown: list[str] = []  # whole findings only: half a path is worse than none
    for part in parts:
        if sum(map(len, shown)) + len(part) + 2 * len(shown) > _LONGEST_MESSAGE - _ROOM_FOR_COUNT:
            break
        shown.append(part)
    return "; ".join(shown) + f"; and {len(parts) - len(shown)} more"


def _conditions(state: ObjectState, outcome: CompileOutcome) -> tuple[Condition, ...]:
    extra = _failed(reasons.WARNING, outcome.warnings, status="True") + outcome.extra
    if not (state.findings or outcome.unresolved or outcome.conflicts or outcome.refusals):
        return _healthy(outcome.ready_reason) + extra
    accepted = _accepted(state.findings)
    resolved = _resolved_refs(state, outcome)
    compiled = _compiled(state, outcome)
    conflicted = _failed(reasons.CONFLICTED, outcome.conflicts, status="True")
    stalled = _failed(reasons.STALLED, state.findings or outcome.refusals, status="True")
    conditions = [_ready(accepted, *conflicted, resolved, compiled), accepted, resolved, compiled]
    return (*conditions, *conflicted, *stalled, *extra)


# Shared by thousands of objects, so that rows and statuses compare by identity first.
@lru_cache(maxsize=8)
def _healthy(reason: str) -> tuple[Condition, ...]:
    return (
        Condition(reasons.READY, "True", reason, _READY_MESSAGES[reason]),
        _accepted(()),
        Condition(reasons.RESOLVED_REFS, "True", reasons.REFERENCES_RESOLVED, "every reference resolves"),
        Condition(reasons.COMPILED, "True", reasons.IN_SNAPSHOT, "the present generation is in the snapshot"),
    )


def _accepted(findings: Sequence[Finding]) -> Condition:
    if findings:
        return _failed(reasons.ACCEPTED, findings)[0]
    return Condition(reasons.ACCEPTED, "True", reasons.VALID, "the spec is valid")


def _resolved_refs(state: ObjectState, outcome: CompileOutcome) -> Condition:
    if state.effective is None:
        return Condition(reasons.RESOLVED_REFS, "Unknown", reasons.NOT_RESOLVED, "the spec is not valid")
    if outcome.unresolved:
        return _failed(reasons.RESOLVED_REFS, outcome.unresolved)[0]
    return _healthy(reasons.SERVED)[2]


def _compiled(state: ObjectState, outcome: CompileOutcome) -> Condition:
    if outcome.refusals:
        return _failed(reasons.COMPILED, outcome.refusals)[0]
    if outcome.served_generation is None:
        return Condition(reasons.COMPILED, "False", reasons.NOTHING_SERVED, "nothing of this object is served")
    if outcome.served_generation != state.declared.generation or state.findings:
        message = f"generation {outcome.served_generation} stays served"
        return Condition(reasons.COMPILED, "False", reasons.LAST_GOOD_SERVED, message)
    return _healthy(reasons.SERVED)[3]


def _ready(*conditions: Condition) -> Condition:
    """Ready takes reason and message of the first condition that is not as it should be."""
    for condition in conditions:
        if condition.status != ("False" if condition.type == reasons.CONFLICTED else "True"):
            return Condition(reasons.READY, "False", condition.reason, condition.message)
    return _healthy(reasons.SERVED)[0]


def _failed(type_: str, findings: Sequence[Finding], status: str = "False") -> tuple[Condition, ...]:
    if not findings:
        return ()
    worst = min(findings, key=_severity)
    return (Condition(type_, "True" if status == "True" else "False", worst.reason, join_findings(findings)),)


def _severity(finding: Finding) -> tuple[int, Finding]:
    # An object that was never valid reports that itself, so any other finding tells more.
    last = len(_SEVERITY) + (finding.reason == reasons.REFERENCE_NOT_VALID)
    return (_SEVERITY.get(finding.reason, last), finding)
