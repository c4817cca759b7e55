"""What a change would do: two compiled worlds compared, per principal, equal effects told once.

Pure, like compiling: the current world, the proposed one, and what each says. One Manifest that ten thousand Bindings
use is one effect with ten thousand principals.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from metagate_crds import reasons
from metagate_crds.compiling import compile_world
from metagate_crds.declared import Declared, LastGood, Namespace, ObjectKey
from metagate_crds.defaulting import defaulted
from metagate_crds.explaining import flattened
from metagate_crds.paths import Step
from metagate_crds.snapshot import Compiled
from metagate_crds.world import World


class Who(NamedTuple):
    """A principal."""

    namespace: str
    name: str


class Absent:
    """What stands where nothing is; JSON's null is a value."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = Absent()


@dataclass(frozen=True, slots=True)
class Difference:
    """One leaf that differs, `ABSENT` on the side where it is not."""

    path: tuple[Step, ...]
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Effect:
    """What becomes of some principals, the same for all of them.

    `before` and `after` are packet digests of one of them, None without a packet; `packets` counts the distinct ones.
    `access` says what else they gain or lose, as (what, before, after).
    """

    principals: tuple[Who, ...]
    before: str | None
    after: str | None
    differences: tuple[Difference, ...]
    access: tuple[tuple[str, Any, Any], ...]


@dataclass(frozen=True, slots=True)
class Trouble:
    """An object that would not be served as declared. `state` is Invalid, Conflicted, Unresolved or Refused."""

    key: ObjectKey
    state: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """`objects` are the declared ones that differ, as added, changed or removed; `packets` the proposed bodies."""

    objects: Mapping[str, tuple[ObjectKey, ...]]
    effects: tuple[Effect, ...]
    troubles: tuple[Trouble, ...]
    cured: tuple[Trouble, ...]
    others: tuple[ObjectKey, ...]
    """PolicyProfiles and TokenIssuers of which something else is served."""
    after: Mapping[Who, str]
    """The packet digest of every principal that has one."""
    packets: Mapping[str, bytes]

    @property
    def empty(self) -> bool:
        """Nothing would change, for nobody."""
        return not (any(self.objects.values()) or self.effects or self.troubles or self.cured or self.others)


def proposed(current: World, specs: Mapping[ObjectKey, Any], *, prune: bool = False) -> World:
    """The world after these specs were applied: known objects keep uid and age, new ones are the youngest.

    `prune`: what is declared now and not among them would be removed.
    """
    objects = {} if prune else dict(current.objects)
    youngest = max((each.created for each in current.objects.values()), default=None)
    for place, (key, spec) in enumerate(sorted(specs.items(), key=lambda item: item[0])):
        known = current.objects.get(key)
        if known is None:
            age = (youngest or _dawn(current)) + timedelta(seconds=place + 1)
            objects[key] = Declared(key, str(uuid5(NAMESPACE_URL, "/".join(key))), 1, age, spec)
        else:
            objects[key] = (
                known if _alike(key, known.spec, spec) else replace(known, spec=spec, generation=known.generation + 1)
            )
    spaces = dict(current.namespaces)
    for key in objects:
        if key.namespace and key.namespace not in spaces:
            uid = str(uuid5(NAMESPACE_URL, f"namespace/{key.namespace}"))
            spaces[key.namespace] = Namespace(key.namespace, uid, _dawn(current))
    return World(current.settings, spaces.values(), objects.values(), beside=current)


def _dawn(world: World) -> datetime:
    return min((space.created for space in world.namespaces.values()), default=_EPOCH)


def plan(current: World, then: World, last_good: LastGood | None = None) -> Plan:
    """Compile both and compare. `last_good` is what counts where an object is invalid already."""
    now = compile_world(current, last_good or {})
    # what is good now is what an invalid update falls back to
    known = {**(last_good or {}), **now.good}
    kept = {each.uid for each in then.objects.values()}
    after = compile_world(then, {uid: good for uid, good in known.items() if uid in kept})
    return _compared(current, then, now, after)


