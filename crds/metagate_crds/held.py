"""What the world keeps of one object: what was found, what is wrong with it, and what of it counts."""

from dataclasses import dataclass
from typing import Any

from metagate_crds.declared import CompileSettings, Declared, LastGood, ObjectKey
from metagate_crds.facts import BindingFacts, Facts, IssuerFacts, PrincipalFacts, facts
from metagate_crds.kinds import MANIFEST, PRINCIPAL, PROFILE
from metagate_crds.restriction import restricted
from metagate_crds.snapshot import Row
from metagate_crds.validation import examined
from metagate_crds.verdict import Finding

Token = tuple[str, ...]
"""Something that only one object can have: objects that hold the same token decide about it between them."""


@dataclass(slots=True)
class Held:
    """One object. `facts` is None while its spec is invalid; `effective` is what counts, None when nothing does."""

    declared: Declared
    findings: tuple[Finding, ...]
    facts: Facts | None
    good: Declared | None = None
    good_facts: Facts | None = None
    effective: Facts | None = None
    tokens: frozenset[Token] = frozenset()
    refs: tuple[ObjectKey, ...] = ()
    also: frozenset[ObjectKey] = frozenset()
    row: tuple[str, int, Row] | None = None
    references: tuple[str, tuple[Row, ...]] | None = None
    resource: Row | None = None

    @property
    def served_generation(self) -> int | None:
        if self.facts is not None:
            return self.declared.generation
        return self.good.generation if self.effective is not None and self.good is not None else None


def held(declared: Declared, settings: CompileSettings, known: Held | None = None) -> Held:
    """Examine one object, unless it is `known`: the very same was examined by the same settings."""
    if known is not None and known.declared is declared:
        counted, findings = known.facts, known.findings
    else:
        counted, findings = _examined(declared, settings)
    found = Held(declared, findings, counted, effective=counted)
    _index(found, settings)
    return found


def fall_back(found: Held, good: Declared | None, settings: CompileSettings, known: Facts | None = None) -> None:
    """Let the last good version count, restricted by the present one (D-20, D-33). Only of invalid objects."""
    found.good = good
    # A last good spec is examined like any other: rules grow stricter, and the database is no authority on them.
    found.good_facts = None if good is None else known or _examined(good, settings)[0]
    found.effective = None if found.good_facts is None else restricted(found.good_facts, found.declared.spec)
    found.row = None
    _index(found, settings)


def last_good_facts(found: Held, last_good: LastGood, settings: CompileSettings) -> Facts | None:
    """The facts of another, earlier valid version of a valid object; None when there is none."""
    good = last_good.get(found.declared.uid)
    if good is None or good.generation == found.declared.generation:
        return None
    if found.good is not good:
        found.good, found.good_facts = good, _examined(good, settings)[0]
    return None if found.good_facts is None else restricted(found.good_facts, found.declared.spec)


def _examined(declared: Declared, settings: CompileSettings) -> tuple[Facts | None, tuple[Finding, ...]]:
    model, findings = examined(
        declared.key.kind,
        declared.spec,
        namespace=declared.key.namespace,
        system_namespace=settings.system_namespace,
        reserved_issuer=settings.jwt_issuer,
    )
    return None if model is None else facts(model), findings


def _index(found: Held, settings: CompileSettings) -> None:
    found.references = None
    namespace = found.declared.key.namespace
    match found.effective:
        case BindingFacts() as binding:
            found.tokens = frozenset({active_token(namespace, binding.principal)})
            found.refs = (
                ObjectKey(PRINCIPAL.name, namespace, binding.principal),
                ObjectKey(PROFILE.name, namespace, binding.profile),
                ObjectKey(MANIFEST.name, namespace, binding.manifest),
            )
        case PrincipalFacts() as principal:
            found.tokens = frozenset(
                {subject_token(namespace, claim.issuer, claim.subject) for claim in principal.claims}
                | {key_token(key.sha256) for key in principal.keys}
            )
            found.refs = ()
        case IssuerFacts() as issuer:
            url = issuer.issuer or (settings.cluster_issuer if issuer.source == "Cluster" else None)
            found.tokens = frozenset(
                ({("issuer", url)} if url else set()) | ({CLUSTER} if issuer.source == "Cluster" else set[Any]())
            )
            found.refs = ()
        case _:
            found.tokens, found.refs = frozenset(), ()


CLUSTER: Token = ("cluster",)


def active_token(namespace: str, principal: str) -> Token:
    return ("active", namespace, principal)


def subject_token(namespace: str, issuer: str | None, subject: str) -> Token:
    return ("account", namespace, subject) if issuer is None else ("subject", issuer, subject)


def key_token(sha256: str) -> Token:
    return ("key", sha256)


def trust_tokens(found: Held) -> frozenset[Token]:
    """The issuers that a Principal's subjects rest on."""
    if not isinstance(found.effective, PrincipalFacts):
        return frozenset()
    return frozenset(CLUSTER if claim.issuer is None else ("issuer", claim.issuer) for claim in found.effective.claims)
