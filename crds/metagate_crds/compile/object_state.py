"""What the world keeps of one object: as it was declared, what is wrong with it, and which version of it counts."""

from dataclasses import dataclass
from typing import Any

from metagate_crds.compile.last_good import restrict_last_good
from metagate_crds.compile.normalized import (
    NormalizedBinding,
    NormalizedIssuer,
    NormalizedPlanTemplate,
    NormalizedPrincipal,
    NormalizedSpec,
    normalize,
)
from metagate_crds.compile.snapshot import SnapshotRow
from metagate_crds.kinds import MANIFEST, PRINCIPAL, PROFILE
from metagate_crds.objects import CompileSettings, DeclaredObject, LastGood, ObjectKey
from metagate_crds.rules.findings import Finding
from metagate_crds.validation import parse_spec

UniqueKey = tuple[str, ...]
"""Something that only one object can have: objects that claim the same one decide about it between them."""

CLUSTER_KEY: UniqueKey = ("cluster",)


@dataclass(slots=True)
class ObjectState:
    """One object of the world.

    `normalized` is the present spec, None while it is invalid; `effective` is the version that counts, None when none
    does. For an invalid object that is its last good version, restricted by the present one. `dependency_refs` are
    what compiling it looked at besides (`World.add_dependency`).

    The `cached_` fields remember rows that compiling makes again otherwise; they change its speed and no answer.
    """

    declared: DeclaredObject
    findings: tuple[Finding, ...]
    normalized: NormalizedSpec | None
    last_good: DeclaredObject | None = None
    last_good_normalized: NormalizedSpec | None = None
    effective: NormalizedSpec | None = None
    unique_keys: frozenset[UniqueKey] = frozenset()
    refs: tuple[ObjectKey, ...] = ()
    dependency_refs: frozenset[ObjectKey] = frozenset()
    cached_content: tuple[str, int, SnapshotRow] | None = None
    cached_references: tuple[str, tuple[SnapshotRow, ...]] | None = None
    cached_resource: SnapshotRow | None = None

    @property
    def served_generation(self) -> int | None:
        """The generation of the version that counts."""
        if self.normalized is not None:
            return self.declared.generation
        if self.effective is not None and self.last_good is not None:
            return self.last_good.generation
        return None


def evaluate(declared: DeclaredObject, settings: CompileSettings, known: ObjectState | None = None) -> ObjectState:
    """Validate and normalize one object, unless `known` did it already: the very same object, by the same settings."""
    if known is not None and known.declared is declared:
        normalized, findings = known.normalized, known.findings
    else:
        normalized, findings = _parse(declared, settings)
    state = ObjectState(declared, findings, normalized, effective=normalized)
    _index(state, settings)
    return state


def fall_back(
    state: ObjectState,
    last_good: DeclaredObject | None,
    settings: CompileSettings,
    known: NormalizedSpec | None = None,
) -> None:
    """Let the last good version of an invalid object count, restricted by the present one (D-20, D-33)."""
    state.last_good = last_good
    # A last good spec is validated too: rules grow stricter, and the database is no authority on them. Only bounds that
    # were merely narrowed do not count, else the upgrade that narrows them would take away what is served.
    state.last_good_normalized = None if last_good is None else known or _parse(last_good, settings, stored=True)[0]
    good = state.last_good_normalized
    state.effective = None if good is None else restrict_last_good(good, state.declared.spec)
    state.cached_content = None
    _index(state, settings)


def earlier_version(state: ObjectState, last_good: LastGood, settings: CompileSettings) -> NormalizedSpec | None:
    """An earlier valid version of a valid object, restricted by the present one; None when there is none."""
    good = last_good.get(state.declared.uid)
    if good is None or good.generation == state.declared.generation:
        return None
    # Parsed once per version: compiling asks again whenever something that the Binding refers to changes.
    if state.last_good is not good:
        state.last_good, state.last_good_normalized = good, _parse(good, settings, stored=True)[0]
    normalized = state.last_good_normalized
    return None if normalized is None else restrict_last_good(normalized, state.declared.spec)


def _parse(
    declared: DeclaredObject, settings: CompileSettings, *, stored: bool = False
) -> tuple[NormalizedSpec | None, tuple[Finding, ...]]:
    model, findings = parse_spec(
        declared.key.kind,
        declared.spec,
        namespace=declared.key.namespace,
        name=declared.key.name,
        system_namespace=settings.system_namespace,
        reserved_issuer=settings.jwt_issuer,
        stored=stored,
    )
    return None if model is None else normalize(model), findings


def _index(state: ObjectState, settings: CompileSettings) -> None:
    """Set what the effective version refers to and what it claims for itself."""
    state.cached_references = None  # they are made of `refs`, which change below
    state.refs, state.unique_keys = (), frozenset()
    namespace = state.declared.key.namespace
    match state.effective:
        case NormalizedBinding() as binding:
            state.unique_keys = frozenset({active_binding_key(namespace, binding.principal)})
            state.refs = (
                ObjectKey(PRINCIPAL.name, namespace, binding.principal),
                ObjectKey(PROFILE.name, namespace, binding.profile),
                ObjectKey(MANIFEST.name, namespace, binding.manifest),
            )
        case NormalizedPrincipal() as principal:
            state.unique_keys = frozenset(
                {subject_key(namespace, ref.issuer, ref.subject) for ref in principal.subjects}
                | {key_digest_key(key.sha256) for key in principal.api_keys}
            )
        case NormalizedPlanTemplate() as template:
            state.unique_keys = frozenset({capability_key(namespace, template.capability)})
        case NormalizedIssuer() as issuer:
            url = issuer.issuer or (settings.cluster_issuer if issuer.source == "Cluster" else None)
            state.unique_keys = frozenset(
                ({("issuer", url)} if url else set()) | ({CLUSTER_KEY} if issuer.source == "Cluster" else set[Any]())
            )
        case _:
            pass


def active_binding_key(namespace: str, principal: str) -> UniqueKey:
    return ("active", namespace, principal)


def capability_key(namespace: str, capability: str) -> UniqueKey:
    return ("capability", namespace, capability)


def subject_key(namespace: str, issuer: str | None, subject: str) -> UniqueKey:
    return ("account", namespace, subject) if issuer is None else ("subject", issuer, subject)


def key_digest_key(sha256: str) -> UniqueKey:
    return ("key", sha256)


def issuer_keys(state: ObjectState) -> frozenset[UniqueKey]:
    """The issuers that a Principal's subjects depend on."""
    if not isinstance(state.effective, NormalizedPrincipal):
        return frozenset()
    return frozenset(CLUSTER_KEY if ref.issuer is None else ("issuer", ref.issuer) for ref in state.effective.subjects)