@dataclass(slots=True)
class _Standing:
    """What one principal has in one world."""

    digest: str | None = None
    access: dict[str, Any] = field(default_factory=dict)
    subjects: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def _compared(current: World, then: World, now: Compiled, after: Compiled) -> Plan:
    before_of, after_of = _standings(current, now), _standings(then, after)
    troubled, cured = _troubles(now, after)
    return Plan(
        objects=_objects(current, then),
        effects=_effects(before_of, after_of, now.packets, after.packets),
        troubles=troubled,
        cured=cured,
        others=_others(now, after),
        after={who: standing.digest for who, standing in after_of.items() if standing.digest is not None},
        packets=after.packets,
    )


def _standings(world: World, compiled: Compiled) -> dict[Who, _Standing]:
    spaces = {space.uid: name for name, space in world.namespaces.items()}
    found: dict[Who, _Standing] = defaultdict(_Standing)
    for rows in compiled.rows.values():
        for row in rows:
            if row.table not in {"principal", "binding", "subject", "api_key"}:
                continue
            values = row.values
            standing = found[Who(spaces[values["tenant"]], values["principal_key"])]
            if row.table == "principal":
                standing.access |= {name: values[name] for name in ("type", "scope", "rights", "suspended")}
            elif row.table == "binding":
                standing.digest = values["digest"]
                standing.access |= {
                    "binding": values["name"],
                    "components": sorted(values["components"]),
                    "slaSeconds": values["sla_seconds"],
                }
            elif row.table == "subject":
                standing.subjects.append(f"{values['subject']} of {values['issuer']}")
            else:
                until = f" until {values['expires_at']}" if values["expires_at"] else ""
                standing.keys.append(f"{values['key_id']}{until}")
    for standing in found.values():
        standing.access |= {"subjects": sorted(standing.subjects), "apiKeys": sorted(standing.keys)}
        standing.access["boots"] = _boots(standing)
    return dict(found)


def _boots(standing: _Standing) -> bool:
    """Whether it would be given a packet: it is there, not suspended, bound, and has a way to say who it is."""
    access = standing.access
    able = access.get("suspended") is False and standing.digest is not None and bool(access["components"])
    return able and bool(standing.subjects or standing.keys)


def _effects(
    before_of: Mapping[Who, _Standing],
    after_of: Mapping[Who, _Standing],
    packets: Mapping[str, bytes],
    proposed_packets: Mapping[str, bytes],
) -> tuple[Effect, ...]:
    @cache
    def differing(before: str | None, after: str | None) -> tuple[tuple[Difference, ...], str]:
        found = differences(packets.get(before or ""), proposed_packets.get(after or ""))
        return found, _spelt([[each.path, _side(each.before), _side(each.after)] for each in found])

    nobody = _Standing()
    groups: dict[tuple[Any, ...], Effect] = {}
    members: dict[tuple[Any, ...], list[Who]] = defaultdict(list)
    for who in sorted(before_of.keys() | after_of.keys()):
        before, after = before_of.get(who, nobody), after_of.get(who, nobody)
        if before.digest == after.digest and before.access == after.access:
            continue
        access = _access(before.access, after.access)
        changed, spelling = differing(before.digest, after.digest) if before.digest != after.digest else ((), "")
        told = _shared(access)
        group = (before.digest is None, after.digest is None, spelling, told)
        members[group].append(who)
        groups.setdefault(group, Effect((), before.digest, after.digest, changed, access))
    return tuple(replace(effect, principals=tuple(members[group])) for group, effect in groups.items())


def _shared(access: tuple[tuple[str, Any, Any], ...]) -> str:
    """What makes two effects one. New principals differ in name, key and binding anyway."""
    came = any(name == "type" and (before is ABSENT or after is ABSENT) for name, before, after in access)
    own = {"subjects", "apiKeys", "binding"} if came else set()
    return _spelt([[name, _side(before), _side(after)] for name, before, after in access if name not in own])


