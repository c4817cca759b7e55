"""What a change would do: two compiled worlds compared, per principal, equal effects grouped.

Pure, like compiling: the current world, the proposed one, and what each compiles to. One Manifest that ten thousand
Bindings use is one effect with ten thousand principals.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final, NamedTuple

from metagate_crds import reasons
from metagate_crds.compile.compiler import compile_world
from metagate_crds.compile.snapshot import CompiledWorld
from metagate_crds.compile.world import World
from metagate_crds.objects import LastGood, ObjectKey
from metagate_crds.plan.packet_diff import ABSENT, LeafDifference, diff_packets, sorted_json
from metagate_crds.plan.proposal import same_spec

AccessChange = tuple[str, Any, Any]
"""What of a principal's access changes, before, and after; `ABSENT` where it has none."""

_PRINCIPAL_TABLES: Final = frozenset({"principal", "binding", "subject", "api_key"})
_OTHER_TABLES: Final = frozenset({"policy_profile", "problemata", "plan_template", "issuer", "issuer_key"})
_ACCESS: Final = (
    "boots", "type", "scope", "rights", "suspended", "binding", "components", "slaSeconds", "subjects", "apiKeys"
)  # fmt: skip
_ISSUE_STATES: Final = (
    (reasons.ACCEPTED, "False", "Invalid"),
    (reasons.CONFLICTED, "True", "Conflicted"),
    (reasons.RESOLVED_REFS, "False", "Unresolved"),
    (reasons.STALLED, "True", "Refused"),
)


class PrincipalRef(NamedTuple):
    """Names a principal."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Effect:
    """What becomes of some principals, the same for all of them.

    `before` and `after` are packet digests of one of them, None without a packet.
    """

    principals: tuple[PrincipalRef, ...]
    before: str | None
    after: str | None
    differences: tuple[LeafDifference, ...]
    access: tuple[AccessChange, ...]


@dataclass(frozen=True, slots=True)
class PlanIssue:
    """An object that would not be served as declared. `state` is Invalid, Conflicted, Unresolved or Refused."""

    key: ObjectKey
    state: str
    message: str


@dataclass(frozen=True, slots=True)
class ChangePlan:
    """`objects` are the declared ones that differ, as added, changed or removed; `packets` the proposed bodies."""

    objects: Mapping[str, tuple[ObjectKey, ...]]
    effects: tuple[Effect, ...]
    issues: tuple[PlanIssue, ...]
    """What goes wrong with the change."""
    resolved: tuple[PlanIssue, ...]
    """What is wrong now and would not be any more."""
    others: tuple[ObjectKey, ...]
    """PolicyProfiles, Problematas, PlanTemplates and TokenIssuers of which something else is served."""
    after: Mapping[PrincipalRef, str]
    """The packet digest of every principal that has one."""
    packets: Mapping[str, bytes]

    @property
    def empty(self) -> bool:
        """Nothing would change, for nobody."""
        return not (any(self.objects.values()) or self.effects or self.issues or self.resolved or self.others)


@dataclass(slots=True)
class _PrincipalAccess:
    """What one principal has in one world: its packet's digest, and who and what it may be."""

    digest: str | None = None
    access: dict[str, Any] = field(default_factory=dict)
    subjects: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    @property
    def boots(self) -> bool:
        """Whether it would be given a packet: it exists, is not suspended, is bound, and can authenticate."""
        bound = self.digest is not None and bool(self.access["components"])
        return self.access.get("suspended") is False and bound and bool(self.subjects or self.keys)


def make_plan(current: World, proposed: World, last_good: LastGood | None = None) -> ChangePlan:
    """Compile both and compare. `last_good` is what counts where an object is invalid already."""
    compiled = compile_world(current, last_good or {})
    # What is good now is what an invalid update falls back to.
    known_good = {**(last_good or {}), **compiled.good}
    kept = {declared.uid for declared in proposed.objects.values()}
    proposed_compiled = compile_world(proposed, {uid: good for uid, good in known_good.items() if uid in kept})
    return _compare(current, proposed, compiled, proposed_compiled)


def _compare(current: World, proposed: World, compiled: CompiledWorld, proposed_compiled: CompiledWorld) -> ChangePlan:
    before, after = _principal_access(current, compiled), _principal_access(proposed, proposed_compiled)
    issues, resolved = _compare_issues(compiled, proposed_compiled)
    return ChangePlan(
        objects=_compare_objects(current, proposed),
        effects=_effects(before, after, compiled.packets, proposed_compiled.packets),
        issues=issues,
        resolved=resolved,
        others=_compare_others(compiled, proposed_compiled),
        after={principal: access.digest for principal, access in after.items() if access.digest is not None},
        packets=proposed_compiled.packets,
    )


