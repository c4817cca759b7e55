"""Compiling a Binding: the one that counts for its principal, and the packet that it gives (D-19, D-21, D-38)."""

from typing import Final

from metagate_crds import reasons
from metagate_crds.compile.normalized import NormalizedBinding, NormalizedProfile
from metagate_crds.compile.object_state import ObjectState, active_binding_key, earlier_version
from metagate_crds.compile.outcome import CompileOutcome
from metagate_crds.compile.packet_body import PacketBody, build_packet_body
from metagate_crds.compile.snapshot import SnapshotRow
from metagate_crds.compile.world import World
from metagate_crds.kinds import MANIFEST, PROFILE
from metagate_crds.objects import LastGood, ObjectKey
from metagate_crds.rules.findings import Finding
from metagate_crds.rules.patterns import is_possible_component

# In the order of `ObjectState.refs`.
_REFERENCES: Final = (
    ("principalRef", reasons.PRINCIPAL_NOT_FOUND),
    ("profileRef", reasons.PROFILE_NOT_FOUND),
    ("manifestRef", reasons.MANIFEST_NOT_FOUND),
)


def compile_binding(
    world: World, state: ObjectState, spec: NormalizedBinding, tenant: str, last_good: LastGood
) -> CompileOutcome:
    outcome = CompileOutcome(served_generation=state.served_generation)
    outcome.unresolved = _unresolved(world, state)
    served, packet_body = _served_version(world, state, spec, last_good, outcome)
    outcome.rows += _reference_rows(state, tenant)
    # An inactive Binding keeps its references, so that its objects count it among their uses.
    if not spec.active:
        outcome.ready_reason = reasons.INACTIVE
        return outcome
    winner = _oldest_active(world, state.declared.key.namespace, spec.principal)
    if winner is not None and winner is not state:
        message = f"older PrincipalBinding {winner.declared.key.name} is active for this Principal"
        outcome.conflicts.append(Finding("spec.principalRef", reasons.BINDING_CONFLICT, message))
        outcome.served_generation = None
        return outcome
    if packet_body is not None:
        outcome.digest, outcome.body = packet_body.digest, packet_body.body
        outcome.warnings = [*_impossible_components(served), *packet_body.warnings]
    if outcome.digest is None:
        outcome.served_generation = None
    outcome.rows.append(_binding_row(world, state, served, tenant, outcome))
    return outcome


def _impossible_components(spec: NormalizedBinding) -> list[Finding]:
    """Entries that were allowed before component keys had a form, and can permit nobody now."""
    if all(map(is_possible_component, spec.components)):
        return []
    message = (
        "has an entry that no component_key can be: letters, digits and . _ : -, with a letter or digit at both ends;"
        " nobody can boot under it"
    )
    return [Finding("spec.components", reasons.COMPONENT_NOT_POSSIBLE, message)]


def _served_version(
    world: World, state: ObjectState, spec: NormalizedBinding, last_good: LastGood, outcome: CompileOutcome
) -> tuple[NormalizedBinding, PacketBody | None]:
    """The version that is served, with its packet: the present one, or an earlier one while its merge is refused."""
    packet_body = build_packet_body(world, state.declared.key.namespace, spec)
    if packet_body is None or not packet_body.refusals:
        return spec, packet_body
    outcome.refusals = list(packet_body.refusals)
    outcome.served_generation = None
    # Availability before freshness: a packet that was served goes on being served while its successor is refused.
    earlier = _earlier_version(world, state, spec, last_good)
    if earlier is None or state.last_good is None:
        return spec, packet_body
    outcome.served_generation = state.last_good.generation
    return earlier


def _earlier_version(
    world: World, state: ObjectState, spec: NormalizedBinding, last_good: LastGood
) -> tuple[NormalizedBinding, PacketBody | None] | None:
    """The last good version of a Binding whose present one, valid in itself, gives no packet."""
    earlier = earlier_version(state, last_good, world.settings)
    if not isinstance(earlier, NormalizedBinding) or not earlier.active or earlier.principal != spec.principal:
        return None
    namespace = state.declared.key.namespace
    refs = (ObjectKey(PROFILE.name, namespace, earlier.profile), ObjectKey(MANIFEST.name, namespace, earlier.manifest))
    # Without this a change of what the earlier version refers to would not compile this Binding again.
    world.add_dependency(state, refs)
    packet_body = build_packet_body(world, namespace, earlier)
    return None if packet_body is None or packet_body.refusals else (earlier, packet_body)


def _binding_row(
    world: World, state: ObjectState, spec: NormalizedBinding, tenant: str, outcome: CompileOutcome
) -> SnapshotRow:
    profile = world.state(ObjectKey(PROFILE.name, state.declared.key.namespace, spec.profile))
    sla = profile.effective.sla_seconds if profile and isinstance(profile.effective, NormalizedProfile) else None
    return SnapshotRow(
        "binding",
        (tenant, spec.principal),
        {
            "tenant": tenant,
            "principal_key": spec.principal,
            "name": state.declared.key.name,
            "digest": outcome.digest,
            "components": list(spec.components),
            "sla_seconds": sla or world.settings.default_sla_seconds,
            "profile": spec.profile,
            "manifest": spec.manifest,
            "generation": outcome.served_generation or state.served_generation,
        },
    )


def _unresolved(world: World, state: ObjectState) -> list[Finding]:
    findings = []
    for ref, (field, not_found) in zip(state.refs, _REFERENCES, strict=True):
        target = world.state(ref)
        if target is None:
            message = f"{ref.kind} {ref.name} does not exist in this namespace"
            findings.append(Finding(f"spec.{field}", not_found, message))
        elif target.effective is None:
            message = f"{ref.kind} {ref.name} has never been valid"
            findings.append(Finding(f"spec.{field}", reasons.REFERENCE_NOT_VALID, message))
    return findings


def _reference_rows(state: ObjectState, tenant: str) -> tuple[SnapshotRow, ...]:
    """What it refers to; made once per version, for it stays the same while a Manifest that thousands use changes."""
    if state.cached_references is not None and state.cached_references[0] == tenant:
        return state.cached_references[1]
    uid = state.declared.uid
    rows = tuple(
        SnapshotRow(
            "reference",
            (uid, f"spec.{field}"),
            {"owner": uid, "path": f"spec.{field}", "kind": ref.kind, "tenant": tenant, "name": ref.name},
        )
        for ref, (field, _) in zip(state.refs, _REFERENCES, strict=True)
    )
    state.cached_references = (tenant, rows)
    return rows


def _oldest_active(world: World, namespace: str, principal: str) -> ObjectState | None:
    """Whether a Binding competes depends on itself alone, never on whether its packet could be made."""
    return min(
        (
            claimant
            for claimant in world.claimants(active_binding_key(namespace, principal))
            if isinstance(claimant.effective, NormalizedBinding) and claimant.effective.active
        ),
        key=lambda claimant: claimant.declared.age,
        default=None,
    )