def _access(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[tuple[str, Any, Any], ...]:
    return tuple(
        (name, before.get(name, ABSENT), after.get(name, ABSENT))
        for name in _ACCESS
        if before.get(name, ABSENT) != after.get(name, ABSENT)
    )


_ACCESS: Final = (
    "boots", "type", "scope", "rights", "suspended", "binding", "components", "slaSeconds", "subjects", "apiKeys"
)  # fmt: skip
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


def differences(before: bytes | None, after: bytes | None) -> tuple[Difference, ...]:
    """The leaves that differ, by path."""
    old = dict(flattened(json.loads(before))) if before is not None else {}
    new = dict(flattened(json.loads(after))) if after is not None else {}
    return tuple(
        Difference(path, old.get(path, ABSENT), new.get(path, ABSENT))
        for path in sorted(old.keys() | new.keys(), key=_by_path)
        if path not in old or path not in new or not _same(old[path], new[path])
    )


def _same(one: Any, other: Any) -> bool:
    """As JSON: true is not 1, and null or a missing spec is what it is."""
    return one is other or _spelt(one) == _spelt(other)


def _alike(key: ObjectKey, one: Any, other: Any) -> bool:
    """Whether two specs say the same: a cluster's has its defaults written in, a file's need not."""
    return _same(one, other) or _same(defaulted(key.kind, one), defaulted(key.kind, other))


def _by_path(path: tuple[Step, ...]) -> list[tuple[int, int | str]]:
    return [(0, step) if isinstance(step, int) else (1, step) for step in path]


def _side(value: Any) -> list[Any]:
    return [] if value is ABSENT else [value]


def _spelt(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _objects(current: World, then: World) -> dict[str, tuple[ObjectKey, ...]]:
    before, after = current.objects, then.objects
    return {
        "added": tuple(sorted(after.keys() - before.keys())),
        "changed": tuple(
            sorted(key for key in after.keys() & before.keys() if not _alike(key, before[key].spec, after[key].spec))
        ),
        "removed": tuple(sorted(before.keys() - after.keys())),
    }


_STATES: Final = (
    (reasons.ACCEPTED, "False", "Invalid"),
    (reasons.CONFLICTED, "True", "Conflicted"),
    (reasons.RESOLVED_REFS, "False", "Unresolved"),
    (reasons.STALLED, "True", "Refused"),
)


def _troubles(now: Compiled, after: Compiled) -> tuple[tuple[Trouble, ...], tuple[Trouble, ...]]:
    before, then = set(_wrong(now)), set(_wrong(after))
    still = {(each.key, each.state) for each in then}
    gone = (each for each in before - then if (each.key, each.state) not in still and each.key in after.verdicts)
    return tuple(sorted(then - before, key=_order)), tuple(sorted(gone, key=_order))


def _order(trouble: Trouble) -> tuple[ObjectKey, str, str]:
    return (trouble.key, trouble.state, trouble.message)


def _wrong(compiled: Compiled) -> Iterable[Trouble]:
    for key, verdict in compiled.verdicts.items():
        for name, status, state in _STATES:
            condition = verdict.condition(name)
            if condition is not None and condition.status == status:
                yield Trouble(key, state, condition.message)
                break


def _others(now: Compiled, after: Compiled) -> tuple[ObjectKey, ...]:
    """Objects that no principal's packet shows."""
    tables = {"policy_profile", "issuer", "issuer_key"}

    def served(compiled: Compiled) -> dict[ObjectKey, list[str]]:
        found = {
            key: sorted(row.content for row in rows if row.table in tables)
            for key, rows in compiled.rows.items()
            if key.kind in {"PolicyProfile", "TokenIssuer"}
        }
        return {key: contents for key, contents in found.items() if contents}

    before, then = served(now), served(after)
    return tuple(sorted(key for key in before.keys() | then.keys() if before.get(key) != then.get(key)))
