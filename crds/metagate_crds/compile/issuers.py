"""Compiling a TokenIssuer: the row that verifiers go by, and its keys when they are declared inline."""

from legivellum.base.public_jwk import JwkSet
from metagate_crds import reasons
from metagate_crds.compile.normalized import NormalizedIssuer
from metagate_crds.compile.object_state import ObjectState
from metagate_crds.compile.outcome import CompileOutcome
from metagate_crds.compile.snapshot import SnapshotRow
from metagate_crds.compile.world import World
from metagate_crds.rules.findings import Finding
from metagate_crds.verdict import Condition

_AWAITED = Condition(reasons.KEYS_FRESH, "Unknown", reasons.KEYS_AWAITED, "the keys have not been fetched yet")


def compile_issuer(world: World, state: ObjectState, spec: NormalizedIssuer) -> CompileOutcome:
    key = state.declared.key
    outcome = CompileOutcome(extra=(_inline_keys(spec.key_set) if spec.source == "Inline" else _AWAITED,))
    conflict = world.issuers.conflicts.get(key)
    issuer = world.issuers.issuer_of(key, spec)
    if conflict is not None:
        outcome.conflicts.append(conflict)
    elif issuer is None:
        message = "the cluster's issuer is not known; declare it"
        outcome.unresolved.append(Finding("spec.issuer", reasons.NO_CLUSTER_ISSUER, message))
    if conflict is not None or issuer is None:
        return outcome
    outcome.served_generation = state.served_generation
    outcome.rows.append(
        SnapshotRow(
            "issuer",
            (issuer,),
            {
                "issuer": issuer,
                "name": key.name,
                "audiences": list(spec.audiences),
                "algorithms": list(spec.algorithms),
                "max_token_lifetime_seconds": spec.max_token_lifetime_seconds,
                "source": spec.source,
                "url": spec.url,
                "generation": state.served_generation,
            },
        )
    )
    for jwk in spec.key_set.keys:
        kid = jwk.kid or ""
        values = {"issuer": issuer, "kid": kid, "jwk": jwk.members, "alg": jwk.members.get("alg")}
        outcome.rows.append(SnapshotRow("issuer_key", (issuer, kid), values))
    return outcome


def _inline_keys(key_set: JwkSet) -> Condition:
    skipped = f"; not used: {key_set.skipped_text}" if key_set.skipped else ""
    return Condition(reasons.KEYS_FRESH, "True", reasons.KEYS_INLINE, f"the keys are part of the spec{skipped}")
