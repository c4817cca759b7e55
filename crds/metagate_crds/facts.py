"""What compiling needs to know of a valid spec: small, frozen, free of the framework that checked it."""

from dataclasses import dataclass
from typing import Any, Final

from metagate_crds import durations, keysets
from metagate_crds.canonical import canonical, digest, entries
from metagate_crds.models import (
    ManifestSpec,
    PolicyProfileSpec,
    PrincipalBindingSpec,
    PrincipalSpec,
    ProfileSpec,
    Spec,
    TokenIssuerSpec,
)
from metagate_crds.models.principal import PrincipalType, Right, Scope, instant

# Packet field -> field of the spec that supplies it (INV-011).
PROFILE_SECTIONS: Final = {"capabilities": "capabilities", "policy": "policy"}
MANIFEST_SECTIONS: Final = {
    "environment": "environment",
    "memory_map": "memoryMap",
    "polling": "polling",
    "schemas": "schemas",
    "services": "services",
}


@dataclass(frozen=True, slots=True)
class Claim:
    """A subject that a Principal names; `issuer` is None for a service account of its own namespace."""

    path: str
    issuer: str | None
    subject: str


@dataclass(frozen=True, slots=True)
class KeyDigest:
    """An API key as declared: its public id, its digest, and when it stops working (RFC 3339, UTC)."""

    id: str
    sha256: str
    expires_at: str | None


@dataclass(frozen=True, slots=True)
class PrincipalFacts:
    type: PrincipalType
    scope: Scope
    rights: tuple[Right, ...]
    suspended: bool
    claims: tuple[Claim, ...]
    keys: tuple[KeyDigest, ...]


@dataclass(frozen=True, slots=True)
class ProfileFacts:
    body: dict[str, Any]
    sla_seconds: int | None
    required_env: bytes
    sections: dict[str, dict[str, bytes]]


@dataclass(frozen=True, slots=True)
class ManifestFacts:
    body: dict[str, Any]
    sections: dict[str, dict[str, bytes]]


@dataclass(frozen=True, slots=True)
class BindingFacts:
    principal: str
    profile: str
    manifest: str
    components: tuple[str, ...]
    overrides: dict[str, Any] | None
    active: bool


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    body: dict[str, Any]
    policy_hash: str


@dataclass(frozen=True, slots=True)
class IssuerFacts:
    """`namespaces` is None when not declared: any with source Cluster, none otherwise (D-44)."""

    issuer: str | None
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    max_token_lifetime_seconds: int
    source: str
    url: str | None
    keys: tuple[dict[str, Any], ...]
    namespaces: tuple[str, ...] | None
    subject_pattern: str | None


Facts = PrincipalFacts | ProfileFacts | ManifestFacts | BindingFacts | PolicyFacts | IssuerFacts


def facts(model: Spec) -> Facts:
    """The facts of a valid spec."""
    match model:
        case PrincipalBindingSpec():
            return _binding(model)
        case PrincipalSpec():
            return _principal(model)
        case ProfileSpec():
            return _profile(model)
        case ManifestSpec():
            body = model.declared()
            return ManifestFacts(body, {field: entries(body[name]) for field, name in MANIFEST_SECTIONS.items()})
        case PolicyProfileSpec():
            body = model.declared()
            return PolicyFacts(body, digest(canonical(body)))
        case TokenIssuerSpec():
            return _issuer(model)
        case _:
            raise TypeError(type(model).__name__)


def _binding(model: PrincipalBindingSpec) -> BindingFacts:
    overrides = model.overrides.declared() if model.overrides else None
    return BindingFacts(
        principal=model.principal_ref.name,
        profile=model.profile_ref.name,
        manifest=model.manifest_ref.name,
        components=tuple(model.components),
        overrides=overrides or None,
        active=model.active,
    )


def _principal(model: PrincipalSpec) -> PrincipalFacts:
    return PrincipalFacts(
        type=model.type,
        scope=model.scope,
        rights=tuple(sorted(model.rights)),
        suspended=model.suspended,
        claims=tuple(
            Claim(f"spec.subjects[{index}]", None, item.service_account.name)
            if item.service_account
            else Claim(f"spec.subjects[{index}]", item.issuer, item.subject or "")
            for index, item in enumerate(model.subjects)
        ),
        keys=tuple(KeyDigest(key.id, key.sha256, utc(key.expires_at)) for key in model.api_keys),
    )


def _profile(model: ProfileSpec) -> ProfileFacts:
    body = model.declared()
    sections = {field: entries(body[name]) for field, name in PROFILE_SECTIONS.items()}
    required_env = canonical(
        [
            {"name": ref.name, "ref_kind": ref.kind, "ref_name": ref.ref, "required": ref.required}
            for ref in model.secret_refs
        ]
    )
    return ProfileFacts(body, model.startup.sla_seconds, required_env, sections)


def _issuer(model: TokenIssuerSpec) -> IssuerFacts:
    return IssuerFacts(
        issuer=model.issuer,
        audiences=tuple(model.audiences),
        algorithms=tuple(model.algorithms),
        max_token_lifetime_seconds=durations.seconds(model.max_token_lifetime),
        source=model.jwks.source,
        url=model.jwks.url,
        keys=tuple(keysets.public(key) for key in model.jwks.inline.keys) if model.jwks.inline else (),
        namespaces=None if model.namespaces is None else tuple(model.namespaces),
        subject_pattern=model.subject_pattern,
    )


def utc(text: str | None) -> str | None:
    """The same instant in one spelling, so that equal times make equal rows."""
    return None if text is None else instant(text).isoformat()
