"""Compiling a Problemata: it is served only while everything that it names is there and admits it."""

from collections.abc import Iterator
from typing import Any, Final

from metagate_crds import reasons
from metagate_crds.compile.normalized import NormalizedPolicy, NormalizedProblemata
from metagate_crds.compile.object_state import ObjectState
from metagate_crds.compile.outcome import CompileOutcome
from metagate_crds.compile.policies import reference_row, unresolved_references
from metagate_crds.compile.snapshot import SnapshotRow
from metagate_crds.compile.world import World
from metagate_crds.kinds import POLICY_PROFILE, PRINCIPAL
from metagate_crds.models.problemata import SAFE_TOOL_NAME, exposed_names
from metagate_crds.objects import ObjectKey
from metagate_crds.rules.findings import Finding
from metagate_crds.rules.patterns import any_glob_matches

_POLICY_PATH: Final = "spec.gateway.policyProfileRef"
_SURFACE_PATH: Final = "spec.gateway.surfaceId"


def compile_problemata(
    world: World, state: ObjectState, spec: NormalizedProblemata, tenant: str, content: SnapshotRow
) -> CompileOutcome:
    references = problemata_references(state.declared.key.namespace, spec)
    outcome = CompileOutcome(rows=[reference_row(state, tenant, path, ref) for path, ref in references])
    outcome.unresolved = unresolved_references(world, references)
    policy = world.state(references[0][1])
    if policy is not None and isinstance(policy.effective, NormalizedPolicy):
        outcome.unresolved += _surface_findings(spec.body, policy.effective.body)
    if not outcome.unresolved:
        # An agent must never be shown what its policy cannot admit: unlike other kinds, all of it or nothing.
        outcome.rows.append(content)
        outcome.served_generation = state.served_generation
    outcome.warnings = list(_long_names(spec.body, state.declared.key.name))
    # Without this a PolicyProfile that changes would not compile this object again.
    world.add_dependency(state, (ref for _, ref in references))
    return outcome


def problemata_references(namespace: str, spec: NormalizedProblemata) -> list[tuple[str, ObjectKey]]:
    """What the Problemata names, each with the path where it does; the PolicyProfile first."""
    gateway = spec.body["gateway"]
    references = [(_POLICY_PATH, ObjectKey(POLICY_PROFILE.name, namespace, gateway["policyProfileRef"]["name"]))]
    references += [
        (f"spec.gateway.principals[{index}]", ObjectKey(PRINCIPAL.name, namespace, name))
        for index, name in enumerate(gateway["principals"])
    ]
    return references


def _surface_findings(body: dict[str, Any], policy: dict[str, Any]) -> Iterator[Finding]:
    """What keeps requests from ever being admitted at the surface."""
    wanted = body["gateway"]["surfaceId"]
    surface = next((surface for surface in policy["surfaces"] if surface["surfaceId"] == wanted), None)
    if surface is None:
        yield Finding(_SURFACE_PATH, reasons.SURFACE_NOT_FOUND, "is no surface of the PolicyProfile")
        return
    if surface["kind"] != "McpGateway" or not surface["targets"]:
        message = "is not a surface of kind McpGateway with a target"
        yield Finding(_SURFACE_PATH, reasons.SURFACE_NOT_GATEWAY, message)
        return
    servers = {target["name"] for target in surface["targets"] if target.get("kind") == "Mcp"}
    lists, invariants = surface["capabilities"], policy.get("invariants", {})
    # Requests of these two kinds begin no work (INV-099).
    begins = body["payloadKind"] not in {"lease", "query"}
    for index, capability in enumerate(body["capabilities"]):
        path = f"spec.capabilities[{index}]"
        name = capability["id"]
        if any_glob_matches(lists["deny"], name) or not any_glob_matches(lists["allow"], name):
            yield Finding(f"{path}.id", reasons.CAPABILITY_NOT_ADMITTED, "is not admitted by the surface")
        if "tool" in capability:
            yield from _target_findings(path, capability["tool"]["target"], servers, invariants.get("allowedTargets"))
        elif begins and not invariants.get("canSpawn", True):
            message = "begins work, which invariants.canSpawn of the PolicyProfile never admits"
            yield Finding(f"{path}.id", reasons.CAPABILITY_NOT_ADMITTED, message)


def _target_findings(path: str, target: str, servers: set[str], allowed: list[str] | None) -> Iterator[Finding]:
    if target not in servers:
        message = "is no target of the surface with kind Mcp"
        yield Finding(f"{path}.tool.target", reasons.TARGET_NOT_FOUND, message)
    elif allowed is not None and not any_glob_matches(allowed, target):
        message = "is not admitted by invariants.allowedTargets of the PolicyProfile"
        yield Finding(f"{path}.tool.target", reasons.CAPABILITY_NOT_ADMITTED, message)


def _long_names(body: dict[str, Any], name: str) -> Iterator[Finding]:
    for path, exposed in exposed_names(body, name):
        if len(exposed) > SAFE_TOOL_NAME:
            message = f"is shown under a name of more than {SAFE_TOOL_NAME} characters, which some agents refuse"
            yield Finding(path, reasons.TOOL_NAME_LONG, message)
