"""Compiling a TokenIssuer: the row that verifiers go by, and its keys when they are declared inline."""

from metagate_crds import reasons
from metagate_crds.facts import IssuerFacts
from metagate_crds.held import Held
from metagate_crds.outcome import Outcome
from metagate_crds.snapshot import Row
from metagate_crds.verdict import Condition, Finding
from metagate_crds.world import World

_INLINE = Condition(reasons.KEYS_FRESH, "True", reasons.KEYS_INLINE, "the keys are part of the spec")
_AWAITED = Condition(reasons.KEYS_FRESH, "Unknown", reasons.KEYS_AWAITED, "the keys have not been fetched yet")


def compile_issuer(world: World, found: Held, facts: IssuerFacts) -> Outcome:
    key = found.declared.key
    outcome = Outcome(extra=(_INLINE if facts.source == "Inline" else _AWAITED,))
    conflict = world.trust.conflicts.get(key)
    issuer = world.trust.issuer_of(key, facts)
    if conflict is not None:
        outcome.conflicts.append(conflict)
    elif issuer is None:
        said = "the cluster's issuer is not known; declare it"
        outcome.unresolved.append(Finding("spec.issuer", reasons.NO_CLUSTER_ISSUER, said))
    if conflict is not None or issuer is None:
        return outcome
    outcome.served_generation = found.served_generation
    outcome.rows.append(
        Row(
            "issuer",
            (issuer,),
            {
                "issuer": issuer,
                "name": key.name,
                "audiences": list(facts.audiences),
                "algorithms": list(facts.algorithms),
                "max_token_lifetime_seconds": facts.max_token_lifetime_seconds,
                "source": facts.source,
                "url": facts.url,
                "generation": found.served_generation,
            },
        )
    )
    for jwk in facts.keys:
        values = {"issuer": issuer, "kid": jwk["kid"], "jwk": jwk, "alg": jwk.get("alg")}
        outcome.rows.append(Row("issuer_key", (issuer, jwk["kid"]), values))
    return outcome
