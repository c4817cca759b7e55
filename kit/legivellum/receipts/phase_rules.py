"""What a phase asks of a receipt (docs/memorygate/receipts.md). Pure; a rule names the field that breaks it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from legivellum.receipts.rights import PHASES, Kind


@dataclass(frozen=True, slots=True)
class ReceiptFinding:
    """`path` is the field's name; `message` continues a sentence that begins with it and never quotes the value."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path} {self.message}"


PLACEHOLDER_WORDS = frozenset({"na", "n/a", "tbd", "none", "null"})
"""What people write where they have nothing to say."""

_ARTIFACT = ("artifact_pointer", "artifact_location", "artifact_mime", "artifact_checksum", "artifact_size_bytes")
_ARTIFACT_NEEDED = ("artifact_pointer", "artifact_location", "artifact_mime")
_ARTIFACT_KINDS = frozenset({"artifact_pointer", "mixed"})
_TEXT_KINDS = frozenset({"response_text", "mixed"})


def broken_rules(values: Mapping[str, Any]) -> tuple[ReceiptFinding, ...]:
    """`values` may lack fields that were found bad already; rules about those stay silent."""
    phase, kind = values.get("phase"), values.get("kind")
    if not isinstance(phase, str) or not isinstance(kind, str):
        return ()
    allowed = PHASES[Kind(kind)]
    if phase not in allowed:
        return (ReceiptFinding("phase", f"of kind {kind} must be one of: {', '.join(allowed)}"),)
    findings: list[ReceiptFinding] = []
    if phase == "complete":
        findings += _complete(values)
    elif kind == Kind.ARTIFACT:
        findings += _stored_artifact(values, phase)
    else:
        findings += _without_outcome(values, phase, ("outcome_text", "completed_at", *_ARTIFACT))
    if phase == "accepted":
        findings += _summary(values)
    findings += _escalate(values) if phase == "escalate" else _without_escalation(values, phase)
    return tuple(findings)


def _complete(values: Mapping[str, Any]) -> Iterator[ReceiptFinding]:
    if values.get("status") == "NA":
        yield ReceiptFinding("status", "must say how it ended: success, failure or canceled")
    if "completed_at" in values and values["completed_at"] is None:
        yield ReceiptFinding("completed_at", "is required when phase is complete")
    outcome = values.get("outcome_kind")
    if outcome is None:
        return
    if outcome == "NA":
        yield ReceiptFinding("outcome_kind", "must be set when phase is complete")
        return
    yield from _outcome_text(values, outcome)
    yield from _artifact(values, outcome)


def _outcome_text(values: Mapping[str, Any], outcome: str) -> Iterator[ReceiptFinding]:
    if "outcome_text" not in values:
        return
    text = values["outcome_text"]
    if outcome in _TEXT_KINDS and not text:
        yield ReceiptFinding("outcome_text", f"is required when outcome_kind is {outcome}")
    elif outcome not in _TEXT_KINDS and text is not None:
        yield ReceiptFinding("outcome_text", f"must be absent when outcome_kind is {outcome}")


def _artifact(values: Mapping[str, Any], outcome: str) -> Iterator[ReceiptFinding]:
    if outcome in _ARTIFACT_KINDS:
        for name in _ARTIFACT_NEEDED:
            if name in values and values[name] is None:
                yield ReceiptFinding(name, f"is required when outcome_kind is {outcome}")
    else:
        for name in _ARTIFACT:
            if values.get(name) is not None:
                yield ReceiptFinding(name, f"must be absent when outcome_kind is {outcome}")


def _summary(values: Mapping[str, Any]) -> Iterator[ReceiptFinding]:
    """An inbox shows it: whoever reads it there must learn what the work is."""
    summary = values.get("task_summary")
    if isinstance(summary, str) and (not summary.strip() or summary.strip().casefold() in PLACEHOLDER_WORDS):
        yield ReceiptFinding("task_summary", "must say what the work is, or be absent, when phase is accepted")


def _stored_artifact(values: Mapping[str, Any], phase: str) -> Iterator[ReceiptFinding]:
    """An artifact receipt names what is kept; `retired` needs no more than which artifact it was."""
    yield from _without_outcome(values, phase, ("outcome_text", "completed_at"))
    for name in _ARTIFACT if phase == "stored" else ("artifact_pointer",):
        if name in values and values[name] is None:
            yield ReceiptFinding(name, f"is required when phase is {phase}")


def _without_outcome(values: Mapping[str, Any], phase: str, absent: Iterable[str]) -> Iterator[ReceiptFinding]:
    for name in ("status", "outcome_kind"):
        if values.get(name) not in {None, "NA"}:
            yield ReceiptFinding(name, f"must be NA when phase is {phase}")
    for name in absent:
        if values.get(name) is not None:
            yield ReceiptFinding(name, f"must be absent when phase is {phase}")


def _escalate(values: Mapping[str, Any]) -> Iterator[ReceiptFinding]:
    if values.get("escalation_class") == "NA":
        yield ReceiptFinding("escalation_class", "must be set when phase is escalate")
    for name in ("escalation_reason", "escalation_to"):
        if name in values and values[name] is None:
            yield ReceiptFinding(name, "is required when phase is escalate")
    target, recipient = values.get("escalation_to"), values.get("recipient_ai")
    if target is not None and recipient is not None and recipient != target:
        yield ReceiptFinding("recipient_ai", "must equal escalation_to when phase is escalate")


def _without_escalation(values: Mapping[str, Any], phase: str) -> Iterator[ReceiptFinding]:
    if values.get("escalation_class") not in {None, "NA"}:
        yield ReceiptFinding("escalation_class", f"must be NA when phase is {phase}")
    for name in ("escalation_reason", "escalation_to"):
        if values.get(name) is not None:
            yield ReceiptFinding(name, f"must be absent when phase is {phase}")
