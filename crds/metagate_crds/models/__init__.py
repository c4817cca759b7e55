"""The kinds as they are declared. Field names are the contract's (camelCase on the wire)."""

from metagate_crds.kinds import (
    MANIFEST,
    PLAN_TEMPLATE,
    POLICY_PROFILE,
    PRINCIPAL,
    PRINCIPAL_BINDING,
    PROBLEMATA,
    PROFILE,
    TOKEN_ISSUER,
)
from metagate_crds.models.binding import PrincipalBindingSpec
from metagate_crds.models.issuer import TokenIssuerSpec
from metagate_crds.models.manifest import ManifestSpec
from metagate_crds.models.plan_template import PlanTemplateSpec
from metagate_crds.models.policy import PolicyProfileSpec
from metagate_crds.models.principal import PrincipalSpec
from metagate_crds.models.problemata import ProblemataSpec
from metagate_crds.models.profile import ProfileSpec
from metagate_crds.models.spec import Spec

SPECS: dict[str, type[Spec]] = {
    TOKEN_ISSUER.name: TokenIssuerSpec,
    PRINCIPAL.name: PrincipalSpec,
    PROFILE.name: ProfileSpec,
    MANIFEST.name: ManifestSpec,
    PRINCIPAL_BINDING.name: PrincipalBindingSpec,
    POLICY_PROFILE.name: PolicyProfileSpec,
    PROBLEMATA.name: ProblemataSpec,
    PLAN_TEMPLATE.name: PlanTemplateSpec,
}

__all__ = [
    "SPECS",
    "ManifestSpec",
    "PlanTemplateSpec",
    "PolicyProfileSpec",
    "PrincipalBindingSpec",
    "PrincipalSpec",
    "ProblemataSpec",
    "ProfileSpec",
    "Spec",
    "TokenIssuerSpec",
]
