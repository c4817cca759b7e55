"""Why a packet has the values it has: for every leaf the layer that gave it, the object, and where in its spec.

The packet is compiled again from the declared objects that made it. What cannot be compiled again is reported
(`NotReproducibleError`), never guessed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from metagate_crds.compile.compiler import compile_world
from metagate_crds.compile.normalized import (
    MANIFEST_SECTIONS,
    PROFILE_SECTIONS,
    NormalizedBinding,
    NormalizedManifest,
    NormalizedProfile,
)
from metagate_crds.compile.object_state import evaluate
from metagate_crds.compile.world import World
from metagate_crds.objects import CompileSettings, DeclaredObject, Namespace, ObjectKey
from metagate_crds.plan.packet_diff import iterate_leaves
from metagate_crds.rules.findings import Step

Layer = Literal["profile", "manifest", "override", "binding"]

# Field of `required_env` -> field of a Profile's secretRefs.
_SECRET_REF_FIELDS: Final = {"name": "name", "ref_kind": "kind", "ref_name": "ref", "required": "required"}
_BINDING_FIELDS: Final[Mapping[str, tuple[Step, ...]]] = {
    "profile": ("profileRef", "name"),
    "manifest": ("manifestRef", "name"),
}


class NotReproducibleError(Exception):
    """The packet cannot be compiled again from what is stored. The message says why, and holds no declared value."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value of the packet. `path` is where in the packet, `origin` where in the spec of the object that gave it.

    `declared` is False when the spec leaves it out and its default counts.
    """

    path: tuple[Step, ...]
    value: Any
    layer: Layer
    origin: tuple[Step, ...]
    declared: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """The shared body, compiled again, and the origin of each of its leaves."""

    digest: str
    body: bytes
    leaves: tuple[Leaf, ...]


def explain_packet(
    binding: DeclaredObject, profile: DeclaredObject, manifest: DeclaredObject, settings: CompileSettings
) -> Explanation:
    """Compile the packet of these three again and find where each leaf comes from.

    Raises:
        NotReproducibleError: they give no packet.

    """
    digest, body = _compile_again(binding, profile, manifest, settings)
    binding_spec, profile_spec, manifest_spec = (
        evaluate(declared, settings).normalized for declared in (binding, profile, manifest)
    )
    if not (
        isinstance(binding_spec, NormalizedBinding)
        and isinstance(profile_spec, NormalizedProfile)
        and isinstance(manifest_spec, NormalizedManifest)
    ):  # pragma: no cover - it gave a packet
        raise NotReproducibleError("an object is not valid by the rules of this release")
    raw_specs = {"profile": profile.spec, "manifest": manifest.spec, "override": binding.spec, "binding": binding.spec}
    leaves = []
    for path, value in iterate_leaves(json.loads(body)):
        layer, origin = _origin(path, binding_spec.overrides or {}, profile_spec.body, manifest_spec.body)
        leaves.append(Leaf(path, value, layer, origin, declared=_contains(raw_specs[layer], origin)))
    return Explanation(digest, body, tuple(leaves))


def _compile_again(
    binding: DeclaredObject, profile: DeclaredObject, manifest: DeclaredObject, settings: CompileSettings
) -> tuple[str, bytes]:
    namespace = Namespace(binding.key.namespace, "", binding.created)
    world = World(settings, [namespace], (binding, profile, manifest))
    compiled = compile_world(world, {}, frozenset({binding.key}))
    verdict = compiled.verdicts[binding.key]
    if verdict.digest is not None:
        return verdict.digest, compiled.packets[verdict.digest]
    for key in (binding.key, profile.key, manifest.key):
        state = world.state(key)
        if state is not None and state.findings:
            message = f"{_describe(key)} is not valid by the rules of this release: {state.findings[0]}"
            raise NotReproducibleError(message)
    messages = (condition.message for condition in verdict.conditions if condition.status == "False")
    raise NotReproducibleError(f"{_describe(binding.key)}: {next(messages, 'it gives no packet')}")


def _describe(key: ObjectKey) -> str:
    return f"{key.kind} {key.name}"


def _origin(
    path: tuple[Step, ...], overrides: Mapping[str, Any], profile: Mapping[str, Any], manifest: Mapping[str, Any]
) -> tuple[Layer, tuple[Step, ...]]:
    field, rest = str(path[0]), path[1:]
    if field in _BINDING_FIELDS:
        return "binding", _BINDING_FIELDS[field]
    if field == "required_env":
        steps = (step if isinstance(step, int) else _SECRET_REF_FIELDS[step] for step in rest)
        return "profile", ("secretRefs", *steps)
    layer: Layer = "profile" if field in PROFILE_SECTIONS else "manifest"
    section = (PROFILE_SECTIONS | MANIFEST_SECTIONS)[field]
    below = profile if layer == "profile" else manifest
    if section in overrides and is_overridden(below.get(section), overrides[section], rest):
        return "override", ("overrides", section, *rest)
    return layer, (section, *rest)


def is_overridden(below: Any, patch: Any, path: tuple[Step, ...]) -> bool:
    """Whether the leaf at `path` of the merged result comes from the patch (RFC 7396) and not from what lies below."""
    for step in path:
        if not isinstance(patch, dict):
            return True
        if step not in patch:
            return False
        patch = patch[str(step)]
        below = below.get(step) if isinstance(below, dict) else None
    # An empty object: the patch took everything out of it, or put it there.
    return not isinstance(patch, dict) or bool(patch) or not isinstance(below, dict)


def _contains(spec: Any, path: tuple[Step, ...]) -> bool:
    """Whether the declared spec itself has a value at this path."""
    for step in path:
        if isinstance(step, int):
            if not isinstance(spec, list) or step >= len(spec):
                return False
            spec = spec[step]
        else:
            if not isinstance(spec, dict) or step not in spec:
                return False
            spec = spec[step]
    return True
