"""A valid spec as compiling needs it: small, frozen, free of the framework that checked it, defaults filled in."""

from dataclasses import dataclass
from typing import Any, Final

from legivellum.base.public_jwk import JwkSet, parse_jwk_set
from metagate_crds.canonical_json import canonical, digest, encode_members
from metagate_crds.models import (
    ManifestSpec,
    PlanTemplateSpec,
    PolicyProfileSpec,
    PrincipalBindingSpec,
    PrincipalSpec,
    ProblemataSpec,
    ProfileSpec,
    Spec,
    TokenIssuerSpec,
)
from metagate_crds.models.policy import GATE_EMITTERS
from metagate_crds.models.principal import PrincipalType, Right, Scope, instant
from metagate_crds.models.spec import seconds

# Packet field -> field of the spec that supplies it (INV-011).
PROFILE_SECTIONS: Final = {"capabilities": "capabilities", "policy": "policy"}
MANIFEST_SECTIONS: Final = {
    "environment": "environment",
    "memory_map": "memoryMap",
    "polling": "polling",
    "schemas": "schemas",
    "services": "services",
}

Sections = dict[str, dict[str, bytes]]
"""Packet field -> canonical JSON of each of its members, so that an override encodes again only what it touches."""


@dataclass(frozen=True, slots=True)
class SubjectRef:
    """A token subject that a Principal names; `issuer` is None for a service account of its own namespace."""

    path: str
    issuer: str | None
    subject: str


@dataclass(frozen=True, slots=True)
class ApiKeyDigest:
    """An API key as declared: its public id, its digest, and when it stops working (RFC 3339, UTC)."""

    id: str
    sha256: str
    expires_at: str | None


@dataclass(frozen=True, slots=True)
class NormalizedPrincipal:
    type: PrincipalType
    scope: Scope
    rights: tuple[Right, ...]
    suspended: bool
    subjects: tuple[SubjectRef, ...]
    api_keys: tuple[ApiKeyDigest, ...]


@dataclass(frozen=True, slots=True)
class NormalizedProfile:
    body: dict[str, Any]
    sla_seconds: int | None
    required_env: bytes
    secret_names: frozenset[str]
    sections: Sections


@dataclass(frozen=True, slots=True)
class NormalizedManifest:
    body: dict[str, Any]
    sections: Sections


@dataclass(frozen=True, slots=True)
class NormalizedBinding:
    """`principal`, `profile` and `manifest` are names in the Binding's own namespace."""

    principal: str
    profile: str
    manifest: str
    components: tuple[str, ...]
    overrides: dict[str, Any] | None
    active: bool


@dataclass(frozen=True, slots=True)
class NormalizedPolicy:
    """`escalations`: the path of each `escalateTo` that names a Principal, and the name."""

    body: dict[str, Any]
    policy_hash: str
    shadow: str | None
    escalations: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class NormalizedProblemata:
    body: dict[str, Any]
    content_hash: str


@dataclass(frozen=True, slots=True)
class NormalizedPlanTemplate:
    """`principals`, `templates`: what it names, each with its path there. `included`: the names of those templates."""

    body: dict[str, Any]
    content_hash: str
    capability: str
    principals: tuple[tuple[str, str], ...]
    templates: tuple[tuple[str, str], ...]
    included: frozenset[str]


@dataclass(frozen=True, slots=True)
class NormalizedIssuer:
    """`namespaces` is None when not declared: any with source Cluster, none otherwise (D-44). `key_set` is the inline
    one, empty with another source.
    """

    issuer: str | None
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    max_token_lifetime_seconds: int
    source: str
    url: str | None
    key_set: JwkSet
    namespaces: tuple[str, ...] | None
    subject_pattern: str | None


NormalizedSpec = (
    NormalizedPrincipal
    | NormalizedProfile
    | NormalizedManifest
    | NormalizedBinding
    | NormalizedPolicy
    | NormalizedProblemata
    | NormalizedPlanTemplate
    | NormalizedIssuer
)


def normalize(model: Spec) -> NormalizedSpec:
    """The normalized form of a valid spec."""
    match model:
        case PrincipalBindingSpec():
            return _normalize_binding(model)
        case PrincipalSpec():
            return _normalize_principal(model)
        case ProfileSpec():
            return _normalize_profile(model)
        case ManifestSpec():
            body = model.declared()
            return NormalizedManifest(body, _sections(body, MANIFEST_SECTIONS))
        case PolicyProfileSpec():
            return _normalize_policy(model)
        case ProblemataSpec():
            return normalize_problemata(model.declared())
        case PlanTemplateSpec():
            return normalize_plan_template(model.declared())
        case TokenIssuerSpec():
            return _normalize_issuer(model)
        case _:
            raise TypeError(type(model).__name__)


