"""The shared body of a Binding's packet: the sections of its Profile and Manifest, its overrides merged in (D-19).

Sections are kept as canonical JSON per member, so that a body is put together from bytes. Only the members that an
override touches are merged, validated and encoded again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from metagate_crds import packet, reasons
from metagate_crds.canonical_json import canonical, digest, encode_members, join_members
from metagate_crds.compile.normalized import (
    MANIFEST_SECTIONS,
    PROFILE_SECTIONS,
    NormalizedBinding,
    NormalizedManifest,
    NormalizedProfile,
    Sections,
)
from metagate_crds.compile.world import World
from metagate_crds.kinds import MANIFEST, PROFILE
from metagate_crds.models import ManifestSpec
from metagate_crds.objects import ObjectKey
from metagate_crds.rules.findings import Finding, render_path
from metagate_crds.rules.spec_scanner import SpecScanner
from metagate_crds.validation import translate_errors


@dataclass(frozen=True, slots=True)
class PacketBody:
    """The shared body of a packet and its digest, or why there is none. `warnings` are about a body that there is."""

    digest: str | None
    body: bytes | None
    refusals: tuple[Finding, ...]
    warnings: tuple[Finding, ...] = ()


def build_packet_body(world: World, namespace: str, binding: NormalizedBinding) -> PacketBody | None:
    """The body for these references, None while one does not resolve.

    Bindings without overrides share it: it is built once per pair of Profile and Manifest.
    """
    profile_state = world.state(ObjectKey(PROFILE.name, namespace, binding.profile))
    manifest_state = world.state(ObjectKey(MANIFEST.name, namespace, binding.manifest))
    if profile_state is None or manifest_state is None:
        return None
    profile, manifest = profile_state.effective, manifest_state.effective
    if not isinstance(profile, NormalizedProfile) or not isinstance(manifest, NormalizedManifest):
        return None
    if binding.overrides is not None:
        return _build(binding, profile, manifest)
    names = (namespace, binding.profile, binding.manifest)
    # Compared by identity: a new version is a new object, and comparing bodies would cost what the cache saves.
    cached = world.cached_packets.get(names)
    if cached is not None and cached[0] is profile and cached[1] is manifest:
        known: PacketBody = cached[2]
        return known
    built = _build(binding, profile, manifest)
    world.cached_packets[names] = (profile, manifest, built)
    return built


def _build(binding: NormalizedBinding, profile: NormalizedProfile, manifest: NormalizedManifest) -> PacketBody:
    sections = {**profile.sections, **manifest.sections}
    services = manifest.body["services"]
    if binding.overrides:
        services = merge_patch(services, binding.overrides.get("services", {}))
        refusals = _apply_overrides(sections, binding.overrides, profile, manifest)
        if refusals:
            return PacketBody(None, None, tuple(sorted(refusals)))
    encoded = {field: join_members(members) for field, members in sections.items()}
    encoded |= {"profile": canonical(binding.profile), "manifest": canonical(binding.manifest)}
    body = packet.assemble({**encoded, "required_env": profile.required_env})
    # Profile and Manifest fit by themselves, their sum may not.
    if len(body) > packet.MAX_BYTES:
        message = f"the packet is larger than {packet.MAX_BYTES} bytes"
        return PacketBody(None, None, (Finding("spec", reasons.PACKET_TOO_LARGE, message),))
    return PacketBody(digest(body), body, (), tuple(_undeclared_secrets(services, binding, profile)))


def _undeclared_secrets(
    services: dict[str, Any], binding: NormalizedBinding, profile: NormalizedProfile
) -> Iterator[Finding]:
    """A service whose callers need a secret that the component is not given: it starts, and cannot call the service."""
    for name, service in services.items():
        auth = service.get("auth") or {}
        secret = auth.get("secretRef")
        if secret is not None and secret not in profile.secret_names:
            path = render_path(("services", name, "auth", "secretRef"))
            message = (
                f"{path} of Manifest {binding.manifest}, overrides included, names no entry of spec.secretRefs of"
                f" Profile {binding.profile}"
            )
            yield Finding("spec.profileRef", reasons.SECRET_REF_NOT_DECLARED, message)


def _apply_overrides(
    sections: Sections, overrides: dict[str, Any], profile: NormalizedProfile, manifest: NormalizedManifest
) -> set[Finding]:
    """Merge overrides into `sections`; what is wrong with a merged member is a finding and leaves its section alone.

    Each part is valid by itself. Merged, it may be too deep, or a Manifest's service without an endpoint.
    """
    findings: set[Finding] = set()
    merged_manifest: dict[str, dict[str, Any]] = {}
    for field, name in (*PROFILE_SECTIONS.items(), *MANIFEST_SECTIONS.items()):
        if name not in overrides:
            continue
        declared = (profile.body if field in PROFILE_SECTIONS else manifest.body)[name]
        patch = overrides[name]
        merged = merge_patch({key: declared[key] for key in patch if key in declared}, patch)
        scanner = SpecScanner(forbid=True)
        scanner.scan(merged, (name, ("overrides", ())), 2)
        findings |= {
            Finding(finding.path, finding.reason, f"merged, {finding.message}") for finding in scanner.findings
        }
        if scanner.findings:
            continue
        untouched = {key: encoded for key, encoded in sections[field].items() if key not in patch}
        sections[field] = untouched | encode_members(merged)
        if field in MANIFEST_SECTIONS:
            merged_manifest[name] = merged
    return findings | _validate_merged(merged_manifest)


def _validate_merged(sections: dict[str, dict[str, Any]]) -> set[Finding]:
    """The findings of a Manifest with these members, under the path of the override."""
    try:
        ManifestSpec.model_validate(sections)
    except ValidationError as error:
        return {
            Finding(
                finding.path.replace("spec.", "spec.overrides.", 1), reasons.MERGE_REFUSED, f"merged, {finding.message}"
            )
            for finding in translate_errors(MANIFEST.name, error)
        }
    return set()


def merge_patch(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7396): null removes, objects merge, anything else replaces. Neither argument is changed."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result
