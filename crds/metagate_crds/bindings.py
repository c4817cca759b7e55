"""Compiling a Binding: the one that counts for its principal, and the packet that it gives (D-19, D-21, D-38)."""

from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from metagate_crds import packet, reasons
from metagate_crds.canonical import canonical, digest, entries, joined
from metagate_crds.declared import LastGood, ObjectKey
from metagate_crds.facts import MANIFEST_SECTIONS, PROFILE_SECTIONS, BindingFacts, ManifestFacts, ProfileFacts
from metagate_crds.held import Held, active_token, last_good_facts
from metagate_crds.kinds import MANIFEST, PROFILE
from metagate_crds.merging import merged
from metagate_crds.models import ManifestSpec
from metagate_crds.outcome import Outcome
from metagate_crds.shape import Walk
from metagate_crds.snapshot import Row
from metagate_crds.validation import findings_of
from metagate_crds.verdict import Finding
from metagate_crds.world import World

_NOT_FOUND: Final = (
    ("principalRef", reasons.PRINCIPAL_NOT_FOUND),
    ("profileRef", reasons.PROFILE_NOT_FOUND),
    ("manifestRef", reasons.MANIFEST_NOT_FOUND),
)


@dataclass(frozen=True, slots=True)
class Merge:
    """The shared body of a packet, or why there is none."""

    digest: str | None
    body: bytes | None
    refusals: tuple[Finding, ...]


def compile_binding(world: World, found: Held, facts: BindingFacts, tenant: str, last_good: LastGood) -> Outcome:
    key = found.declared.key
    outcome = Outcome(served_generation=found.served_generation)
    outcome.unresolved = _unresolved(world, found)
    served, merge = facts, _merge(world, key.namespace, facts)
    if merge is not None and merge.refusals:
        outcome.refusals = list(merge.refusals)
        outcome.served_generation = None
        earlier = _earlier(world, found, facts, last_good)
        if earlier is not None and found.good is not None:
            served, merge = earlier
            outcome.served_generation = found.good.generation
    winner = _oldest_active(world, key, facts)
    outcome.rows += _references(found, tenant)
    if not facts.active:
        outcome.healthy = reasons.INACTIVE
        return outcome
    if winner is not None and winner is not found:
        said = f"older PrincipalBinding {winner.declared.key.name} is active for this Principal"
        outcome.conflicts.append(Finding("spec.principalRef", reasons.BINDING_CONFLICT, said))
        outcome.served_generation = None
        return outcome
    if merge is not None:
        outcome.digest, outcome.body = merge.digest, merge.body
    if outcome.digest is None:
        outcome.served_generation = None
    outcome.rows.append(_row(world, found, served, tenant, outcome))
    return outcome


def _row(world: World, found: Held, facts: BindingFacts, tenant: str, outcome: Outcome) -> Row:
    profile = world.held(ObjectKey(PROFILE.name, found.declared.key.namespace, facts.profile))
    sla = profile.effective.sla_seconds if profile and isinstance(profile.effective, ProfileFacts) else None
    return Row(
        "binding",
        (tenant, facts.principal),
        {
            "tenant": tenant,
            "principal_key": facts.principal,
            "name": found.declared.key.name,
            "digest": outcome.digest,
            "components": list(facts.components),
            "sla_seconds": sla or world.settings.default_sla_seconds,
            "profile": facts.profile,
            "manifest": facts.manifest,
            "generation": outcome.served_generation or found.served_generation,
        },
    )


def _unresolved(world: World, found: Held) -> list[Finding]:
    problems = []
    for ref, (field, missing) in zip(found.refs, _NOT_FOUND, strict=True):
        target = world.held(ref)
        if target is None:
            said = f"{ref.kind} {ref.name} does not exist in this namespace"
            problems.append(Finding(f"spec.{field}", missing, said))
        elif target.effective is None:
            said = f"{ref.kind} {ref.name} has never been valid"
            problems.append(Finding(f"spec.{field}", reasons.REFERENCE_NOT_VALID, said))
    return problems


def _references(found: Held, tenant: str) -> tuple[Row, ...]:
    """What it refers to; made once per version, for it stays the same while a Manifest that thousands use changes."""
    if found.references is not None and found.references[0] == tenant:
        return found.references[1]
    uid = found.declared.uid
    rows = tuple(
        Row(
            "reference",
            (uid, f"spec.{field}"),
            {"owner": uid, "path": f"spec.{field}", "kind": ref.kind, "tenant": tenant, "name": ref.name},
        )
        for ref, (field, _) in zip(found.refs, _NOT_FOUND, strict=True)
    )
    found.references = (tenant, rows)
    return rows


