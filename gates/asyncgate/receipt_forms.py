"""The receipts that AsyncGate emits (AG-07), as canonical forms with marks where only the statement knows the value.

A form is made and examined once, with a placeholder at every unknown; the statement, or `put` here, writes JSON values
in its place (`legivellum.receipts.templates`). The letters are the same in all forms:

    I receipt  N tenant  T task  O obligation  P principal  C cause
    A number of the lease  L lease  H holder  E its expiry  V evidence  W what it waits for  D depth
    F from whom  B by whom  R reason  K terms  X escalation target  Z time of completion  G claim  S document
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, Final

from asyncgate.lease import Claim, EscalationRequest
from asyncgate.task import EMITTER, LeaseTerms, Parking, Task
from legivellum.base.canonical_json import canonical
from legivellum.receipts.phase_rules import ReceiptFinding
from legivellum.receipts.templates import MARK, placeholders, template_of

_SAMPLE_ID: Final = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
_SAMPLE_TENANT: Final = "00000000-0000-0000-0000-000000000000"
_UNKNOWN: Final = placeholders(
    I=_SAMPLE_ID, N=_SAMPLE_TENANT, T="task", O="task", P="alice", C=_SAMPLE_ID, A=1, L=_SAMPLE_ID, H="worker",
    E="2027-01-01T00:00:00.000000Z", V=[], W=[], D=0, F="worker", B="alice", R=None, K={}, X="alice",
    Z="2027-01-01T00:00:00.000000Z", G=None, S={}, Q="code", U="summary", Y="parent",
)  # fmt: skip

_OPTIONAL: Final = {"parent_task_id": "Y", "task_type": "Q", "task_summary": "U"}

POISON_REASON: Final = "max_leases: the task was leased as often as it may be, and not returned"


def _common(phase: str, kind: str = "lifecycle") -> dict[str, Any]:
    return {
        "receipt_id": _UNKNOWN["I"],
        "tenant_id": _UNKNOWN["N"],
        "task_id": _UNKNOWN["T"],
        "obligation_id": _UNKNOWN["O"],
        "principal_ai": _UNKNOWN["P"],
        "caused_by_receipt_id": _UNKNOWN["C"],
        "kind": kind,
        "phase": phase,
    }


def _form(sent: Mapping[str, Any]) -> str | tuple[ReceiptFinding, ...]:
    return template_of(sent, tenant=_SAMPLE_TENANT, emitter=EMITTER)


def _fixed(sent: Mapping[str, Any]) -> str:
    form = _form(sent)
    if not isinstance(form, str):
        raise AssertionError(form)  # noqa: TRY004 - a form of ours that is no receipt
    return form


def put(form: str, **values: Any) -> str:
    """Write JSON values at marks. `canonical` escapes control characters, so no value brings a mark of its own."""
    for letter, value in values.items():
        form = form.replace(MARK + letter, _text(value) if type(value) is str else canonical(value).decode())
    return form


@lru_cache(maxsize=4_096)
def _text(value: str) -> str:
    """Names come again in every receipt of a batch."""
    return canonical(value).decode()


@lru_cache(maxsize=256)
def _limits(max_leases: int, terms: LeaseTerms) -> str:
    """Most tasks of a minter have the same."""
    return canonical({
        "max_leases": max_leases,
        "max_lifetime_seconds": terms.max_lifetime_seconds,
        "max_renewals": terms.max_renewals,
        "max_ttl_seconds": terms.max_ttl_seconds,
        "ttl_seconds": terms.ttl_seconds,
    }).decode()  # fmt: skip


@cache
def _accepted(optional: tuple[str, ...]) -> str:
    """The acknowledgement, whose optional members are there or not: a mark cannot be left out."""
    return _fixed({
        **_common("accepted", "obligation"),
        **{name: _UNKNOWN[_OPTIONAL[name]] for name in optional},
        "body": _UNKNOWN["S"],
    })  # fmt: skip


@cache
def _queued() -> str:
    members = {"depth": "D", "evidence": "V", "minter": "B", "terms": "K", "waits_for": "W"}
    return _fixed({**_common("queued"), "body": {name: _UNKNOWN[letter] for name, letter in members.items()}})


def accepted_form(task: Task) -> str:
    """Unknown: the receipt's id and its cause."""
    optional = {"parent_task_id": task.parent_task_id, "task_type": task.task_type, "task_summary": task.task_summary}
    given = {name: value for name, value in optional.items() if value is not None}
    form = put(_named(_accepted(tuple(given)), task), **{_OPTIONAL[name]: value for name, value in given.items()})
    return form.replace(MARK + "S", task.document)


