"""Compiling a PolicyProfile: it is served as it is; what it refers to is reported and stands in the way of nothing."""

from typing import Final

from metagate_crds import reasons
from metagate_crds.compile.normalized import NormalizedPolicy
from metagate_crds.compile.object_state import ObjectState
from metagate_crds.compile.outcome import CompileOutcome
from metagate_crds.compile.snapshot import SnapshotRow
from metagate_crds.compile.world import World
from metagate_crds.kinds import PLAN_TEMPLATE, POLICY_PROFILE, PRINCIPAL
from metagate_crds.objects import ObjectKey
from metagate_crds.rules.findings import Finding

_SHADOW_PATH: Final = "spec.shadow.policyProfileRef"
_NOT_FOUND: Final = {
    PRINCIPAL.name: reasons.PRINCIPAL_NOT_FOUND,
    POLICY_PROFILE.name: reasons.POLICY_PROFILE_NOT_FOUND,
    PLAN_TEMPLATE.name: reasons.TEMPLATE_NOT_FOUND,
}


def compile_policy(
    world: World, state: ObjectState, spec: NormalizedPolicy, tenant: str, content: SnapshotRow
) -> CompileOutcome:
    references = policy_references(state.declared.key.namespace, spec)
    # A boundary without rules would admit nothing: they are served also while a reference does not resolve.
    outcome = CompileOutcome(rows=[content], served_generation=state.served_generation)
    outcome.rows += [reference_row(state, tenant, path, ref) for path, ref in references]
    outcome.unresolved = unresolved_references(world, references)
    if "maxTotalDescendants" not in spec.body["limits"]:
        message = "is not set: the requests below one root are bounded by depth and budget of each branch only"
        outcome.warnings = [Finding("spec.limits.maxTotalDescendants", reasons.TREE_NOT_BOUNDED, message)]
    # Without this a referenced object that appears later would not compile this one again. Not among `state.refs`:
    # those are counted as uses by Bindings.
    world.add_dependency(state, (ref for _, ref in references))
    return outcome


def policy_references(namespace: str, spec: NormalizedPolicy) -> list[tuple[str, ObjectKey]]:
    """What the PolicyProfile names, each with the path where it does."""
    references = [(path, ObjectKey(PRINCIPAL.name, namespace, name)) for path, name in spec.escalations]
    if spec.shadow is not None:
        references.append((_SHADOW_PATH, ObjectKey(POLICY_PROFILE.name, namespace, spec.shadow)))
    return references


def unresolved_references(world: World, references: list[tuple[str, ObjectKey]]) -> list[Finding]:
    """What is wrong with references to objects of the namespace, each with its path."""
    findings = (_unresolved(world, path, ref) for path, ref in references)
    return [finding for finding in findings if finding is not None]


def _unresolved(world: World, path: str, ref: ObjectKey) -> Finding | None:
    target = world.state(ref)
    if target is None:
        return Finding(path, _NOT_FOUND[ref.kind], f"{ref.kind} {ref.name} does not exist in this namespace")
    if target.effective is None:
        return Finding(path, reasons.REFERENCE_NOT_VALID, f"{ref.kind} {ref.name} has never been valid")
    return None


def reference_row(state: ObjectState, tenant: str, path: str, ref: ObjectKey) -> SnapshotRow:
    uid = state.declared.uid
    values = {"owner": uid, "path": path, "kind": ref.kind, "tenant": tenant, "name": ref.name}
    return SnapshotRow("reference", (uid, path), values)