def _sections(body: dict[str, Any], fields: dict[str, str]) -> Sections:
    return {field: encode_members(body[name]) for field, name in fields.items()}


def _normalize_binding(model: PrincipalBindingSpec) -> NormalizedBinding:
    overrides = model.overrides.declared() if model.overrides else None
    return NormalizedBinding(
        principal=model.principal_ref.name,
        profile=model.profile_ref.name,
        manifest=model.manifest_ref.name,
        components=tuple(model.components),
        overrides=overrides or None,
        active=model.active,
    )


def _normalize_principal(model: PrincipalSpec) -> NormalizedPrincipal:
    return NormalizedPrincipal(
        type=model.type,
        scope=model.scope,
        rights=tuple(sorted(model.rights)),
        suspended=model.suspended,
        subjects=tuple(
            SubjectRef(f"spec.subjects[{index}]", None, subject.service_account.name)
            if subject.service_account
            else SubjectRef(f"spec.subjects[{index}]", subject.issuer, subject.subject or "")
            for index, subject in enumerate(model.subjects)
        ),
        api_keys=tuple(ApiKeyDigest(key.id, key.sha256, to_utc(key.expires_at)) for key in model.api_keys),
    )


def _normalize_profile(model: ProfileSpec) -> NormalizedProfile:
    body = model.declared()
    required_env = canonical(
        [
            {"name": ref.name, "ref_kind": ref.kind, "ref_name": ref.ref, "required": ref.required}
            for ref in model.secret_refs
        ]
    )
    secret_names = frozenset(ref.name for ref in model.secret_refs)
    sections = _sections(body, PROFILE_SECTIONS)
    return NormalizedProfile(body, model.startup.sla_seconds, required_env, secret_names, sections)


def _normalize_policy(model: PolicyProfileSpec) -> NormalizedPolicy:
    body = model.declared()
    return NormalizedPolicy(
        body=body,
        policy_hash=digest(canonical(body)),
        shadow=model.shadow.policy_profile_ref.name if model.shadow else None,
        escalations=tuple(
            (f"spec.surfaces[{index}].escalateTo", surface.escalate_to)
            for index, surface in enumerate(model.surfaces)
            if surface.escalate_to is not None and surface.escalate_to not in GATE_EMITTERS
        ),
    )


def normalize_problemata(body: dict[str, Any]) -> NormalizedProblemata:
    """`body` as `Spec.declared` has it."""
    return NormalizedProblemata(body, digest(canonical(body)))


def normalize_plan_template(body: dict[str, Any]) -> NormalizedPlanTemplate:
    """`body`: as `Spec.declared` has it."""
    principals = [(f"spec.{name}", body[name]) for name in ("approver", "escalateTo") if name in body]
    principals += _escalation_targets("spec", body)
    templates = []
    for index, step in enumerate(body["steps"]):
        path = f"spec.steps[{index}]"
        principals += _escalation_targets(path, step)
        if "plan" in step:
            templates.append((f"{path}.plan.templateRef", step["plan"]["templateRef"]["name"]))
    return NormalizedPlanTemplate(
        body=body,
        content_hash=digest(canonical(body)),
        capability=body["capability"],
        principals=tuple(principals),
        templates=tuple(templates),
        included=frozenset(name for _, name in templates),
    )


def _escalation_targets(path: str, part: dict[str, Any]) -> list[tuple[str, str]]:
    return [(f"{path}.escalation[{index}].to", rule["to"]) for index, rule in enumerate(part.get("escalation", ()))]


def _normalize_issuer(model: TokenIssuerSpec) -> NormalizedIssuer:
    return NormalizedIssuer(
        issuer=model.issuer,
        audiences=tuple(model.audiences),
        algorithms=tuple(model.algorithms),
        max_token_lifetime_seconds=seconds(model.max_token_lifetime),
        source=model.jwks.source,
        url=model.jwks.url,
        key_set=parse_jwk_set(model.jwks.inline.keys if model.jwks.inline else (), model.algorithms),
        namespaces=None if model.namespaces is None else tuple(model.namespaces),
        subject_pattern=model.subject_pattern,
    )


def to_utc(text: str | None) -> str | None:
    """The same instant in one spelling, so that equal times make equal rows."""
    return None if text is None else instant(text).isoformat()