def summary_findings(summary: str) -> tuple[ReceiptFinding, ...]:
    """What keeps a summary out of the acknowledgement: `accepted_form` puts it there without examining the whole."""
    form = _form({**_common("accepted", "obligation"), "task_summary": summary})
    return () if isinstance(form, str) else form


def queued_form(parking: Parking) -> str:
    """The first `queued` of a task says what else a rebuild needs. Unknown: id, cause, depth, evidence, needs."""
    task = parking.task
    return put(_named(_queued(), task), B=parking.minter).replace(MARK + "K", _limits(task.max_leases, task.terms))


def _named(form: str, task: Task) -> str:
    return put(form, N=str(task.tenant), T=task.task_id, O=task.obligation_id, P=task.principal_ai)


@cache
def lease_issued() -> str:
    return _fixed({
        **_common("lease_issued"),
        "recipient_ai": _UNKNOWN["H"],
        "attempt": _UNKNOWN["A"],
        "body": {"evidence": _UNKNOWN["V"], "expires_at": _UNKNOWN["E"], "lease_id": _UNKNOWN["L"]},
    })  # fmt: skip


@cache
def reassigned() -> str:
    return _fixed(
        {**_common("reassigned"), "recipient_ai": _UNKNOWN["H"], "body": {"from": _UNKNOWN["F"], "to": _UNKNOWN["H"]}}
    )


@cache
def expired() -> str:
    return _fixed(
        {**_common("expired"), "attempt": _UNKNOWN["A"], "body": {"holder": _UNKNOWN["H"], "lease_id": _UNKNOWN["L"]}}
    )


@cache
def released() -> str:
    """`queued` again."""
    body = {"holder": _UNKNOWN["H"], "lease_id": _UNKNOWN["L"], "reason": _UNKNOWN["R"]}
    return _fixed({**_common("queued"), "attempt": _UNKNOWN["A"], "body": body})


@cache
def revoked(what: str) -> str:
    """`what`: `lease` or `task`."""
    return _fixed({**_common("revoked"), "body": {"by": _UNKNOWN["B"], "reason": _UNKNOWN["R"], "what": what}})


@cache
def canceled() -> str:
    """The end of a task that is revoked."""
    return _fixed({
        **_common("complete", "obligation"), "status": "canceled", "outcome_kind": "none", "completed_at": _UNKNOWN["Z"]
    })  # fmt: skip


@cache
def poisoned() -> str:
    return _fixed({
        **_common("escalate", "obligation"),
        "escalation_class": "other",
        "escalation_reason": POISON_REASON,
        "escalation_to": _UNKNOWN["X"],
    })  # fmt: skip


def claim_form(claim: Claim) -> str | tuple[ReceiptFinding, ...]:
    """The `complete` receipt of a claim, or what is wrong with the claim: its fields, and whose word it is (D-26)."""
    if claim.form is not None:
        return claim.form
    fields = dict(claim.fields)
    body = {"claim": fields.pop("body", None), "claimed_by": claim.holder, "lease_number": _UNKNOWN["A"]}
    ours = {"tenant_id": str(claim.tenant), "completed_at": _UNKNOWN["Z"], "body": body}
    return _form({**fields, **_common("complete", "obligation"), **ours})


def escalation_form(request: EscalationRequest) -> str | tuple[ReceiptFinding, ...]:
    return _form({
        **_common("escalate", "obligation"),
        "tenant_id": str(request.tenant),
        "escalation_class": request.escalation_class,
        "escalation_reason": request.reason,
        "escalation_to": request.to,
        "body": {"escalated_by": request.holder, "lease_number": _UNKNOWN["A"]},
    })  # fmt: skip