def _oldest_active(world: World, key: ObjectKey, facts: BindingFacts) -> Held | None:
    """Whether a Binding competes depends on itself alone, never on whether its packet could be made."""
    return min(
        (
            holder
            for holder in world.holders(active_token(key.namespace, facts.principal))
            if isinstance(holder.effective, BindingFacts) and holder.effective.active
        ),
        key=lambda holder: holder.declared.age,
        default=None,
    )


def _earlier(
    world: World, found: Held, facts: BindingFacts, last_good: LastGood
) -> tuple[BindingFacts, Merge | None] | None:
    """The last good version of a Binding whose present one, valid in itself, gives no packet."""
    good = last_good_facts(found, last_good, world.settings)
    if not isinstance(good, BindingFacts) or not good.active or good.principal != facts.principal:
        return None
    namespace = found.declared.key.namespace
    world.also_needs(
        found, (ObjectKey(PROFILE.name, namespace, good.profile), ObjectKey(MANIFEST.name, namespace, good.manifest))
    )
    merge = _merge(world, namespace, good)
    return None if merge is None or merge.refusals else (good, merge)


def _merge(world: World, namespace: str, facts: BindingFacts) -> Merge | None:
    """The packet of these references, None while one does not resolve."""
    profile = world.held(ObjectKey(PROFILE.name, namespace, facts.profile))
    manifest = world.held(ObjectKey(MANIFEST.name, namespace, facts.manifest))
    if profile is None or manifest is None:
        return None
    base, scene = profile.effective, manifest.effective
    if not isinstance(base, ProfileFacts) or not isinstance(scene, ManifestFacts):
        return None
    if facts.overrides is not None:
        return _made(facts, base, scene)
    pair = (namespace, facts.profile, facts.manifest)
    known = world.merges.get(pair)
    if known is not None and known[0] is base and known[1] is scene:
        remembered: Merge = known[2]
        return remembered
    made = _made(facts, base, scene)
    world.merges[pair] = (base, scene, made)
    return made


def _made(facts: BindingFacts, base: ProfileFacts, scene: ManifestFacts) -> Merge:
    sections = {**base.sections, **scene.sections}
    if facts.overrides:
        refusals = _override(sections, facts.overrides, base, scene)
        if refusals:
            return Merge(None, None, tuple(sorted(refusals)))
    parts = {field: joined(members) for field, members in sections.items()}
    parts |= {"profile": canonical(facts.profile), "manifest": canonical(facts.manifest)}
    body = packet.assembled({**parts, "required_env": base.required_env})
    if len(body) > packet.MAX_BYTES:
        said = f"the packet is larger than {packet.MAX_BYTES} bytes"
        return Merge(None, None, (Finding("spec", reasons.PACKET_TOO_LARGE, said),))
    return Merge(digest(body), body, ())


def _override(
    sections: dict[str, dict[str, bytes]], overrides: dict[str, Any], base: ProfileFacts, scene: ManifestFacts
) -> set[Finding]:
    """Merge into `sections` what overrides say; each member that they touch is looked at again (D-19)."""
    refusals: set[Finding] = set()
    touched: dict[str, dict[str, Any]] = {}
    for field, name in (*PROFILE_SECTIONS.items(), *MANIFEST_SECTIONS.items()):
        if name not in overrides:
            continue
        body = base.body if field in PROFILE_SECTIONS else scene.body
        patch = overrides[name]
        whole = merged({key: body[name][key] for key in patch if key in body[name]}, patch)
        walk = Walk(forbid=True)
        walk.over(whole, (name, ("overrides", ())), 2)
        refusals |= {Finding(item.path, item.reason, f"merged, {item.message}") for item in walk.findings}
        if walk.findings:
            continue
        sections[field] = {key: text for key, text in sections[field].items() if key not in patch} | entries(whole)
        if field in MANIFEST_SECTIONS:
            touched[name] = whole
    return refusals | _malformed(touched)


def _malformed(touched: dict[str, dict[str, Any]]) -> set[Finding]:
    """What a Manifest with these members would be told."""
    try:
        ManifestSpec.model_validate(touched)
    except ValidationError as error:
        return {
            Finding(item.path.replace("spec.", "spec.overrides.", 1), reasons.MERGE_REFUSED, f"merged, {item.message}")
            for item in findings_of(MANIFEST.name, error)
        }
    return set()
