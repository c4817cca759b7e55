"""Compiling a Principal: what it is, and which token subjects and API keys are its own (D-13, D-45)."""

from metagate_crds import reasons
from metagate_crds.compile.normalized import NormalizedPrincipal, SubjectRef
from metagate_crds.compile.object_state import ObjectState, UniqueKey, key_digest_key, subject_key
from metagate_crds.compile.outcome import CompileOutcome
from metagate_crds.compile.snapshot import SnapshotRow
from metagate_crds.compile.world import World
from metagate_crds.rules.findings import Finding


def compile_principal(world: World, state: ObjectState, spec: NormalizedPrincipal, tenant: str) -> CompileOutcome:
    name = state.declared.key.name
    outcome = CompileOutcome(served_generation=state.served_generation)
    principal = {"tenant": tenant, "principal_key": name}
    outcome.rows.append(
        SnapshotRow(
            "principal",
            (tenant, name),
            {
                **principal,
                "type": spec.type,
                "scope": spec.scope,
                "rights": list(spec.rights),
                "suspended": spec.suspended,
                "generation": state.served_generation,
            },
        )
    )
    for ref in spec.subjects:
        _compile_subject(world, state, ref, principal, outcome)
    for index, key in enumerate(spec.api_keys):
        key_owner = world.key_owners.get(key.sha256)
        if key_owner not in {None, tenant}:
            message = "another namespace declared this key first: declare a new one"
            outcome.conflicts.append(Finding(f"spec.apiKeys[{index}]", reasons.KEY_CONFLICT, message))
            continue
        owner = _oldest_claimant(world, key_digest_key(key.sha256), tenant=key_owner)
        if owner is state:
            values = {"sha256": key.sha256, "key_id": key.id, **principal, "expires_at": key.expires_at}
            outcome.rows.append(SnapshotRow("api_key", (key.sha256,), values))
        elif owner is not None:
            message = f"{_describe_owner(owner, state)} already has this key"
            outcome.conflicts.append(Finding(f"spec.apiKeys[{index}]", reasons.KEY_CONFLICT, message))
    if spec.suspended:
        outcome.ready_reason = reasons.SUSPENDED
    return outcome


def _compile_subject(
    world: World, state: ObjectState, ref: SubjectRef, principal: dict[str, str], outcome: CompileOutcome
) -> None:
    namespace = state.declared.key.namespace
    resolved = world.issuers.resolve(ref, namespace)
    if isinstance(resolved, Finding):
        outcome.unresolved.append(resolved)
        return
    issuer, subject = resolved
    _add_issuer_reference(world, state, ref, issuer, outcome)
    owner = _oldest_claimant(world, subject_key(namespace, ref.issuer, ref.subject), ref)
    if owner is state:
        values = {"issuer": issuer, "subject": subject, **principal}
        outcome.rows.append(SnapshotRow("subject", (issuer, subject), values))
    elif owner is not None:
        message = f"{_describe_owner(owner, state)} already has this subject"
        outcome.conflicts.append(Finding(ref.path, reasons.SUBJECT_CONFLICT, message))


def _add_issuer_reference(
    world: World, state: ObjectState, ref: SubjectRef, issuer: str, outcome: CompileOutcome
) -> None:
    owner = world.issuers.owners.get(issuer)
    if owner is None:
        return  # the shared secret's issuer is no object
    issuer_object, _ = owner
    uid, path = state.declared.uid, f"{ref.path}.issuer"
    values = {"owner": uid, "path": path, "kind": issuer_object.kind, "tenant": None, "name": issuer_object.name}
    outcome.rows.append(SnapshotRow("reference", (uid, path), values))


def _oldest_claimant(
    world: World, unique_key: UniqueKey, ref: SubjectRef | None = None, *, tenant: str | None = None
) -> ObjectState | None:
    """The Principal that has a subject or key: the oldest of those that may have it; `tenant`: only of this one.

    One whose namespace is unknown, or which the issuer does not admit, is served nothing; if it won, the subject would
    be nobody's.
    """
    return min(
        (claimant for claimant in world.claimants(unique_key) if _may_claim(world, claimant, ref, tenant)),
        key=lambda claimant: claimant.declared.age,
        default=None,
    )


def _may_claim(world: World, claimant: ObjectState, ref: SubjectRef | None, tenant: str | None) -> bool:
    namespace = claimant.declared.key.namespace
    claiming = world.tenant(namespace)
    if claiming is None or tenant not in {None, claiming}:
        return False
    return ref is None or not isinstance(world.issuers.resolve(ref, namespace), Finding)


def _describe_owner(owner: ObjectState, state: ObjectState) -> str:
    """Names the other Principal only where its namespace is the reader's own (D-44)."""
    if owner.declared.key.namespace == state.declared.key.namespace:
        return f"older Principal {owner.declared.key.name}"
    return "an older Principal of another namespace"
