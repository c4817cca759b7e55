"""The receipt of one decision (IG-08), and a decision read back from its receipt.

The receipt holds everything that the decision was made of but the payload, of which it has the digest. So whoever has
the ledger can decide again and compare: `interrogate replay`, `explain` and the answer to a repeated request need
nothing else. All numbers are integers, so that the canonical form has one spelling.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from interrogate.decision import LONGEST_WINDOW, AdmissionOutcome, AdmittedTask, Decision, ReasonCode
from interrogate.envelope import NOT_SENT, Causality, Envelope, value_or_none
from interrogate.observation import Observed, ObservedLease, ParentTask, Requester, leased_parent
from interrogate.ruleset import Ruleset
from interrogate.tool_call import CalledTool, ToolCall
from legivellum.receipts.receipt import Receipt, examine

EMITTER: Final = "svc:interrogate"
VERSION: Final = 1
UNKNOWN_KIND: Final = "unknown"
LONGEST_LEASE_ID: Final = 200


class ReceiptInvalid(ValueError):  # noqa: N818 - what the receipt is
    """The receipt of a decision breaks a rule of receipts: a bug of this gate, and nothing may be answered."""


def admission_receipt(
    envelope: Envelope,
    requester: Requester,
    decision: Decision,
    observed: Observed,
    ruleset: Ruleset | None,
    *,
    tenant: UUID,
    receipt_id: str,
    policy_revision: int,
    shadow: Decision | None = None,
    tool_call: ToolCall | None = None,
) -> str:
    """The canonical receipt. Raises ReceiptInvalid.

    `policy_revision`: of the ruleset, or of the listing in which the tenant has no such profile.
    """
    allowed = decision.outcome is AdmissionOutcome.ALLOW
    lease = observed.lease
    receipt = examine(
        {
            "receipt_id": receipt_id,
            "kind": "admission",
            "phase": "accepted" if allowed else "rejected",
            "task_id": _filed_under(envelope, decision, observed, receipt_id),
            "parent_task_id": decision.parent_task_id if allowed and envelope.begins else None,
            "caused_by_receipt_id": _verified_cause(envelope, decision),
            "principal_ai": lease.principal_ai if lease is not None else requester.principal_key,
            "task_type": value_or_none(envelope.payload_kind) or UNKNOWN_KIND,
            "body": {
                "v": VERSION,
                **_decision_record(decision),
                **_domain_record(envelope, ruleset, policy_revision),
                "caller": {"principal_key": requester.principal_key, "type": requester.type},
                "lease": _lease_record(requester, lease),
                "claimed": _claims_record(envelope, requester, tool_call),
                "shadow": _shadow_record(ruleset, shadow),
                "observed": _observation_record(observed),
                # Only a call has it: the receipts of all other requests are as they always were.
                **({} if tool_call is None else {"tool": tool_call.called(ruleset).record()}),
            },
        },
        tenant=str(tenant),
        emitter=EMITTER,
    )
    if not isinstance(receipt, Receipt):
        raise ReceiptInvalid("; ".join(map(str, receipt)))
    return receipt.form.decode()


def admitted_task(envelope: Envelope, decision: Decision, receipt_id: str) -> AdmittedTask | None:
    """What an admission adds to its tree; None for DENY, and for a request outside of every tree."""
    if decision.outcome is AdmissionOutcome.DENY or decision.root_task_id is None or decision.depth is None:
        return None
    return AdmittedTask(
        task_id=decision.task_id or receipt_id,
        root_task_id=decision.root_task_id,
        parent_task_id=decision.parent_task_id,
        depth=decision.depth,
        budget=decision.budget_remaining,
        capability_id=envelope.capability_id,
        recent=decision.recent,
        begins=envelope.begins,
    )


def _filed_under(envelope: Envelope, decision: Decision, observed: Observed, receipt_id: str) -> str:
    """The task of the receipt.

    The ledger settles the root of a task at the first receipt that names it. So only an admission names the task that
    it begins; a refusal, which may name anything, is filed under the verified parent, or under its own id.
    """
    if decision.outcome is AdmissionOutcome.ALLOW and envelope.begins:
        return decision.task_id or receipt_id
    if envelope.placed_by_lease and observed.lease is not None:
        # Live leases are verified; their task may be one that nobody asked this gate to admit.
        return observed.lease.task_id
    return decision.parent_task_id or receipt_id


def _verified_cause(envelope: Envelope, decision: Decision) -> str | None:
    if decision.parent_task_id is None:
        return None
    return value_or_none(envelope.causality.caused_by_receipt_id)


def _decision_record(decision: Decision) -> dict[str, Any]:
    return {
        "outcome": str(decision.outcome),
        "reason_code": _text(decision.reason_code),
        "detail": decision.detail,
        "rule": decision.rule,
        "targets": list(decision.targets),
        "rules": dict(decision.rules),
        "derived": {
            "root_task_id": decision.root_task_id,
            "depth": decision.depth,
            "budget": decision.budget,
            "budget_remaining": decision.budget_remaining,
            "retry_after_ms": decision.retry_after_ms,
        },
    }


def _domain_record(envelope: Envelope, ruleset: Ruleset | None, policy_revision: int) -> dict[str, Any]:
    return {
        "surface_id": envelope.surface_id,
        "policy_profile_id": envelope.policy_profile_id,
        "policy_hash": ruleset.policy_hash if ruleset is not None else None,
        "policy_revision": policy_revision,
        "payload_kind": value_or_none(envelope.payload_kind),
        "capability_id": envelope.capability_id,
        "payload_sha256": envelope.payload_sha256,
        "payload_bytes": len(envelope.payload_bytes),
    }


def _claims_record(envelope: Envelope, requester: Requester, tool_call: ToolCall | None) -> dict[str, Any]:
    causality = envelope.causality.as_sent
    return {
        "causality": dict(causality) if causality is not None else None,
        "artifact_bytes": envelope.artifact_bytes,
        "target": envelope.target,
        # Not the tenant that was named: receipts hold no name of another one.
        "own_tenant": requester.is_tenants,
        # What a repeated request is compared with: the counters can be derived anew with it.
        "envelope_sha256": envelope.digest.hex(),
        **({} if tool_call is None else {"client": tool_call.claimed_client}),
    }


def _shadow_record(ruleset: Ruleset | None, shadow: Decision | None) -> dict[str, Any] | None:
    if ruleset is None or ruleset.shadow is None or shadow is None:
        return None
    return {
        "policy_hash": ruleset.shadow.policy_hash,
        "outcome": str(shadow.outcome),
        "reason_code": _text(shadow.reason_code),
    }


def _text(reason_code: ReasonCode | None) -> str | None:
    return None if reason_code is None else str(reason_code)


def _lease_record(requester: Requester, lease: ObservedLease | None) -> dict[str, Any] | None:
    """A lease that was shown and is not live has an id and nothing else."""
    if lease is not None:
        return {
            "lease_id": lease.lease_id,
            "task_id": lease.task_id,
            "number": lease.number,
            "authority": dict(lease.authority),
        }
    if requester.lease_id is None:
        return None
    # It is whatever somebody wrote into a header.
    is_kept = requester.lease_id.isprintable() and len(requester.lease_id) <= LONGEST_LEASE_ID
    return {
        "lease_id": requester.lease_id if is_kept else "",
        "task_id": None,
        "number": None,
        "authority": None,
    }


def _observation_record(observed: Observed) -> dict[str, Any]:
    parent = observed.parent
    return {
        "at": observed.at,
        "descendants": observed.descendants,
        "repeats": observed.repeats,
        "parent": None
        if parent is None
        else {
            "root_task_id": parent.root_task_id,
            "depth": parent.depth,
            "budget": parent.budget,
            "recent": list(parent.recent),
            "admitted_by": parent.admitted_by,
            "custodian": parent.custodian,
            "open": parent.open,
        },
        "cause": observed.cause_task_id,
        "task_known": {"root_task_id": observed.task_root_id, "admitted": observed.task_admitted}
        if observed.task_admitted or observed.task_root_id is not None
        else None,
        "rate_tat": list(observed.rate_tats),
        "spawned": observed.lease.spawned if observed.lease is not None else None,
    }


# --- back


@dataclass(frozen=True, slots=True)
class RecordedAdmission:
    """A decision as its receipt tells it, with what it was made of."""

    receipt_id: str
    task_id: str
    envelope: Envelope
    """Without the payload: only its digest and size were kept."""
    requester: Requester
    observed: Observed
    policy_hash: str | None
    policy_revision: int
    decision: Decision
    """As recorded. `recent` is derived; `rate_tats` are not kept."""
    shadow: Mapping[str, Any] | None
    payload_bytes: int
    """The size of the payload, whose bytes were not kept."""
    tool: CalledTool | None = None
    """Of a tool call."""

    @property
    def rule_results(self) -> Mapping[str, bool]:
        """What the CEL rules gave: to be taken as recorded where the payload is not at hand."""
        return self.decision.rules

    @property
    def admitted(self) -> AdmittedTask | None:
        return admitted_task(self.envelope, self.decision, self.receipt_id)


def made_admission(
    envelope: Envelope,
    requester: Requester,
    decision: Decision,
    observed: Observed,
    ruleset: Ruleset | None,
    *,
    receipt_id: str,
    policy_revision: int,
    tool_call: ToolCall | None = None,
) -> RecordedAdmission:
    """What `read_admission` gives of the receipt of a decision that was just made, without reading it."""
    return RecordedAdmission(
        receipt_id=receipt_id,
        task_id=_filed_under(envelope, decision, observed, receipt_id),
        envelope=envelope,
        requester=requester,
        observed=observed,
        policy_hash=None if ruleset is None else ruleset.policy_hash,
        policy_revision=policy_revision,
        decision=decision,
        shadow=None,
        payload_bytes=len(envelope.payload_bytes),
        tool=None if tool_call is None else tool_call.called(ruleset),
    )


def read_admission(form: str | bytes) -> RecordedAdmission:
    """The decision that a receipt of kind `admission`, phase `accepted` or `rejected` records.

    Raises KeyError, TypeError or ValueError for anything else.
    """
    receipt = json.loads(form)
    body = receipt["body"]
    tool = CalledTool(**body["tool"]) if "tool" in body else None
    envelope = _envelope_of(receipt, body, tool)
    observed = _observed_of(receipt, body)
    lease = body["lease"]
    return RecordedAdmission(
        receipt_id=receipt["receipt_id"],
        task_id=receipt["task_id"],
        envelope=envelope,
        requester=Requester(
            principal_key=body["caller"]["principal_key"],
            type=body["caller"]["type"],
            is_tenants=body["claimed"]["own_tenant"],
            lease_id=lease["lease_id"] if lease is not None else None,
        ),
        observed=observed,
        policy_hash=body["policy_hash"],
        policy_revision=body["policy_revision"],
        decision=_decision_of(body, envelope, observed),
        shadow=body["shadow"],
        payload_bytes=body["payload_bytes"],
        tool=tool,
    )


def _envelope_of(receipt: Mapping[str, Any], body: Mapping[str, Any], tool: CalledTool | None) -> Envelope:
    claimed, causality = body["claimed"], body["claimed"]["causality"]
    kind = body["payload_kind"]
    return Envelope(
        tenant_id=receipt["tenant_id"],
        surface_id=body["surface_id"],
        policy_profile_id=body["policy_profile_id"],
        payload_kind=NOT_SENT if kind is None else kind,
        # Every payload has at least one byte.
        payload=None if body["payload_bytes"] else NOT_SENT,
        payload_bytes=b"",
        payload_sha256=body["payload_sha256"],
        causality=Causality() if causality is None else Causality(**causality, as_sent=causality),
        target=claimed["target"],
        artifact_bytes=claimed["artifact_bytes"],
        tool=None if tool is None else tool.lease_name,
        digest=bytes.fromhex(claimed["envelope_sha256"]),
    )


def _observed_of(receipt: Mapping[str, Any], body: Mapping[str, Any]) -> Observed:
    record, lease = body["observed"], body["lease"]
    parent, known = record["parent"], record["task_known"] or {"root_task_id": None, "admitted": False}
    return Observed(
        at=record["at"],
        descendants=record["descendants"],
        repeats=record["repeats"],
        parent=None if parent is None else ParentTask(**parent | {"recent": tuple(parent["recent"])}),
        cause_task_id=record["cause"],
        task_root_id=known["root_task_id"],
        task_admitted=known["admitted"],
        rate_tats=tuple(record["rate_tat"]),
        lease=None
        if lease is None or lease["task_id"] is None
        else ObservedLease(**lease, principal_ai=receipt["principal_ai"], spawned=record["spawned"]),
    )


def _parent_of(envelope: Envelope, observed: Observed) -> str | None:
    return leased_parent(envelope, observed) or value_or_none(envelope.causality.parent_task_id)


def _decision_of(body: Mapping[str, Any], envelope: Envelope, observed: Observed) -> Decision:
    outcome, derived, parent = AdmissionOutcome(body["outcome"]), body["derived"], observed.parent
    begun = outcome is AdmissionOutcome.ALLOW and envelope.begins
    in_tree = derived["root_task_id"] is not None
    recent: tuple[str, ...] = ()
    if begun and envelope.capability_id is not None:
        recent = (envelope.capability_id, *(parent.recent[: LONGEST_WINDOW - 1] if parent is not None else ()))
    return Decision(
        outcome=outcome,
        reason_code=None if body["reason_code"] is None else ReasonCode(body["reason_code"]),
        detail=body["detail"],
        rule=body["rule"],
        root_task_id=derived["root_task_id"],
        parent_task_id=_parent_of(envelope, observed) if in_tree else None,
        task_id=envelope.admitted_task_id if begun else None,
        depth=derived["depth"],
        budget=derived["budget"],
        budget_remaining=derived["budget_remaining"],
        recent=recent,
        spawns_under_lease=begun and observed.lease is not None,
        rules=body["rules"],
        targets=tuple(body["targets"]),
        retry_after_ms=derived["retry_after_ms"],
    )


COMPARED: Final = (
    "outcome",
    "reason_code",
    "detail",
    "rule",
    "root_task_id",
    "parent_task_id",
    "task_id",
    "depth",
    "budget",
    "budget_remaining",
    "spawns_under_lease",
    "rules",
    "targets",
    "retry_after_ms",
)
"""The members of a decision that a receipt records or that follow from it."""


def differences(recorded: Decision, decided: Decision) -> tuple[str, ...]:
    """The names of the members in which a decision is not the recorded one; none: it is the same."""
    return tuple(name for name in COMPARED if getattr(recorded, name) != getattr(decided, name))
