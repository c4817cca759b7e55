"""The kinds that people declare, and the names that each has in Kubernetes, texts and paths."""

from dataclasses import dataclass
from typing import Final

GROUP: Final = "metagate.legivellum.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """One kind; `noun` is its word in texts and API paths (D-55: a PrincipalBinding is a binding there)."""

    name: str
    plural: str
    singular: str
    short: tuple[str, ...]
    noun: str
    namespaced: bool = True


TOKEN_ISSUER: Final = ResourceKind("TokenIssuer", "tokenissuers", "tokenissuer", ("ti",), "issuer", namespaced=False)
PRINCIPAL: Final = ResourceKind("Principal", "principals", "principal", ("prin",), "principal")
PROFILE: Final = ResourceKind("Profile", "profiles", "profile", ("prof",), "profile")
MANIFEST: Final = ResourceKind("Manifest", "manifests", "manifest", ("mf",), "manifest")
PRINCIPAL_BINDING: Final = ResourceKind("PrincipalBinding", "principalbindings", "principalbinding", ("pb",), "binding")
POLICY_PROFILE: Final = ResourceKind("PolicyProfile", "policyprofiles", "policyprofile", ("pp",), "policy-profile")
PROBLEMATA: Final = ResourceKind("Problemata", "problematas", "problemata", ("pm",), "problemata")
PLAN_TEMPLATE: Final = ResourceKind("PlanTemplate", "plantemplates", "plantemplate", ("pt",), "plan-template")

KINDS: Final[dict[str, ResourceKind]] = {
    kind.name: kind
    for kind in (
        TOKEN_ISSUER,
        PRINCIPAL,
        PROFILE,
        MANIFEST,
        PRINCIPAL_BINDING,
        POLICY_PROFILE,
        PROBLEMATA,
        PLAN_TEMPLATE,
    )
}
