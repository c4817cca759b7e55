"""Compiling a Principal: who it is, which token subjects and which API keys are its own (D-13, D-45)."""

from metagate_crds import reasons
from metagate_crds.facts import Claim, PrincipalFacts
from metagate_crds.held import Held, key_token, subject_token
from metagate_crds.outcome import Outcome
from metagate_crds.snapshot import Row
from metagate_crds.verdict import Finding
from metagate_crds.world import World


def compile_principal(world: World, found: Held, facts: PrincipalFacts, tenant: str) -> Outcome:
    key = found.declared.key
    outcome = Outcome(served_generation=found.served_generation)
    who = {"tenant": tenant, "principal_key": key.name}
    outcome.rows.append(
        Row(
            "principal",
            (tenant, key.name),
            {
                **who,
                "type": facts.type,
                "scope": facts.scope,
                "rights": list(facts.rights),
                "suspended": facts.suspended,
                "generation": found.served_generation,
            },
        )
    )
    for claim in facts.claims:
        _subject(world, found, claim, who, outcome)
    for index, digest in enumerate(facts.keys):
        holder = _oldest_with_key(world, digest.sha256)
        if holder is found:
            values = {"sha256": digest.sha256, "key_id": digest.id, **who, "expires_at": digest.expires_at}
            outcome.rows.append(Row("api_key", (digest.sha256,), values))
        elif holder is not None:
            said = f"{_whose(holder, found)} already has this key"
            outcome.conflicts.append(Finding(f"spec.apiKeys[{index}]", reasons.KEY_CONFLICT, said))
    if facts.suspended:
        outcome.healthy = reasons.SUSPENDED
    return outcome


def _subject(world: World, found: Held, claim: Claim, who: dict[str, str], outcome: Outcome) -> None:
    namespace = found.declared.key.namespace
    resolved = world.trust.resolve(claim, namespace)
    if isinstance(resolved, Finding):
        outcome.unresolved.append(resolved)
        return
    _reference(world, found, claim, resolved[0], outcome)
    holder = _oldest_with_subject(world, claim, namespace)
    if holder is found:
        issuer, subject = resolved
        outcome.rows.append(Row("subject", (issuer, subject), {"issuer": issuer, "subject": subject, **who}))
    elif holder is not None:
        said = f"{_whose(holder, found)} already has this subject"
        outcome.conflicts.append(Finding(claim.path, reasons.SUBJECT_CONFLICT, said))


def _reference(world: World, found: Held, claim: Claim, issuer: str, outcome: Outcome) -> None:
    owner = world.trust.owners.get(issuer)
    if owner is None:
        return  # the shared secret's issuer is no object
    uid, path = found.declared.uid, f"{claim.path}.issuer"
    values = {"owner": uid, "path": path, "kind": owner[0].kind, "tenant": None, "name": owner[0].name}
    outcome.rows.append(Row("reference", (uid, path), values))


def _oldest_with_subject(world: World, claim: Claim, namespace: str) -> Held | None:
    """Only those who may claim it compete for it."""
    able = [
        holder
        for holder in world.holders(subject_token(namespace, claim.issuer, claim.subject))
        if world.tenant(holder.declared.key.namespace) is not None
        and not isinstance(world.trust.resolve(claim, holder.declared.key.namespace), Finding)
    ]
    return min(able, key=lambda holder: holder.declared.age, default=None)


def _oldest_with_key(world: World, sha256: str) -> Held | None:
    able = [
        holder for holder in world.holders(key_token(sha256)) if world.tenant(holder.declared.key.namespace) is not None
    ]
    return min(able, key=lambda holder: holder.declared.age, default=None)


def _whose(holder: Held, found: Held) -> str:
    """Names the other Principal only where its namespace is the reader's own (D-44)."""
    if holder.declared.key.namespace == found.declared.key.namespace:
        return f"older Principal {holder.declared.key.name}"
    return "an older Principal of another namespace"
