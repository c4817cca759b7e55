"""Why a packet says what it says: for every leaf the layer that gave it, the object, and where in its spec.

The packet is made again, by the compiler itself, from the declared objects that made it; what cannot be made again is
said to be so (`Unexplained`), never guessed. A leaf is a value that is neither a non-empty object nor a non-empty list.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from metagate_crds.compiling import compile_world
from metagate_crds.declared import CompileSettings, Declared, Namespace, ObjectKey
from metagate_crds.facts import MANIFEST_SECTIONS, PROFILE_SECTIONS, BindingFacts, ManifestFacts, ProfileFacts
from metagate_crds.held import held
from metagate_crds.paths import Step
from metagate_crds.world import World

Layer = Literal["profile", "manifest", "override", "binding"]

_ENV: Final = {"name": "name", "ref_kind": "kind", "ref_name": "ref", "required": "required"}
_REFS: Final[Mapping[str, tuple[Step, ...]]] = {
    "profile": ("profileRef", "name"),
    "manifest": ("manifestRef", "name"),
}


class Unexplained(Exception):  # noqa: N818 - it names what became of the question
    """The packet cannot be made again from what is remembered. The message says why, and holds no declared value."""


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
class Explained:
    """The shared body, made again, and the origin of each of its leaves."""

    digest: str
    body: bytes
    leaves: tuple[Leaf, ...]


def explained(binding: Declared, profile: Declared, manifest: Declared, settings: CompileSettings) -> Explained:
    """Make the packet of these three again and say where each leaf comes from.

    Raises:
        Unexplained: they give no packet.

    """
    digest, body = _made(binding, profile, manifest, settings)
    bound, base, scene = (held(each, settings).facts for each in (binding, profile, manifest))
    if not (
        isinstance(bound, BindingFacts) and isinstance(base, ProfileFacts) and isinstance(scene, ManifestFacts)
    ):  # pragma: no cover - it gave a packet
        raise Unexplained("an object is not valid by the rules of this release")
    raw = {"profile": profile.spec, "manifest": manifest.spec, "override": binding.spec, "binding": binding.spec}
    leaves = tuple(
        Leaf(path, value, layer, origin, declared=_found(raw[layer], origin))
        for path, value in flattened(json.loads(body))
        for layer, origin in (_origin(path, bound.overrides or {}, base.body, scene.body),)
    )
    return Explained(digest, body, leaves)


def flattened(value: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], Any]]:
    """Every leaf with its path, in the order of the document."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flattened(inner, (*path, key))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from flattened(inner, (*path, index))
    else:
        yield path, value


def _made(binding: Declared, profile: Declared, manifest: Declared, settings: CompileSettings) -> tuple[str, bytes]:
    space = binding.key.namespace
    world = World(settings, [Namespace(space, "", binding.created)], (binding, profile, manifest))
    compiled = compile_world(world, {}, frozenset({binding.key}))
    verdict = compiled.verdicts[binding.key]
    if verdict.digest is None:
        for key in (binding.key, profile.key, manifest.key):
            found = world.held(key)
            if found is not None and found.findings:
                raise Unexplained(f"{_named(key)} is not valid by the rules of this release: {found.findings[0]}")
        failed = next((each.message for each in verdict.conditions if each.status == "False"), "it gives no packet")
        raise Unexplained(f"{_named(binding.key)}: {failed}")
    return verdict.digest, compiled.packets[verdict.digest]


def _named(key: ObjectKey) -> str:
    return f"{key.kind} {key.name}"


def _origin(
    path: tuple[Step, ...], overrides: Mapping[str, Any], base: Mapping[str, Any], scene: Mapping[str, Any]
) -> tuple[Layer, tuple[Step, ...]]:
    field, rest = str(path[0]), path[1:]
    if field in _REFS:
        return "binding", _REFS[field]
    if field == "required_env":
        return "profile", ("secretRefs", *(step if isinstance(step, int) else _ENV[step] for step in rest))
    layer: Layer = "profile" if field in PROFILE_SECTIONS else "manifest"
    section = (PROFILE_SECTIONS | MANIFEST_SECTIONS)[field]
    below = base if layer == "profile" else scene
    if section in overrides and overridden(below.get(section), overrides[section], rest):
        return "override", ("overrides", section, *rest)
    return layer, (section, *rest)


def overridden(below: Any, patch: Any, path: tuple[Step, ...]) -> bool:
    """Whether the leaf at `path` of the merged result comes from the patch (RFC 7396) and not from what lies below."""
    for step in path:
        if not isinstance(patch, dict):
            return True
        if step not in patch:
            return False
        patch = patch[str(step)]
        below = below.get(step) if isinstance(below, dict) else None
    # an empty object: the patch took everything out of it, or put it there
    return not isinstance(patch, dict) or bool(patch) or not isinstance(below, dict)


def _found(spec: Any, origin: tuple[Step, ...]) -> bool:
    for step in origin:
        if isinstance(step, int):
            if not isinstance(spec, list) or step >= len(spec):
                return False
            spec = spec[step]
        else:
            if not isinstance(spec, dict) or step not in spec:
                return False
            spec = spec[step]
    return True