def _principal_access(world: World, compiled: CompiledWorld) -> dict[PrincipalRef, _PrincipalAccess]:
    namespaces = {namespace.uid: name for name, namespace in world.namespaces.items()}
    principals: dict[PrincipalRef, _PrincipalAccess] = defaultdict(_PrincipalAccess)
    for rows in compiled.rows.values():
        for row in rows:
            if row.table not in _PRINCIPAL_TABLES:
                continue
            values = row.values
            principal = principals[PrincipalRef(namespaces[values["tenant"]], values["principal_key"])]
            if row.table == "principal":
                principal.access |= {name: values[name] for name in ("type", "scope", "rights", "suspended")}
            elif row.table == "binding":
                principal.digest = values["digest"]
                principal.access |= {
                    "binding": values["name"],
                    "components": sorted(values["components"]),
                    "slaSeconds": values["sla_seconds"],
                }
            elif row.table == "subject":
                principal.subjects.append(f"{values['subject']} of {values['issuer']}")
            else:
                until = f" until {values['expires_at']}" if values["expires_at"] else ""
                principal.keys.append(f"{values['key_id']}{until}")
    for principal in principals.values():
        principal.access |= {"subjects": sorted(principal.subjects), "apiKeys": sorted(principal.keys)}
        principal.access["boots"] = principal.boots
    return dict(principals)


def _effects(
    before: Mapping[PrincipalRef, _PrincipalAccess],
    after: Mapping[PrincipalRef, _PrincipalAccess],
    packets: Mapping[str, bytes],
    proposed_packets: Mapping[str, bytes],
) -> tuple[Effect, ...]:
    @cache
    def compare_packets(old: str | None, new: str | None) -> tuple[tuple[LeafDifference, ...], str]:
        differences = diff_packets(packets.get(old or ""), proposed_packets.get(new or ""))
        return differences, sorted_json([[item.path, _side(item.before), _side(item.after)] for item in differences])

    absent = _PrincipalAccess()
    effects: dict[tuple[Any, ...], Effect] = {}
    members: dict[tuple[Any, ...], list[PrincipalRef]] = defaultdict(list)
    for principal in sorted(before.keys() | after.keys()):
        old, new = before.get(principal, absent), after.get(principal, absent)
        if old.digest == new.digest and old.access == new.access:
            continue
        # Equal pairs of packets are compared once (`cache`), however many principals have them.
        access = _access_changes(old.access, new.access)
        differences, encoded = compare_packets(old.digest, new.digest) if old.digest != new.digest else ((), "")
        group = (old.digest is None, new.digest is None, encoded, _access_group(access))
        members[group].append(principal)
        effects.setdefault(group, Effect((), old.digest, new.digest, differences, access))
    return tuple(replace(effect, principals=tuple(members[group])) for group, effect in effects.items())


def _access_group(access: tuple[AccessChange, ...]) -> str:
    """What makes two effects one. New principals differ in name, key and binding anyway."""
    new_or_gone = any(name == "type" and (before is ABSENT or after is ABSENT) for name, before, after in access)
    individual = {"subjects", "apiKeys", "binding"} if new_or_gone else set()
    return sorted_json(
        [[name, _side(before), _side(after)] for name, before, after in access if name not in individual]
    )


def _access_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[AccessChange, ...]:
    return tuple(
        (name, before.get(name, ABSENT), after.get(name, ABSENT))
        for name in _ACCESS
        if before.get(name, ABSENT) != after.get(name, ABSENT)
    )


def _side(value: Any) -> list[Any]:
    """JSON that tells absent from null."""
    return [] if value is ABSENT else [value]


def _compare_objects(current: World, proposed: World) -> dict[str, tuple[ObjectKey, ...]]:
    before, after = current.objects, proposed.objects
    common = after.keys() & before.keys()
    return {
        "added": tuple(sorted(after.keys() - before.keys())),
        "changed": tuple(sorted(key for key in common if not same_spec(key, before[key].spec, after[key].spec))),
        "removed": tuple(sorted(before.keys() - after.keys())),
    }


def _compare_issues(
    compiled: CompiledWorld, proposed_compiled: CompiledWorld
) -> tuple[tuple[PlanIssue, ...], tuple[PlanIssue, ...]]:
    """The issues that the change brings, and those that it resolves."""
    before, after = set(_issues(compiled)), set(_issues(proposed_compiled))
    remaining = {(issue.key, issue.state) for issue in after}
    resolved = (
        issue
        for issue in before - after
        if (issue.key, issue.state) not in remaining and issue.key in proposed_compiled.verdicts
    )
    return tuple(sorted(after - before, key=_issue_order)), tuple(sorted(resolved, key=_issue_order))


def _issue_order(issue: PlanIssue) -> tuple[ObjectKey, str, str]:
    return (issue.key, issue.state, issue.message)


def _issues(compiled: CompiledWorld) -> Iterable[PlanIssue]:
    for key, verdict in compiled.verdicts.items():
        for type_, status, state in _ISSUE_STATES:
            condition = verdict.condition(type_)
            if condition is not None and condition.status == status:
                # A broken Manifest is one issue, not one for each of the Bindings that wait for it.
                if condition.reason != reasons.REFERENCE_NOT_VALID:
                    yield PlanIssue(key, state, condition.message)
                break


def _compare_others(compiled: CompiledWorld, proposed_compiled: CompiledWorld) -> tuple[ObjectKey, ...]:
    """Objects that no principal's packet shows."""
    before, after = _other_contents(compiled), _other_contents(proposed_compiled)
    return tuple(sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key)))


def _other_contents(compiled: CompiledWorld) -> dict[ObjectKey, list[str]]:
    contents = {
        key: sorted(row.content for row in rows if row.table in _OTHER_TABLES)
        for key, rows in compiled.rows.items()
        if key.kind in {"PolicyProfile", "Problemata", "PlanTemplate", "TokenIssuer"}
    }
    return {key: content for key, content in contents.items() if content}
