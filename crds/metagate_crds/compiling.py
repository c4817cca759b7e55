"""compile_world: from what is declared to what is served.

A pure function of the world and the last good specs: it reads no clock, no database, and no order of arrival. What it
finds out on the way is remembered inside the world, which changes its speed and nothing else.
"""

from collections.abc import Iterable
from functools import lru_cache

from metagate_crds import reasons
from metagate_crds.bindings import compile_binding
from metagate_crds.declared import Declared, LastGood, ObjectKey
from metagate_crds.facts import BindingFacts, IssuerFacts, ManifestFacts, PolicyFacts, PrincipalFacts, ProfileFacts
from metagate_crds.held import Held
from metagate_crds.issuers import compile_issuer
from metagate_crds.kinds import KINDS
from metagate_crds.outcome import Outcome, verdict
from metagate_crds.principals import compile_principal
from metagate_crds.snapshot import Compiled, Row
from metagate_crds.verdict import Condition, Finding, Verdict
from metagate_crds.world import World


def compile_world(world: World, last_good: LastGood, only: frozenset[ObjectKey] | None = None) -> Compiled:
    """Compile the world, or only the closure given: with the same answer for those objects as the full run."""
    world.rely_on(last_good)
    rows: dict[ObjectKey, tuple[Row, ...]] = {}
    verdicts: dict[ObjectKey, Verdict] = {}
    good: dict[str, Declared] = {}
    packets: dict[str, bytes] = {}
    scope: Iterable[ObjectKey] = tuple(world.keys()) if only is None else only
    for key in scope:
        found = world.held(key)
        if found is None:
            rows[key] = ()
            continue
        tenant = world.tenant(key.namespace) if KINDS[key.kind].namespaced else None
        outcome = _outcome(world, found, tenant, last_good)
        said = verdicts[key] = verdict(found, outcome, world.uses(key))
        placed = tenant is not None or not KINDS[key.kind].namespaced
        rows[key] = (*outcome.rows, _resource(found, said, tenant)) if placed else ()
        if placed and not found.findings and not (outcome.refusals and _has_earlier(found, last_good)):
            good[found.declared.uid] = found.declared
        if outcome.digest is not None and outcome.body is not None:
            packets[outcome.digest] = outcome.body
    return Compiled(rows, verdicts, good, packets)


def _has_earlier(found: Held, last_good: LastGood) -> bool:
    """Whether another version was good: one whose merged result is refused does not take its place."""
    earlier = last_good.get(found.declared.uid)
    return earlier is not None and earlier.generation != found.declared.generation


def _outcome(world: World, found: Held, tenant: str | None, last_good: LastGood) -> Outcome:
    key, facts = found.declared.key, found.effective
    if isinstance(facts, IssuerFacts):
        return compile_issuer(world, found, facts)
    if facts is None:
        return Outcome()
    if tenant is None:
        said = "its namespace is not known, so nothing of it is served"
        return Outcome(refusals=[Finding("metadata.namespace", reasons.NAMESPACE_UNKNOWN, said)])
    match facts:
        case PrincipalFacts():
            return compile_principal(world, found, facts, tenant)
        case BindingFacts():
            return compile_binding(world, found, facts, tenant, last_good)
        case ProfileFacts() | ManifestFacts() | PolicyFacts():
            generation = found.served_generation
            return Outcome(rows=[_content(found, facts, key.name, tenant)], served_generation=generation)


def _content(found: Held, facts: ProfileFacts | ManifestFacts | PolicyFacts, name: str, tenant: str) -> Row:
    """The row of an object that is served as it is; made once per version, because bodies may be large."""
    generation = found.served_generation or 0
    if found.row is not None and found.row[:2] == (tenant, generation):
        return found.row[2]
    values = {"tenant": tenant, "name": name, "body": facts.body, "generation": generation}
    if isinstance(facts, PolicyFacts):
        row = Row("policy_profile", (tenant, name), {**values, "policy_hash": facts.policy_hash})
    else:
        row = Row("profile" if isinstance(facts, ProfileFacts) else "manifest", (tenant, name), values)
    found.row = (tenant, generation, row)
    return row


def _resource(found: Held, said: Verdict, tenant: str | None) -> Row:
    """The verdict as a row; the same row as before while the verdict is the same."""
    declared = found.declared
    row = Row(
        "resource",
        (declared.uid,),
        {
            "owner": declared.uid,
            "kind": declared.key.kind,
            "tenant": tenant,
            "namespace": declared.key.namespace,
            "name": declared.key.name,
            "generation": declared.generation,
            "served_generation": said.served_generation,
            "created_at": declared.created.isoformat(),
            "conditions": _spelled(said.conditions),
            "uses": said.uses,
        },
    )
    if found.resource != row:
        found.resource = row
    return found.resource


@lru_cache(maxsize=256)
def _spelled(conditions: tuple[Condition, ...]) -> list[dict[str, str]]:
    """Conditions as JSON; most objects share theirs."""
    return [
        {"type": item.type, "status": item.status, "reason": item.reason, "message": item.message}
        for item in conditions
    ]
