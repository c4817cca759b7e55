"""compile_world: from what is declared to what is served.

A pure function of the world and the last good specs: it reads no clock, no database, and no order of arrival. What it
computes on the way is cached inside the world, which changes its speed and nothing else.

One object goes one way: its `ObjectState` in the world, the compiled `CompileOutcome` of its kind, the `Verdict` of its
status, its `SnapshotRow`s.
"""

from collections.abc import Iterable
from functools import lru_cache

from metagate_crds import reasons
from metagate_crds.compile.bindings import compile_binding
from metagate_crds.compile.issuers import compile_issuer
from metagate_crds.compile.normalized import (
    NormalizedBinding,
    NormalizedIssuer,
    NormalizedManifest,
    NormalizedPlanTemplate,
    NormalizedPolicy,
    NormalizedPrincipal,
    NormalizedProblemata,
    NormalizedProfile,
)
from metagate_crds.compile.object_state import ObjectState
from metagate_crds.compile.outcome import CompileOutcome, build_verdict
from metagate_crds.compile.plan_templates import compile_plan_template
from metagate_crds.compile.policies import compile_policy
from metagate_crds.compile.principals import compile_principal
from metagate_crds.compile.problematas import compile_problemata
from metagate_crds.compile.snapshot import CompiledWorld, SnapshotRow
from metagate_crds.compile.world import World
from metagate_crds.kinds import KINDS
from metagate_crds.objects import DeclaredObject, LastGood, ObjectKey
from metagate_crds.rules.findings import Finding
from metagate_crds.verdict import Condition, Verdict


def compile_world(world: World, last_good: LastGood, only: frozenset[ObjectKey] | None = None) -> CompiledWorld:
    """Compile the world, or only the closure given: with the same answer for those objects as the full run."""
    world.apply_last_good(last_good)
    rows: dict[ObjectKey, tuple[SnapshotRow, ...]] = {}
    verdicts: dict[ObjectKey, Verdict] = {}
    good: dict[str, DeclaredObject] = {}
    packets: dict[str, bytes] = {}
    scope: Iterable[ObjectKey] = tuple(world.keys()) if only is None else only
    for key in scope:
        state = world.state(key)
        if state is None:
            rows[key] = ()  # it was removed, and so are its rows
            continue
        namespaced = KINDS[key.kind].namespaced
        tenant = world.tenant(key.namespace) if namespaced else None
        outcome = _compile_object(world, state, tenant, last_good)
        verdict = verdicts[key] = build_verdict(state, outcome, world.uses(key))
        if namespaced and tenant is None:
            rows[key] = ()  # rows belong to a tenant, and this namespace has none yet
            continue
        rows[key] = (*outcome.rows, _resource_row(state, verdict, tenant))
        # A spec that is valid by itself and refused when merged becomes the last good one only if there is no other.
        if not state.findings and not (outcome.refusals and _has_earlier_version(state, last_good)):
            good[state.declared.uid] = state.declared
        if outcome.digest is not None and outcome.body is not None:
            packets[outcome.digest] = outcome.body
    return CompiledWorld(rows, verdicts, good, packets)


def _has_earlier_version(state: ObjectState, last_good: LastGood) -> bool:
    """Whether another version was good: one whose merged result is refused does not take its place."""
    earlier = last_good.get(state.declared.uid)
    return earlier is not None and earlier.generation != state.declared.generation


def _compile_object(world: World, state: ObjectState, tenant: str | None, last_good: LastGood) -> CompileOutcome:
    spec = state.effective
    if isinstance(spec, NormalizedIssuer):
        return compile_issuer(world, state, spec)
    if spec is None:
        return CompileOutcome()
    if tenant is None:
        message = "its namespace is not known, so nothing of it is served"
        return CompileOutcome(refusals=[Finding("metadata.namespace", reasons.NAMESPACE_UNKNOWN, message)])
    match spec:
        case NormalizedPrincipal():
            return compile_principal(world, state, spec, tenant)
        case NormalizedBinding():
            return compile_binding(world, state, spec, tenant, last_good)
        case NormalizedPolicy():
            return compile_policy(world, state, spec, tenant, _content_row(state, spec, tenant))
        case NormalizedProblemata():
            return compile_problemata(world, state, spec, tenant, _content_row(state, spec, tenant))
        case NormalizedPlanTemplate():
            return compile_plan_template(world, state, spec, tenant, _content_row(state, spec, tenant))
        case NormalizedProfile() | NormalizedManifest():
            return CompileOutcome(rows=[_content_row(state, spec, tenant)], served_generation=state.served_generation)


def _content_row(
    state: ObjectState,
    spec: NormalizedProfile | NormalizedManifest | NormalizedPolicy | NormalizedProblemata | NormalizedPlanTemplate,
    tenant: str,
) -> SnapshotRow:
    """The row of an object that is served as it is; made once per version, because bodies may be large."""
    generation = state.served_generation or 0
    if state.cached_content is not None and state.cached_content[:2] == (tenant, generation):
        return state.cached_content[2]
    name = state.declared.key.name
    values = {"tenant": tenant, "name": name, "body": spec.body, "generation": generation}
    if isinstance(spec, NormalizedPolicy):
        row = SnapshotRow("policy_profile", (tenant, name), {**values, "policy_hash": spec.policy_hash})
    elif isinstance(spec, NormalizedProblemata):
        row = SnapshotRow("problemata", (tenant, name), {**values, "content_hash": spec.content_hash})
    elif isinstance(spec, NormalizedPlanTemplate):
        row = SnapshotRow("plan_template", (tenant, name), {**values, "content_hash": spec.content_hash})
    else:
        row = SnapshotRow("profile" if isinstance(spec, NormalizedProfile) else "manifest", (tenant, name), values)
    state.cached_content = (tenant, generation, row)
    return row


def _resource_row(state: ObjectState, verdict: Verdict, tenant: str | None) -> SnapshotRow:
    """The verdict as a row; the same row as before while the verdict is the same."""
    declared = state.declared
    row = SnapshotRow(
        "resource",
        (declared.uid,),
        {
            "owner": declared.uid,
            "kind": declared.key.kind,
            "tenant": tenant,
            "namespace": declared.key.namespace,
            "name": declared.key.name,
            "generation": declared.generation,
            "served_generation": verdict.served_generation,
            "created_at": declared.created.isoformat(),
            "conditions": _conditions_to_list(verdict.conditions),
            "uses": verdict.uses,
        },
    )
    # An equal row keeps the digest that was computed for it (`SnapshotRow.content`).
    if state.cached_resource != row:
        state.cached_resource = row
    return state.cached_resource


@lru_cache(maxsize=256)
def _conditions_to_list(conditions: tuple[Condition, ...]) -> list[dict[str, str]]:
    """Conditions as JSON; most objects share theirs."""
    return [
        {"type": item.type, "status": item.status, "reason": item.reason, "message": item.message}
        for item in conditions
    ]
