"""May this request pass? The thirteen rules in their order (IG-02); the first that fails is the reason.

Everything is a function of its arguments: no clock, no database, no memory of an earlier call. So the same code
decides, explains, tries a policy out and proves later, from receipts, that a decision was right (INV-105).

What a request claims about its place in its tree is never believed. It is derived from the parent that was admitted and
compared (IG-04); a claim that disagrees is a denial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from interrogate.decision import LONGEST_DETAIL, LONGEST_WINDOW, AdmissionOutcome, Decision, ReasonCode, RuleResult
from interrogate.envelope import NOT_SENT, TOOL_CALL, Causality, Envelope, NotSent
from interrogate.observation import Observed, ParentTask, Requester, leased_parent
from interrogate.ruleset import GlobSet, Ruleset, SurfaceRules
from metagate_crds.rules.cel_rules import CelVariables, RuleFailure

BEGINS_TREES: Final = "principal"
"""The type that may begin a tree anywhere; any other only where `mayBegin` names it."""
NEEDS_LEASE: Final = frozenset({"worker", "service", "component"})
"""The types that act only under a lease where `leaseAuthority` is Required; the others mint by their type (INV-122)."""


class Refusal(NamedTuple):
    reason_code: ReasonCode
    detail: str
    retry_after_ms: int | None = None


@dataclass(slots=True)
class _Case:
    """One request with everything that the rules compare."""

    envelope: Envelope
    causality: Causality
    requester: Requester
    ruleset: Ruleset | None
    surface: SurfaceRules | None
    observed: Observed
    begins: bool
    rule_results: Mapping[str, bool] | None
    root_task_id: str | None
    parent_task_id: str | None
    depth: int | None
    budget: int | None
    capability_id: str | None
    rate_tats: tuple[int, ...] | None = None
    """Set by the rule of rates: a token is spent by whatever passes it, also if a later rule denies."""
    rules: Mapping[str, bool] | None = None
    failed_rules: tuple[str, ...] = ()

    @property
    def parent(self) -> ParentTask | None:
        return self.observed.parent if self.parent_task_id is not None else None

    @property
    def loses_lease(self) -> bool:
        return self.requester.lease_id is not None and self.observed.lease is None


def decide(
    envelope: Envelope,
    requester: Requester,
    ruleset: Ruleset | None,
    observed: Observed,
    *,
    rule_results: Mapping[str, bool] | None = None,
) -> Decision:
    """ALLOW, or DENY with the first rule that fails.

    `ruleset`: None where the tenant of the requester has no such profile. `observed.rate_tats` stand in the order of
    `Ruleset.rate_keys`. `rule_results`: what CEL rules gave when the payload was at hand. They are not run again, and a
    rule that reads the payload and is not among them does not hold.
    """
    case = _case_of(envelope, requester, ruleset, observed, rule_results)
    for rule in RULES:
        refusal = rule.check(case)
        if refusal is not None:
            return _denied(case, rule.number, refusal)
    return _allowed(case)


def explain(
    envelope: Envelope,
    requester: Requester,
    ruleset: Ruleset | None,
    observed: Observed,
    *,
    rule_results: Mapping[str, bool] | None = None,
) -> list[RuleResult]:
    """Every rule in its order, also behind the first that fails. The first failed one is the reason of `decide`.

    `passed` is None where a rule cannot be judged, because an earlier one left nothing to compare with, and where its
    numbers belong to a tree that the requester has not been shown to stand in.
    """
    case = _case_of(envelope, requester, ruleset, observed, rule_results)
    results = []
    in_tree = False
    for rule in RULES:
        if (rule.needs_surface and case.surface is None) or (rule.needs_tree and not in_tree):
            results.append(RuleResult(rule.number, rule.reason_code, None))
            continue
        refusal = rule.check(case)
        if rule.number == _CAUSALITY_RULE:
            in_tree = refusal is None and case.depth is not None and not _rests_on_lost_lease(case)
        limit, actual = rule.compare(case)
        reason = rule.reason_code if refusal is None else refusal.reason_code
        results.append(RuleResult(rule.number, reason, refusal is None, limit, actual))
    return results


def decide_shadow(
    envelope: Envelope,
    requester: Requester,
    ruleset: Ruleset,
    observed: Observed,
    *,
    rule_results: Mapping[str, bool] | None = None,
) -> Decision | None:
    """What the shadow of a ruleset would say about the same observation; None where there is no shadow."""
    if ruleset.shadow is None:
        return None
    return decide_under(ruleset.shadow, envelope, requester, ruleset, observed, rule_results=rule_results)


def decide_under(
    other: Ruleset,
    envelope: Envelope,
    requester: Requester,
    ruleset: Ruleset | None,
    observed: Observed,
    *,
    rule_results: Mapping[str, bool] | None = None,
) -> Decision:
    """What another ruleset would say about an observation that was made for `ruleset`.

    Rates of the same name are compared with the same arrival times; what only the other limits was never counted. Where
    the payload is gone (`rule_results` are given), `unjudged_rules` are taken to hold.
    """
    tats = dict(zip(_rate_names(ruleset, envelope), observed.rate_tats, strict=False))
    moved = tuple(tats.get(name, 0) for name in _rate_names(other, envelope))
    if rule_results is not None:
        unjudged = unjudged_rules(other, ruleset)
        # Also a rule that was not reached then, because an earlier one denied, cannot be judged.
        rule_results = {
            rule.name: rule.name in unjudged or rule_results.get(rule.name, True)
            for rule in other.rules
            if rule.reads_payload
        }
    return decide(envelope, requester, other, replace(observed, rate_tats=moved), rule_results=rule_results)


def unjudged_rules(other: Ruleset, ruleset: Ruleset | None) -> set[str]:
    """The rules of another ruleset that read the payload and were not evaluated under `ruleset`, as they stand there.

    Without the payload nobody can say whether they would have held.
    """
    evaluated = {(rule.name, rule.source) for rule in ruleset.rules} if ruleset is not None else set()
    return {rule.name for rule in other.rules if rule.reads_payload and (rule.name, rule.source) not in evaluated}


def _rate_names(ruleset: Ruleset | None, envelope: Envelope) -> list[str]:
    surface = ruleset.surfaces.get(envelope.surface_id) if ruleset is not None else None
    return [] if surface is None else [rate.name for rate in surface.rates_of(envelope.capability_id)]


def _case_of(
    envelope: Envelope,
    requester: Requester,
    ruleset: Ruleset | None,
    observed: Observed,
    rule_results: Mapping[str, bool] | None,
) -> _Case:
    causality = envelope.causality
    claimed, sent_parent = causality.recursion_budget_remaining, causality.parent_task_id
    parent_task_id = leased_parent(envelope, observed) if sent_parent is NOT_SENT else sent_parent
    root: str | NotSent | None = None
    depth = budget = None
    if parent_task_id is not None and observed.parent is not None:
        parent = observed.parent
        root, depth, budget = parent.root_task_id, parent.depth + 1, parent.budget
    elif sent_parent is None:
        root, depth = causality.root_task_id, 0
        budget = ruleset.initial_budget if ruleset is not None else None
    if claimed is not NOT_SENT:
        budget = claimed
    capability_id = causality.capability_id
    return _Case(
        envelope,
        causality,
        requester,
        ruleset,
        ruleset.surfaces.get(envelope.surface_id) if ruleset is not None else None,
        observed,
        envelope.begins,
        rule_results,
        None if root is NOT_SENT else root,
        parent_task_id,
        depth,
        budget,
        None if capability_id is NOT_SENT else capability_id,
    )


# --- the rules: each gives the reason why it denies, or None


def _missing_field(case: _Case) -> Refusal | None:
    envelope, causality = case.envelope, case.causality
    if envelope.payload_kind is NOT_SENT:
        return _missing("payload_kind")
    if envelope.payload is NOT_SENT:
        return _missing("payload")
    if not case.begins:
        return None
    for name in _REQUIRED:
        if getattr(causality, name) is NOT_SENT:
            return _missing(f"causality.{name}")
    if case.budget is None and case.ruleset is not None and case.ruleset.budget_required:
        return Refusal(
            ReasonCode.MISSING_FIELD,
            "causality.recursion_budget_remaining is required by the profile, and nothing is inherited",
        )
    return None


_REQUIRED: Final = ("root_task_id", "parent_task_id", "caused_by_receipt_id", "spawn_depth", "capability_id")
"""What a request that can cause further work must say about its lineage (INV-099)."""


def _missing(name: str) -> Refusal:
    return Refusal(ReasonCode.MISSING_FIELD, f"{name} is required")


def _domain(case: _Case) -> Refusal | None:
    if case.surface is not None:
        return None
    if case.ruleset is None:
        return Refusal(ReasonCode.POLICY_NOT_FOUND, "the tenant has no such policy profile")
    return Refusal(ReasonCode.SURFACE_NOT_FOUND, "the policy profile has no such surface")


def _causality(case: _Case) -> Refusal | None:
    causality = case.causality
    parent_task_id = causality.parent_task_id
    if parent_task_id is NOT_SENT:
        claim = _lineage_claim(causality)
        return None if claim is None else _mismatch(f"{claim} is given without parent_task_id")
    cause = causality.caused_by_receipt_id
    if cause is not NOT_SENT and (cause is None) is not (parent_task_id is None):
        return _mismatch("parent_task_id and caused_by_receipt_id must both be null or neither")
    problem = _root_problem(case) if parent_task_id is None else _child_problem(case)
    return _mismatch(problem) if problem is not None else None


def _lineage_claim(causality: Causality) -> str | None:
    """The first claim that only a parent could confirm."""
    for name in ("root_task_id", "caused_by_receipt_id", "spawn_depth", "recursion_budget_remaining"):
        # A null claims nothing here.
        if getattr(causality, name) not in {NOT_SENT, None}:
            return name
    return None


def _mismatch(detail: str) -> Refusal:
    return Refusal(ReasonCode.CAUSALITY_MISMATCH, detail)


def _root_problem(case: _Case) -> str | None:
    causality, requester, surface = case.causality, case.requester, case.surface
    if case.root_task_id is None:
        return "parent_task_id is null, which begins a tree, and root_task_id is not given"
    if (
        requester.type != BEGINS_TREES
        and surface is not None
        and not surface.may_begin.matches(requester.principal_key)
    ):
        return "this principal may not begin a tree at this surface"
    if causality.task_id is not NOT_SENT and causality.task_id != causality.root_task_id and case.begins:
        return "task_id of a root must be its root_task_id"
    initial = case.ruleset.initial_budget if case.ruleset is not None else None
    return _claim_problem(case, 0, initial) or _task_problem(case)


def _child_problem(case: _Case) -> str | None:
    causality, parent = case.causality, case.parent
    if parent is None:
        return "parent_task_id names no admitted task"
    if causality.root_task_id is not NOT_SENT and causality.root_task_id != parent.root_task_id:
        return "root_task_id is not the root of the parent"
    if causality.caused_by_receipt_id is not NOT_SENT and case.observed.cause_task_id != causality.parent_task_id:
        return "caused_by_receipt_id names no receipt of the parent's task"
    if case.surface is not None and case.surface.checks_custody and not _stands_in(case, parent):
        return "the parent is not in the caller's custody, nor leased to the caller"
    problem = _claim_problem(case, parent.depth + 1, parent.budget)
    if problem is not None and _rests_on_lost_lease(case):
        problem = "a claim disagrees with what is derived"  # the numbers of a tree that is perhaps another's
    return problem or _task_problem(case)


def _stands_in(case: _Case, parent: ParentTask) -> bool:
    """Whether the requester may add to the parent: else a shallower parent could be named than the real one."""
    return _has_custody(case, parent) or case.loses_lease


def _has_custody(case: _Case, parent: ParentTask) -> bool:
    if parent.open and parent.custodian == case.requester.principal_key:
        return True
    lease = case.observed.lease
    return lease is not None and lease.task_id == case.parent_task_id


def _rests_on_lost_lease(case: _Case) -> bool:
    """Whether only a lease that is not live could show that the requester stands in the tree.

    Such a request is left to rule 12, which denies it as LEASE_LOST and so says what really happened; until then it is
    treated as one whose lineage is not verified.
    """
    parent = case.parent
    return case.loses_lease and parent is not None and not _has_custody(case, parent)


def _claim_problem(case: _Case, depth: int, budget: int | None) -> str | None:
    claimed = case.causality.spawn_depth
    if claimed is not NOT_SENT and claimed is not None and claimed != depth:
        return f"spawn_depth is {claimed}, derived is {depth}"
    fuel = case.causality.recursion_budget_remaining
    # Without a budget above it, a claim can only restrain (9, Roots).
    if fuel is not NOT_SENT and budget is not None and fuel > budget:
        return f"recursion_budget_remaining is {fuel}, derived is {budget}"
    return None


def _task_problem(case: _Case) -> str | None:
    observed = case.observed
    if observed.task_admitted and case.begins:
        return "the task was admitted before by another request"
    if observed.task_root_id is not None and observed.task_root_id != case.root_task_id:
        return "the ledger knows the task under another root"
    return None


def _authorization(case: _Case) -> Refusal | None:
    requester, surface = case.requester, case.surface
    if not requester.is_tenants:
        return Refusal(ReasonCode.UNAUTHORIZED, "tenant_id is not the tenant of the credential")
    if requester.type == "observer":
        return Refusal(ReasonCode.UNAUTHORIZED, "an observer makes no requests")
    if surface is not None and not surface.principals.matches(requester.principal_key):
        return Refusal(ReasonCode.UNAUTHORIZED, "the surface does not admit this principal")
    return None


def _rates(case: _Case) -> Refusal | None:
    """GCRA over every rate that matches: all are spent, or none (IG-11)."""
    surface = case.surface
    if surface is None or not surface.rates:
        case.rate_tats = ()
        return None
    now = case.observed.at
    tats, wait = [], 0
    # Without the time of every rate nothing can be admitted: a missing one must not count as an unused rate.
    for rate, tat in zip(surface.rates_of(case.capability_id), case.observed.rate_tats, strict=True):
        arrival = max(tat, now) + rate.interval
        tats.append(arrival)
        wait = max(wait, arrival - now - rate.tolerance)
    if wait > 0:
        return Refusal(ReasonCode.RATE_LIMITED, "too many requests of this principal", -(-wait // 1000))
    case.rate_tats = tuple(tats)
    return None


def _budget(case: _Case) -> Refusal | None:
    if case.begins and case.budget is not None and case.budget <= 0:
        return Refusal(ReasonCode.BUDGET_EXHAUSTED, f"the remaining budget is {case.budget}")
    return None


def _depth(case: _Case) -> Refusal | None:
    ruleset, depth = case.ruleset, case.depth
    if case.begins and ruleset is not None and depth is not None and depth > ruleset.max_depth:
        return Refusal(ReasonCode.DEPTH_EXCEEDED, f"depth {depth}, at most {ruleset.max_depth}")
    return None


def _descendants(case: _Case) -> Refusal | None:
    limit = case.ruleset.max_descendants if case.ruleset is not None else None
    # A root is no descendant of itself.
    if limit is not None and case.begins and case.depth and case.observed.descendants >= limit:
        return Refusal(
            ReasonCode.DESCENDANTS_EXCEEDED,
            f"{case.observed.descendants} tasks below the root were admitted, at most {limit}",
        )
    return None


def _repeats(case: _Case) -> Refusal | None:
    limit = case.ruleset.max_repeats if case.ruleset is not None else None
    if (
        limit is not None
        and case.root_task_id is not None
        and case.capability_id is not None
        and case.observed.repeats >= limit
    ):
        return Refusal(
            ReasonCode.REPEATS_EXCEEDED,
            f"the capability was admitted {case.observed.repeats} times under the root, at most {limit}",
        )
    return None


def _window(case: _Case) -> Refusal | None:
    ruleset, parent = case.ruleset, case.parent
    if ruleset is None or not ruleset.window_size or parent is None or not case.begins:
        return None
    count = _occurrences(case)
    if count > ruleset.window_repeats:
        return Refusal(
            ReasonCode.ANCESTOR_WINDOW,
            f"the capability occurs {count} times among the nearest {ruleset.window_size} ancestors,"
            f" at most {ruleset.window_repeats}",
        )
    return None


def _occurrences(case: _Case) -> int:
    ruleset, parent = case.ruleset, case.parent
    if ruleset is None or parent is None or case.capability_id is None:
        return 0
    return parent.recent[: ruleset.window_size].count(case.capability_id)


def _capability(case: _Case) -> Refusal | None:
    surface, capability_id = case.surface, case.capability_id
    if capability_id is None:
        # A lease or a query need not name one; a tool call is nothing without.
        if case.envelope.payload_kind == TOOL_CALL:
            return Refusal(ReasonCode.CAPABILITY_DENIED, "a tool call names a capability")
        return None
    if surface is None:
        return None
    if surface.denied_capabilities.matches(capability_id):
        return Refusal(ReasonCode.CAPABILITY_DENIED, "the surface denies this capability")
    if not surface.allowed_capabilities.matches(capability_id):
        return Refusal(ReasonCode.CAPABILITY_DENIED, "the surface does not allow this capability")
    return None


def _lease(case: _Case) -> Refusal | None:
    if case.loses_lease:
        return Refusal(ReasonCode.LEASE_LOST, "the lease is not, or no longer, live for this caller")
    problem = _spawn_problem(case) or _target_problem(case) or _lease_problem(case)
    return None if problem is None else Refusal(ReasonCode.LEASE_AUTHORITY, problem)


def _spawn_problem(case: _Case) -> str | None:
    ruleset, requester = case.ruleset, case.requester
    if ruleset is None:
        return None
    if case.begins and not ruleset.can_spawn:
        return "the profile admits no request that can cause further work"
    if (
        ruleset.lease_required
        and case.observed.lease is None
        and requester.type in NEEDS_LEASE
        and case.envelope.payload_kind != "query"
    ):
        return f"a {requester.type} acts only under a lease"
    return None


def _target_problem(case: _Case) -> str | None:
    target, ruleset, surface = case.envelope.target, case.ruleset, case.surface
    if target is None or ruleset is None or surface is None:
        return None
    if target not in surface.targets:
        return "the surface has no such target"
    if ruleset.allowed_targets is not None and not ruleset.allowed_targets.matches(target):
        return "the profile does not allow this target"
    return None


def _lease_problem(case: _Case) -> str | None:
    """Under a lease, authority is the lease's: what it does not grant is denied (IG-05)."""
    lease = case.observed.lease
    if lease is None:
        return None
    if case.parent_task_id is not None and case.parent_task_id != lease.task_id:
        return "the parent is not the task of the lease"
    authority = lease.authority
    if case.begins:
        most, deepest = _granted_number(authority.get("spawn"), "max"), _granted_number(authority, "maxDepth")
        if lease.spawned >= most:
            return f"{lease.spawned} requests were admitted under the lease, it grants {max(most, 0)}"
        if case.depth is not None and case.depth > deepest:
            return f"depth {case.depth}, the lease grants no depth" + (f" above {deepest}" if deepest >= 0 else "")
    elif case.envelope.payload_kind == TOOL_CALL and not _exposes(authority.get("exposeTools"), case.envelope.tool):
        return "the lease does not grant this tool"
    return None


