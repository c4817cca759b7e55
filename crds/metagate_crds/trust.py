"""Which TokenIssuer speaks for which issuer, and which subjects a namespace may claim of it (D-31, D-37, D-44)."""

from collections.abc import Iterable
from dataclasses import dataclass

from metagate_crds import reasons, subjects
from metagate_crds.declared import CompileSettings, ObjectKey
from metagate_crds.facts import Claim, IssuerFacts
from metagate_crds.held import Held
from metagate_crds.verdict import Finding


@dataclass(frozen=True, slots=True)
class Trust:
    """`owners`: by issuer. `cluster`: the one with source Cluster and the issuer it has, which may be unknown."""

    settings: CompileSettings
    owners: dict[str, tuple[ObjectKey, IssuerFacts]]
    cluster: tuple[ObjectKey, IssuerFacts, str | None] | None
    conflicts: dict[ObjectKey, Finding]

    @classmethod
    def among(cls, issuers: Iterable[Held], settings: CompileSettings) -> "Trust":
        """The oldest TokenIssuer has the issuer, and the oldest with source Cluster is the cluster's."""
        trust = cls(settings, {}, None, {})
        cluster = None
        for found in sorted(issuers, key=lambda found: found.declared.age):
            facts, key = found.effective, found.declared.key
            if not isinstance(facts, IssuerFacts):
                continue
            local = facts.source == "Cluster"
            issuer = facts.issuer or (settings.cluster_issuer if local else None)
            if local and cluster is not None:
                trust.conflicts[key] = _conflict("spec.jwks.source", f"TokenIssuer {cluster[0].name} is the cluster's")
            elif issuer in trust.owners:
                owner = trust.owners[issuer][0].name
                trust.conflicts[key] = _conflict("spec.issuer", f"TokenIssuer {owner} has this issuer")
            else:
                if issuer is not None:
                    trust.owners[issuer] = (key, facts)
                if local:
                    cluster = (key, facts, issuer)
        return cls(settings, trust.owners, cluster, trust.conflicts)

    def issuer_of(self, key: ObjectKey, facts: IssuerFacts) -> str | None:
        """The issuer that a TokenIssuer has, declared or discovered; None when unknown or another's."""
        issuer = facts.issuer or (self.settings.cluster_issuer if facts.source == "Cluster" else None)
        return issuer if issuer is not None and self.owners.get(issuer, (None,))[0] == key else None

    def resolve(self, claim: Claim, namespace: str) -> tuple[str, str] | Finding:
        """The issuer and subject that a Principal of this namespace claims, or why it may not."""
        if claim.issuer is None:
            return self._account(claim, namespace)
        path = f"{claim.path}.issuer"
        local = {self.settings.cluster_issuer, self.cluster[2] if self.cluster else None}
        if claim.issuer in local:
            return Finding(path, reasons.CLUSTER_SUBJECT, "is the cluster's own; name a serviceAccount instead")
        if claim.issuer == self.settings.jwt_issuer:
            if _admitted(self.settings.jwt_namespaces, namespace):
                return claim.issuer, claim.subject
            return Finding(path, reasons.ISSUER_NOT_ADMITTING, "does not admit this namespace")
        if claim.issuer not in self.owners:
            return Finding(path, reasons.ISSUER_NOT_FOUND, "no TokenIssuer has this issuer")
        facts = self.owners[claim.issuer][1]
        if not _admitted(facts.namespaces or (), namespace):
            return Finding(path, reasons.ISSUER_NOT_ADMITTING, "does not admit this namespace")
        if facts.subject_pattern and not subjects.admits(facts.subject_pattern, namespace, claim.subject):
            return Finding(
                f"{claim.path}.subject", reasons.SUBJECT_NOT_ADMITTED, "is not a subject that this namespace may claim"
            )
        return claim.issuer, claim.subject

    def _account(self, claim: Claim, namespace: str) -> tuple[str, str] | Finding:
        path = f"{claim.path}.serviceAccount"
        if self.cluster is None or self.cluster[2] is None:
            return Finding(
                path, reasons.NO_CLUSTER_ISSUER, "needs a TokenIssuer with source Cluster and a known issuer"
            )
        facts = self.cluster[1]
        if facts.namespaces is not None and not _admitted(facts.namespaces, namespace):
            return Finding(
                path, reasons.ISSUER_NOT_ADMITTING, "the cluster's TokenIssuer does not admit this namespace"
            )
        return self.cluster[2], f"system:serviceaccount:{namespace}:{claim.subject}"


def _admitted(namespaces: tuple[str, ...], namespace: str) -> bool:
    return "*" in namespaces or namespace in namespaces


def _conflict(path: str, message: str) -> Finding:
    return Finding(path, reasons.ISSUER_CONFLICT, f"older {message}")
