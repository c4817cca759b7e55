"""What compiling one object came to, and how that is said in conditions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from metagate_crds import reasons
from metagate_crds.held import Held
from metagate_crds.snapshot import Row
from metagate_crds.verdict import Condition, Finding, Verdict

_LONGEST: Final = 4_000
# Of several findings the gravest gives the condition its reason; the message has them all.
_GRAVITY: Final = {
    reason: rank
    for rank, reason in enumerate(
        (reasons.INLINE_SECRET, reasons.SECRET_VALUE, reasons.FORBIDDEN_KEY, reasons.SYSTEM_NAMESPACE_ONLY)
    )
}


@dataclass(slots=True)
class Outcome:
    """Rows to serve, and what stands in the way: unresolved references, conflicts, refusals of the merged result."""

    rows: list[Row] = field(default_factory=list)
    unresolved: list[Finding] = field(default_factory=list)
    conflicts: list[Finding] = field(default_factory=list)
    refusals: list[Finding] = field(default_factory=list)
    extra: tuple[Condition, ...] = ()
    served_generation: int | None = None
    healthy: str = reasons.SERVED
    digest: str | None = None
    body: bytes | None = None


def verdict(found: Held, outcome: Outcome, uses: int) -> Verdict:
    """Everything that is said of one object."""
    return Verdict(
        key=found.declared.key,
        uid=found.declared.uid,
        generation=found.declared.generation,
        served_generation=outcome.served_generation,
        conditions=_conditions(found, outcome),
        uses=uses,
        digest=outcome.digest,
    )


def spoken(findings: Iterable[Finding]) -> str:
    """All findings as one message: sorted, stable, bounded."""
    parts = [str(finding) for finding in sorted(set(findings))]
    text = "; ".join(parts)
    if len(text) <= _LONGEST:
        return text
    shown: list[str] = []
    for part in parts:
        if sum(map(len, shown)) + len(part) + 2 * len(shown) > _LONGEST - 40:
            break
        shown.append(part)
    return "; ".join(shown) + f"; and {len(parts) - len(shown)} more"


def _conditions(found: Held, outcome: Outcome) -> tuple[Condition, ...]:
    if not (found.findings or outcome.unresolved or outcome.conflicts or outcome.refusals):
        return _healthy(outcome.healthy) + outcome.extra
    accepted = _accepted(found.findings)
    resolved = _resolved(found, outcome)
    compiled = _compiled(found, outcome)
    conflicted = _failed(reasons.CONFLICTED, outcome.conflicts, status="True")
    stalled = _failed(reasons.STALLED, found.findings or outcome.refusals, status="True")
    conditions = [_ready(accepted, *conflicted, resolved, compiled), accepted, resolved, compiled]
    return (*conditions, *conflicted, *stalled, *outcome.extra)


@lru_cache(maxsize=8)
def _healthy(reason: str) -> tuple[Condition, ...]:
    said = {
        reasons.SERVED: "what is declared is served",
        reasons.INACTIVE: "declared inactive; nothing of it is served",
        reasons.SUSPENDED: "declared suspended; refused everywhere",
    }
    return (
        Condition(reasons.READY, "True", reason, said[reason]),
        _accepted(()),
        Condition(reasons.RESOLVED_REFS, "True", reasons.REFERENCES_RESOLVED, "every reference resolves"),
        Condition(reasons.COMPILED, "True", reasons.IN_SNAPSHOT, "the present generation is in the snapshot"),
    )


def _accepted(findings: Sequence[Finding]) -> Condition:
    if findings:
        return _failed(reasons.ACCEPTED, findings)[0]
    return Condition(reasons.ACCEPTED, "True", reasons.VALID, "the spec is valid")


def _resolved(found: Held, outcome: Outcome) -> Condition:
    if found.effective is None:
        return Condition(reasons.RESOLVED_REFS, "Unknown", reasons.NOT_RESOLVED, "the spec is not valid")
    if outcome.unresolved:
        return _failed(reasons.RESOLVED_REFS, outcome.unresolved)[0]
    return _healthy(reasons.SERVED)[2]


def _compiled(found: Held, outcome: Outcome) -> Condition:
    if outcome.refusals:
        return _failed(reasons.COMPILED, outcome.refusals)[0]
    if outcome.served_generation is None:
        return Condition(reasons.COMPILED, "False", reasons.NOTHING_SERVED, "nothing of this object is served")
    if outcome.served_generation != found.declared.generation or found.findings:
        said = f"generation {outcome.served_generation} stays served"
        return Condition(reasons.COMPILED, "False", reasons.LAST_GOOD_SERVED, said)
    return _healthy(reasons.SERVED)[3]


def _ready(*conditions: Condition) -> Condition:
    for condition in conditions:
        if condition.status != ("False" if condition.type == reasons.CONFLICTED else "True"):
            return Condition(reasons.READY, "False", condition.reason, condition.message)
    return _healthy(reasons.SERVED)[0]


def _failed(name: str, findings: Sequence[Finding], status: str = "False") -> tuple[Condition, ...]:
    if not findings:
        return ()
    first = min(findings, key=lambda finding: (_GRAVITY.get(finding.reason, len(_GRAVITY)), finding))
    return (Condition(name, "True" if status == "True" else "False", first.reason, spoken(findings)),)