def _granted_number(authority: Any, name: str) -> int:
    """What a lease grants as a number; -1, which is less than any depth or count, where it grants nothing."""
    value = authority.get(name) if isinstance(authority, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def _exposes(patterns: Any, tool: str | None) -> bool:
    return tool is not None and isinstance(patterns, list) and GlobSet.of(map(str, patterns)).matches(tool)


def _invariants(case: _Case) -> Refusal | None:
    ruleset, artifact_bytes = case.ruleset, case.envelope.artifact_bytes
    if ruleset is None:
        return None
    limit = ruleset.max_artifact_bytes
    if limit is not None and artifact_bytes is not None and artifact_bytes > limit:
        return Refusal(
            ReasonCode.INVARIANT_VIOLATION, f"the declared artifact has {artifact_bytes} bytes, at most {limit}"
        )
    if not ruleset.rules:
        return None
    case.rules = results = _rule_results(case, ruleset)
    for rule in ruleset.rules:
        if not results[rule.name]:
            return Refusal(ReasonCode.INVARIANT_VIOLATION, rule.message)
    return None


def _rule_results(case: _Case, ruleset: Ruleset) -> dict[str, bool]:
    recorded = case.rule_results
    envelope, requester, observed = case.envelope, case.requester, case.observed
    variables = CelVariables(
        payload=envelope.payload,
        request={
            "surface": envelope.surface_id,
            "payload_kind": envelope.payload_kind,
            "capability_id": case.capability_id,
            "target": envelope.target,
            "artifact_bytes": envelope.artifact_bytes,
        },
        caller={"principal_key": requester.principal_key, "type": requester.type},
        observed={
            "depth": case.depth,
            "descendants": observed.descendants,
            "repeats": observed.repeats,
            "budget": case.budget,
        },
    )
    results: dict[str, bool | RuleFailure] = {}
    for rule in ruleset.rules:
        if recorded is None or (rule.name not in recorded and not rule.reads_payload):
            results[rule.name] = rule.evaluate(variables)
        else:
            # Without the payload, a rule that was not evaluated then cannot be known to hold.
            results[rule.name] = recorded.get(rule.name, False)
    case.failed_rules = tuple(name for name, result in results.items() if isinstance(result, RuleFailure))
    return {name: result is True for name, result in results.items()}


# --- the table: what is compared in which order


@dataclass(frozen=True, slots=True)
class AdmissionRule:
    number: int
    reason_code: ReasonCode
    """The first of its reasons."""
    check: Callable[[_Case], Refusal | None]
    compare: Callable[[_Case], tuple[Any, Any]]
    """Limit and observation, for `explain`."""
    needs_surface: bool = True
    needs_tree: bool = False


def _limit(case: _Case, name: str) -> Any:
    return getattr(case.ruleset, name, None)


_CAUSALITY_RULE: Final = 3

RULES: Final = (
    AdmissionRule(1, ReasonCode.MISSING_FIELD, _missing_field, lambda _case: (None, None), needs_surface=False),
    AdmissionRule(
        2,
        ReasonCode.POLICY_NOT_FOUND,
        _domain,
        lambda case: (None, [case.envelope.policy_profile_id, case.envelope.surface_id]),
        needs_surface=False,
    ),
    AdmissionRule(
        _CAUSALITY_RULE,
        ReasonCode.CAUSALITY_MISMATCH,
        _causality,
        lambda case: (None, dict(case.causality.as_sent) if case.causality.as_sent is not None else None),
    ),
    AdmissionRule(4, ReasonCode.UNAUTHORIZED, _authorization, lambda case: (None, case.requester.principal_key)),
    AdmissionRule(5, ReasonCode.RATE_LIMITED, _rates, lambda case: (None, list(case.observed.rate_tats))),
    AdmissionRule(6, ReasonCode.BUDGET_EXHAUSTED, _budget, lambda case: (1, case.budget), needs_tree=True),
    AdmissionRule(
        7, ReasonCode.DEPTH_EXCEEDED, _depth, lambda case: (_limit(case, "max_depth"), case.depth), needs_tree=True
    ),
    AdmissionRule(
        8,
        ReasonCode.DESCENDANTS_EXCEEDED,
        _descendants,
        lambda case: (_limit(case, "max_descendants"), case.observed.descendants),
        needs_tree=True,
    ),
    AdmissionRule(
        9,
        ReasonCode.REPEATS_EXCEEDED,
        _repeats,
        lambda case: (_limit(case, "max_repeats"), case.observed.repeats),
        needs_tree=True,
    ),
    AdmissionRule(
        10,
        ReasonCode.ANCESTOR_WINDOW,
        _window,
        lambda case: (_limit(case, "window_repeats") if _limit(case, "window_size") else None, _occurrences(case)),
        needs_tree=True,
    ),
    AdmissionRule(11, ReasonCode.CAPABILITY_DENIED, _capability, lambda case: (None, case.capability_id)),
    AdmissionRule(12, ReasonCode.LEASE_AUTHORITY, _lease, lambda case: (None, case.requester.lease_id)),
    AdmissionRule(
        13,
        ReasonCode.INVARIANT_VIOLATION,
        _invariants,
        lambda case: (
            _limit(case, "max_artifact_bytes"),
            {"artifact_bytes": case.envelope.artifact_bytes, "rules": dict(case.rules or {})},
        ),
    ),
)


# --- the result


def _denied(case: _Case, number: int, refusal: Refusal) -> Decision:
    is_verified = number > _CAUSALITY_RULE and not _rests_on_lost_lease(case)
    return Decision(
        outcome=AdmissionOutcome.DENY,
        reason_code=refusal.reason_code,
        detail=refusal.detail[:LONGEST_DETAIL],
        rule=number,
        root_task_id=case.root_task_id if is_verified else None,
        parent_task_id=case.parent_task_id if is_verified else None,
        task_id=None,
        depth=case.depth if is_verified else None,
        budget=case.budget if is_verified else None,
        budget_remaining=None,
        rate_tats=case.rate_tats,
        rules=case.rules or {},
        failed_rules=case.failed_rules,
        retry_after_ms=refusal.retry_after_ms,
    )


def _allowed(case: _Case) -> Decision:
    envelope, budget, parent = case.envelope, case.budget, case.parent
    recent: tuple[str, ...] = ()
    remaining = budget
    if case.begins:
        # Fuel is used up along a path: what the parent has left is not touched by its children.
        remaining = None if budget is None else budget - 1
        if case.capability_id is not None:
            recent = (case.capability_id, *(parent.recent[: LONGEST_WINDOW - 1] if parent is not None else ()))
    surface = case.surface
    return Decision(
        outcome=AdmissionOutcome.ALLOW,
        reason_code=None,
        detail=None,
        rule=None,
        root_task_id=case.root_task_id,
        parent_task_id=case.parent_task_id,
        task_id=envelope.admitted_task_id,
        depth=case.depth,
        budget=budget,
        budget_remaining=remaining,
        recent=recent,
        rate_tats=case.rate_tats,
        spawns_under_lease=case.begins and case.observed.lease is not None,
        rules=case.rules or {},
        failed_rules=case.failed_rules,
        targets=(envelope.target,) if envelope.target is not None else surface.open_targets if surface else (),
    )
