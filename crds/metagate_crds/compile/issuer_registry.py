"""Which TokenIssuer has which issuer, and which subjects a namespace may claim of it (D-31, D-37, D-44)."""

from collections.abc import Iterable
from dataclasses import dataclass

from metagate_crds import reasons
from metagate_crds.compile.normalized import NormalizedIssuer, SubjectRef
from metagate_crds.compile.object_state import ObjectState
from metagate_crds.objects import CompileSettings, ObjectKey
from metagate_crds.rules.findings import Finding
from metagate_crds.rules.patterns import subject_permitted


@dataclass(frozen=True, slots=True)
class IssuerRegistry:
    """`owners`: the TokenIssuer of each issuer. `cluster`: the one with source Cluster, and its issuer if known."""

    settings: CompileSettings
    owners: dict[str, tuple[ObjectKey, NormalizedIssuer]]
    cluster: tuple[ObjectKey, NormalizedIssuer, str | None] | None
    conflicts: dict[ObjectKey, Finding]

    @classmethod
    def build(cls, states: Iterable[ObjectState], settings: CompileSettings) -> "IssuerRegistry":
        """The oldest TokenIssuer has the issuer, and the oldest with source Cluster is the cluster's."""
        owners: dict[str, tuple[ObjectKey, NormalizedIssuer]] = {}
        conflicts: dict[ObjectKey, Finding] = {}
        cluster: tuple[ObjectKey, NormalizedIssuer, str | None] | None = None
        # By age, so that nobody can take over an issuer by declaring it once more.
        for state in sorted(states, key=lambda state: state.declared.age):
            spec, key = state.effective, state.declared.key
            if not isinstance(spec, NormalizedIssuer):
                continue
            of_cluster = spec.source == "Cluster"
            issuer = spec.issuer or (settings.cluster_issuer if of_cluster else None)
            if of_cluster and cluster is not None:
                conflicts[key] = _conflict("spec.jwks.source", f"TokenIssuer {cluster[0].name} is the cluster's")
            elif issuer in owners:
                conflicts[key] = _conflict("spec.issuer", f"TokenIssuer {owners[issuer][0].name} has this issuer")
            else:
                if issuer is not None:
                    owners[issuer] = (key, spec)
                if of_cluster:
                    cluster = (key, spec, issuer)
        return cls(settings, owners, cluster, conflicts)

    def issuer_of(self, key: ObjectKey, spec: NormalizedIssuer) -> str | None:
        """The issuer that a TokenIssuer has, declared or discovered; None when unknown or another's."""
        issuer = spec.issuer or (self.settings.cluster_issuer if spec.source == "Cluster" else None)
        return issuer if issuer is not None and self.owners.get(issuer, (None,))[0] == key else None

    def resolve(self, ref: SubjectRef, namespace: str) -> tuple[str, str] | Finding:
        """The issuer and subject that a Principal of this namespace claims, or why it may not."""
        if ref.issuer is None:
            return self._resolve_service_account(ref, namespace)
        path = f"{ref.path}.issuer"
        cluster_issuers = {self.settings.cluster_issuer, self.cluster[2] if self.cluster else None}
        # Spelled out, the subject could be a service account of another namespace.
        if ref.issuer in cluster_issuers:
            return Finding(path, reasons.CLUSTER_SUBJECT, "is the cluster's own; name a serviceAccount instead")
        if ref.issuer == self.settings.jwt_issuer:
            if _admitted(self.settings.jwt_namespaces, namespace):
                return ref.issuer, ref.subject
            return Finding(path, reasons.ISSUER_NOT_ADMITTING, "does not admit this namespace")
        if ref.issuer not in self.owners:
            return Finding(path, reasons.ISSUER_NOT_FOUND, "no TokenIssuer has this issuer")
        _, spec = self.owners[ref.issuer]
        if not _admitted(spec.namespaces or (), namespace):
            return Finding(path, reasons.ISSUER_NOT_ADMITTING, "does not admit this namespace")
        if spec.subject_pattern and not subject_permitted(spec.subject_pattern, namespace, ref.subject):
            return Finding(
                f"{ref.path}.subject", reasons.SUBJECT_NOT_ADMITTED, "is not a subject that this namespace may claim"
            )
        return ref.issuer, ref.subject

    def _resolve_service_account(self, ref: SubjectRef, namespace: str) -> tuple[str, str] | Finding:
        path = f"{ref.path}.serviceAccount"
        _, spec, issuer = self.cluster or (None, None, None)
        if spec is None or issuer is None:
            message = "needs a TokenIssuer with source Cluster and a known issuer"
            return Finding(path, reasons.NO_CLUSTER_ISSUER, message)
        if spec.namespaces is not None and not _admitted(spec.namespaces, namespace):
            message = "the cluster's TokenIssuer does not admit this namespace"
            return Finding(path, reasons.ISSUER_NOT_ADMITTING, message)
        return issuer, f"system:serviceaccount:{namespace}:{ref.subject}"


def _admitted(namespaces: tuple[str, ...], namespace: str) -> bool:
    return "*" in namespaces or namespace in namespaces


def _conflict(path: str, message: str) -> Finding:
    return Finding(path, reasons.ISSUER_CONFLICT, f"older {message}")
