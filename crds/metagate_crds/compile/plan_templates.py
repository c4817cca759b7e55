"""Compiling a PlanTemplate: it is served only while everything that it names is there (DELEGATE.md §2)."""

from collections.abc import Iterator
from typing import Final

from metagate_crds import reasons
from metagate_crds.compile.normalized import NormalizedPlanTemplate
from metagate_crds.compile.object_state import ObjectState, capability_key
from metagate_crds.compile.outcome import CompileOutcome
from metagate_crds.compile.policies import reference_row, unresolved_references
from metagate_crds.compile.snapshot import SnapshotRow
from metagate_crds.compile.world import World
from metagate_crds.kinds import PLAN_TEMPLATE, PRINCIPAL
from metagate_crds.objects import ObjectKey
from metagate_crds.rules.findings import Finding
from metagate_crds.rules.plan_rules import HELD_WITHIN

MOST_LEVELS: Final = 4
"""Of plans in plans below the first."""
NOT_SERVED: Final = "is not served"
"""How the message about an included template ends that is there and cannot become a plan itself."""


def compile_plan_template(
    world: World, state: ObjectState, spec: NormalizedPlanTemplate, tenant: str, content: SnapshotRow
) -> CompileOutcome:
    namespace = state.declared.key.namespace
    references = template_references(namespace, spec)
    outcome = CompileOutcome(rows=[reference_row(state, tenant, path, ref) for path, ref in references])
    outcome.unresolved = unresolved_references(world, references)
    reached: set[ObjectKey] = set()
    outcome.unresolved += _included_findings(world, state.declared.key, spec, reached)
    outcome.conflicts = _conflicts(world, state, spec)
    if not outcome.unresolved and not outcome.conflicts:
        # What cannot become a plan must not be asked for: all of it or nothing.
        outcome.rows.append(content)
        outcome.served_generation = state.served_generation
    # Also of templates that are only reached through others: when one of them changes, a circle may begin or end.
    world.add_dependency(state, [*(ref for _, ref in references), *reached])
    return outcome


def template_references(namespace: str, spec: NormalizedPlanTemplate) -> list[tuple[str, ObjectKey]]:
    """What the template names, each with the path where it does."""
    principals = ((path, ObjectKey(PRINCIPAL.name, namespace, name)) for path, name in spec.principals)
    templates = ((path, ObjectKey(PLAN_TEMPLATE.name, namespace, name)) for path, name in spec.templates)
    return [*principals, *templates]


def _conflicts(world: World, state: ObjectState, spec: NormalizedPlanTemplate) -> list[Finding]:
    """A capability belongs to the oldest template of the namespace that claims it."""
    claimants = world.claimants(capability_key(state.declared.key.namespace, spec.capability))
    oldest = min(claimants, key=lambda claimant: claimant.declared.age, default=state)
    if oldest is state:
        return []
    message = f"older PlanTemplate {oldest.declared.key.name} already has this capability"
    return [Finding("spec.capability", reasons.CAPABILITY_CONFLICT, message)]


def _included_findings(
    world: World, key: ObjectKey, spec: NormalizedPlanTemplate, reached: set[ObjectKey]
) -> Iterator[Finding]:
    """Where a step leads back to this template, to too many plans in plans, or to a template that is not served.

    `reached` is filled with what was looked at.
    """
    nesting = _nesting_reasons(world, key, spec, reached) if spec.templates else {}
    for path, name in spec.templates:
        ref = _template_key(key, name)
        reason = nesting.get(name)
        if reason == reasons.TEMPLATE_CYCLE:
            yield Finding(path, reason, "leads back to this template")
        elif reason is not None:
            yield Finding(path, reason, f"leads to more than {MOST_LEVELS} plans below the first")
        elif _is_held_for_another(spec, _template_of(world, ref)):
            yield Finding(path, reasons.APPROVER_MISSING, HELD_WITHIN)
        elif _template_of(world, ref) is not None and not _is_served(world, ref):
            yield Finding(path, reasons.REFERENCE_NOT_VALID, f"PlanTemplate {name} {NOT_SERVED}")


def _nesting_reasons(
    world: World, start: ObjectKey, spec: NormalizedPlanTemplate, reached: set[ObjectKey]
) -> dict[str, str]:
    """What is wrong with the included templates, by name.

    Level by level down along every way, so that the longest one to a template counts and a circle of others ends at the
    bound; then up again to those that led there. Each level is looked at as a whole: ways are more than templates, and
    a namespace may declare as many of them as it likes.
    """
    included: dict[str, frozenset[str]] = {}
    levels: list[set[str]] = [set(spec.included)]
    while levels[-1] and len(levels) <= MOST_LEVELS:
        for name in levels[-1] - included.keys():
            template = _template_of(world, _template_key(start, name))
            included[name] = frozenset() if template is None else template.included
        levels.append(set().union(*(included[name] for name in levels[-1])))
    reached.update(_template_key(start, name) for name in included)
    circle: set[str] = set()
    deep: set[str] = set()
    for number, names in reversed(list(enumerate(levels))):
        below = {name: included.get(name, frozenset()) for name in names}
        circle = {name for name in names if name == start.name or not below[name].isdisjoint(circle)}
        deep = names if number == MOST_LEVELS else {name for name in names if not below[name].isdisjoint(deep)}
    return dict.fromkeys(deep, reasons.NESTED_TOO_DEEP) | dict.fromkeys(circle, reasons.TEMPLATE_CYCLE)


def _is_served(world: World, key: ObjectKey) -> bool:
    """Whether a template is served itself: DeleGate knows no other. Only for one below which `_nesting_reasons` found
    an end.
    """
    served = world.cached_served_templates
    if key not in served:
        state, template = world.state(key), _template_of(world, key)
        served[key] = (
            state is not None
            and template is not None
            and not unresolved_references(world, template_references(key.namespace, template))
            and not _conflicts(world, state, template)
            and all(_may_include(world, key, template, name) for name in template.included)
        )
    return served[key]


def _may_include(world: World, key: ObjectKey, spec: NormalizedPlanTemplate, name: str) -> bool:
    ref = _template_key(key, name)
    return _is_served(world, ref) and not _is_held_for_another(spec, _template_of(world, ref))


def _is_held_for_another(spec: NormalizedPlanTemplate, included: NormalizedPlanTemplate | None) -> bool:
    """A plan has one approval: whoever includes a held template must have it approved by the same Principal."""
    return included is not None and included.body.get("approver") not in {None, spec.body.get("approver")}


def _template_key(beside: ObjectKey, name: str) -> ObjectKey:
    return ObjectKey(PLAN_TEMPLATE.name, beside.namespace, name)


def _template_of(world: World, key: ObjectKey) -> NormalizedPlanTemplate | None:
    state = world.state(key)
    return state.effective if state is not None and isinstance(state.effective, NormalizedPlanTemplate) else None
