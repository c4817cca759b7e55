"""What an object refers to, looked up for a warning: a reference that does not exist yet, a conflict with an older
object.

A small world of the object and what it refers to is compiled. Conditions of its verdict that are not good become
warnings.
A lookup that fails, or takes too long, gives none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog

from metagate_crds.compile.compiler import compile_world
from metagate_crds.compile.normalized import NormalizedPlanTemplate, NormalizedPolicy, NormalizedProblemata
from metagate_crds.compile.object_state import evaluate
from metagate_crds.compile.plan_templates import NOT_SERVED, template_references
from metagate_crds.compile.policies import policy_references
from metagate_crds.compile.problematas import problemata_references
from metagate_crds.compile.world import World
from metagate_crds.kinds import (
    KINDS,
    MANIFEST,
    PLAN_TEMPLATE,
    POLICY_PROFILE,
    PRINCIPAL,
    PRINCIPAL_BINDING,
    PROBLEMATA,
    PROFILE,
    TOKEN_ISSUER,
    ResourceKind,
)
from metagate_crds.objects import CompileSettings, DeclaredObject, Namespace, ObjectKey
from metagate_crds.reasons import COMPILED, CONFLICTED, RESOLVED_REFS, WARNING
from metagate_crds.validation import validate
from metagate_crds.verdict import Condition
from metagate_operator.cluster.kubernetes_client import KubernetesClient, KubernetesError, collection_path, get_by_name
from metagate_operator.cluster.object_cache import declared_object

log = structlog.get_logger(__name__)

BUDGET_SECONDS = 1.0
LIMIT = 500
WARNED_STATUSES = {RESOLVED_REFS: "False", COMPILED: "False", CONFLICTED: "True", WARNING: "True"}
NEW = "new"
STAND_INS: Mapping[str, Mapping[str, Any]] = {
    PRINCIPAL.name: {"type": "component"},
    PROFILE.name: {},
    MANIFEST.name: {"deploymentKey": "served", "version": 1},
    POLICY_PROFILE.name: {"limits": {"maxSpawnDepth": 0}},
}
REFERENCES = (("principalRef", PRINCIPAL), ("profileRef", PROFILE), ("manifestRef", MANIFEST))


class ReferenceChecker:
    """Looks up what one object refers to or conflicts with."""

    def __init__(self, kubernetes: KubernetesClient, settings: CompileSettings) -> None:
        self._kubernetes = kubernetes
        self._settings = settings

    async def warnings(self, request: Mapping[str, Any]) -> tuple[str, ...]:
        """What would keep the object from being served if nothing else changed."""
        try:
            async with asyncio.timeout(BUDGET_SECONDS):
                subject = _subject(request)
                around = await self._around(subject)
        except (KubernetesError, TimeoutError) as error:
            log.info("neighbours_unreadable", error=str(error) or type(error).__name__)
            return ()
        return reference_warnings(subject, around, self._settings)

    async def _around(self, subject: DeclaredObject) -> Sequence[DeclaredObject]:
        namespace = subject.key.namespace
        spec = subject.spec if isinstance(subject.spec, dict) else {}
        if subject.key.kind == PRINCIPAL_BINDING.name:
            name = str(_ref(spec, "principalRef"))
            wanted = [self._one(kind, namespace, str(_ref(spec, field))) for field, kind in REFERENCES]
            wanted += [
                self._all(PRINCIPAL_BINDING, namespace, f"spec.principalRef.name={name}"),
                self._all(TOKEN_ISSUER),
            ]
        elif subject.key.kind == PRINCIPAL.name:
            wanted = [self._all(PRINCIPAL, namespace), self._all(TOKEN_ISSUER)]
        elif subject.key.kind == TOKEN_ISSUER.name:
            wanted = [self._all(TOKEN_ISSUER)]
        elif subject.key.kind in {POLICY_PROFILE.name, PROBLEMATA.name}:
            references = _references(subject, self._settings)
            wanted = [self._one(KINDS[ref.kind], namespace, ref.name) for ref in references]
        elif subject.key.kind == PLAN_TEMPLATE.name:
            # All templates: of another that has its capability already, or leads back to it, nothing here has the name.
            principals = {ref for ref in _references(subject, self._settings) if ref.kind == PRINCIPAL.name}
            wanted = [self._one(PRINCIPAL, namespace, ref.name) for ref in principals]
            wanted.append(self._all(PLAN_TEMPLATE, namespace))
        else:
            wanted = []
        return [
            declared for objects in await asyncio.gather(*wanted) for declared in objects if declared.key != subject.key
        ]

    async def _one(self, kind: ResourceKind, namespace: str, name: str) -> list[DeclaredObject]:
        body = await get_by_name(self._kubernetes, kind.name, namespace, name) if name else None
        return [] if body is None else [_served_or_stand_in(kind, body)]

    async def _all(self, kind: ResourceKind, namespace: str = "", selector: str = "") -> list[DeclaredObject]:
        query: dict[str, str | int] = {"limit": LIMIT, **({"fieldSelector": selector} if selector else {})}
        page = await self._kubernetes.call("GET", collection_path(kind, namespace), query=query)
        return [declared_object(kind.name, item) for item in page["items"]]


def reference_warnings(
    subject: DeclaredObject, around: Sequence[DeclaredObject], settings: CompileSettings
) -> tuple[str, ...]:
    """The messages of the conditions that the subject would have among these objects and that are not good."""
    namespace = Namespace(subject.key.namespace, NEW, subject.created)
    # the rules about whom a token belongs to are about the cluster's issuer by its kind, not by its discovered name
    settings = replace(settings, cluster_issuer=settings.cluster_issuer or "https://cluster.invalid")
    world = World(settings, [namespace] if namespace.name else [], [*around, subject])
    verdict = compile_world(world, {}, frozenset({subject.key})).verdicts[subject.key]
    against = [
        condition
        for condition in verdict.conditions
        if WARNED_STATUSES.get(condition.type) == condition.status and condition.message
    ]
    stands_in = any(declared.spec is STAND_INS.get(declared.key.kind) for declared in around)
    if stands_in and subject.key.kind == PRINCIPAL_BINDING.name:
        # a stand-in says nothing of what its object declares
        against = [condition for condition in against if condition.type != WARNING]
    parts = [part for condition in _causes(against) for part in condition.message.split("; ")]
    if stands_in and subject.key.kind == PROBLEMATA.name:
        parts = [part for part in parts if not part.startswith("spec.gateway.surfaceId:")]
    if subject.key.kind == PLAN_TEMPLATE.name:
        # What the templates name that it includes was not looked up.
        parts = [part for part in parts if not part.endswith(NOT_SERVED)]
    return tuple(parts)


def _causes(against: Sequence[Condition]) -> Sequence[Condition]:
    """Without what follows from the others."""
    return [
        condition for condition in against if condition.type != COMPILED
    ] or against  # that nothing is served then needs no saying


def _references(subject: DeclaredObject, settings: CompileSettings) -> set[ObjectKey]:
    """What a PolicyProfile, a Problemata or a PlanTemplate names; nothing while its spec is invalid."""
    match evaluate(subject, settings).normalized:
        case NormalizedPolicy() as policy:
            references = policy_references(subject.key.namespace, policy)
        case NormalizedProblemata() as problemata:
            references = problemata_references(subject.key.namespace, problemata)
        case NormalizedPlanTemplate() as template:
            references = template_references(subject.key.namespace, template)
        case _:
            references = []
    return {ref for _, ref in references}


def _subject(request: Mapping[str, Any]) -> DeclaredObject:
    body = request["object"]
    metadata = body.get("metadata") or {}
    kind = KINDS[request["kind"]["kind"]]
    key = ObjectKey(
        kind.name,
        request.get("namespace") or "" if kind.namespaced else "",
        request.get("name") or metadata.get("name", ""),
    )
    created = metadata.get("creationTimestamp")
    return DeclaredObject(
        key=key,
        uid=metadata.get("uid") or NEW,
        generation=metadata.get("generation") or 1,
        created=datetime.fromisoformat(created) if created else datetime.now(UTC),
        spec=body.get("spec"),
    )


def _served_or_stand_in(kind: ResourceKind, body: Mapping[str, Any]) -> DeclaredObject:
    """The referenced object. When its present spec is refused and an earlier one is served, a stand-in: what the served
    one says is not known here, but it resolves.
    """
    referenced = declared_object(kind.name, body)
    served = ((body.get("status") or {}).get("snapshot") or {}).get("generation")
    if served and kind.name in STAND_INS and validate(kind.name, referenced.spec, namespace=referenced.key.namespace):
        return replace(referenced, spec=STAND_INS[kind.name])
    return referenced


def _ref(spec: Mapping[str, Any], field: str) -> object:
    reference = spec.get(field)
    return reference.get("name", "") if isinstance(reference, dict) else ""
