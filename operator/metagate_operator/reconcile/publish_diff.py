"""What the database serves, as this writer knows it, and the difference that a compiled answer makes to it.

Rows have an owner, the uid of the object that declares them. What an object in scope owned and no longer yields is
deleted, unless another object has taken the row over. No I/O: the reconciler hands the `Change` to the store and then
says that it holds.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from metagate_crds.compile.snapshot import CompiledWorld, SnapshotRow
from metagate_crds.compile.world import World
from metagate_crds.objects import DeclaredObject, Namespace, ObjectKey
from metagate_crds.verdict import Verdict
from metagate_operator.sources.file_identities import UnsavedIdentities
from metagate_store.rows import Change, ChangeRow, DeclaredRow, Published, StoredRow, TableKey, TableRow, TenantRow

VERDICT_TABLE: Final = "resource"
"""The table of verdicts: a change of these alone is not a change of what is served."""


@dataclass(frozen=True, slots=True)
class PublishDiff:
    """A change for the store, and what becomes true once it is committed."""

    change: Change
    rows: Mapping[TableKey, StoredRow]
    gone: frozenset[TableKey]
    owners: Mapping[ObjectKey, DeclaredObject | None]
    good: Mapping[str, DeclaredObject]
    withdrawn: frozenset[str]
    sightings: UnsavedIdentities
    served: bool
    """Whether anything that is served differs."""

    @property
    def empty(self) -> bool:
        change = self.change
        return not (
            change.upserts or change.deletes or change.declared or change.withdrawn or change.tenants
            or change.retired_tenants or change.file_identities or change.removed_file_identities
        )  # fmt: skip


@dataclass(slots=True)
class _Parts:
    upserts: dict[str, list[TableRow]] = field(default_factory=lambda: defaultdict(list))
    deletes: dict[str, list[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(list))


class PublishedState:
    """Follows the database: made from what was loaded, kept true by `committed`."""

    def __init__(self, published: Published) -> None:
        self._rows: dict[TableKey, StoredRow] = dict(published.rows)
        self._owned: dict[str, set[TableKey]] = defaultdict(set)
        for place, stored in self._rows.items():
            self._owned[stored.owner].add(place)
        self._tenants: dict[UUID, TenantRow] = {row.tenant: row for row in published.tenants}
        self.key_owners: dict[str, str] = dict(published.key_owners)
        """Which tenant declared each API key first (D-70)."""
        self._known: dict[ObjectKey, DeclaredObject] = {}
        self.last_good: dict[str, DeclaredObject] = {}
        for row in published.declared:
            key = ObjectKey(row.kind, row.namespace, row.name)
            self._known[key] = self.last_good[row.uid] = DeclaredObject(
                key, row.uid, row.generation, row.created, row.spec, row.manager
            )

    @property
    def objects(self) -> Mapping[ObjectKey, DeclaredObject]:
        """Every object that the database holds, as far as it was ever valid or this writer has seen it."""
        return self._known

    @property
    def namespaces(self) -> Mapping[str, Namespace]:
        return {
            row.namespace: Namespace(row.namespace, str(row.tenant), row.created_at) for row in self._tenants.values()
        }

    def diff(
        self, world: World, compiled: CompiledWorld, sightings: UnsavedIdentities, *, full: bool, retire: bool = False
    ) -> PublishDiff:
        """What must be written so that the database holds `compiled`.

        A full one also clears what nobody declares; `retire` says that a namespace may have gone.
        """
        owners: dict[ObjectKey, DeclaredObject | None] = {key: world.objects.get(key) for key in compiled.rows}
        if full:
            owners |= {key: None for key in self._known if key not in world.objects}
        leaving = {before.uid for key in owners if (before := self._known.get(key)) is not None}
        staying = {now.uid for now in owners.values() if now is not None}
        if full:
            leaving |= set(self._owned)
        wanted = self._wanted(world, compiled)
        scope = leaving | staying
        fetched = {
            key[0]
            for (table, key), (row, _, _) in wanted.items()
            if table == "issuer" and row.values.get("source") != "Inline"
        }
        gone = frozenset(
            key
            for owner in scope
            for key in self._owned.get(owner, ())
            if key not in wanted and not (key[0] == "issuer_key" and key[1][0] in fetched)  # the refresher's, not ours
        )
        parts = _Parts()
        changed: dict[TableKey, StoredRow] = {}
        digests: set[str] = set()
        for key, (row, owner, content) in wanted.items():
            stored = StoredRow(owner, content)
            if self._rows.get(key) != stored:
                changed[key] = stored
                parts.upserts[key[0]].append({**row.values, "owner": owner, "content": content})
                if (digest := row.values.get("digest")) in compiled.packets:
                    digests.add(str(digest))
        for table, primary in sorted(gone):
            parts.deletes[table].append(primary)
        good = {
            uid: declared
            for uid, declared in compiled.good.items()
            if (before := self.last_good.get(uid)) is None or before.generation != declared.generation
        }
        withdrawn = frozenset((leaving - staying) & self.last_good.keys())
        change = Change(
            upserts=dict(parts.upserts),
            deletes=dict(parts.deletes),
            packets={digest: compiled.packets[digest] for digest in sorted(digests)},
            declared=[_declared_row(declared, world) for declared in good.values()],
            withdrawn=sorted(withdrawn),
            audit=self._audit(world, compiled, owners=owners, wanted=wanted, changed=changed, gone=gone),
            tenants=self._new_tenants(world),
            retired_tenants=self._retired_tenants(world) if full or retire else (),
            file_identities=sightings.seen,
            removed_file_identities=[(key.kind, key.namespace, key.name) for key in sightings.forgotten],
        )
        served = any(table != VERDICT_TABLE for table, _ in (*changed, *gone))
        return PublishDiff(change, changed, gone, owners, good, withdrawn, sightings, served)

    def committed(self, diff: PublishDiff) -> None:
        """The store holds it now."""
        for key in diff.gone:
            self._owned[self._rows.pop(key).owner].discard(key)
        for key, stored in diff.rows.items():
            if (before := self._rows.get(key)) is not None:
                self._owned[before.owner].discard(key)
            self._rows[key] = stored
            self._owned[stored.owner].add(key)
        for object_key, now in diff.owners.items():
            if now is None:
                self._known.pop(object_key, None)
            else:
                self._known[object_key] = now
        for uid in diff.withdrawn:
            self.last_good.pop(uid, None)
            self._owned.pop(uid, None)
        self.last_good.update(diff.good)
        for key_row in diff.change.upserts.get("api_key", ()):
            self.key_owners.setdefault(str(key_row["sha256"]), str(key_row["tenant"]))
        for row in diff.change.tenants:
            self._tenants[row.tenant] = row
        for tenant in diff.change.retired_tenants:
            self._tenants.pop(tenant, None)

    def _wanted(self, world: World, compiled: CompiledWorld) -> dict[TableKey, tuple[SnapshotRow, str, str]]:
        wanted: dict[TableKey, tuple[SnapshotRow, str, str]] = {}
        for key, rows in compiled.rows.items():
            declared = world.objects.get(key)
            if declared is None:
                continue
            for row in rows:
                wanted[row.table, row.key] = (row, declared.uid, row.content)
        return wanted

    def _new_tenants(self, world: World) -> list[TenantRow]:
        rows = (TenantRow(UUID(space.uid), space.name, space.created) for space in world.namespaces.values())
        return [row for row in rows if row.tenant not in self._tenants]

    def _retired_tenants(self, world: World) -> list[UUID]:
        live = {UUID(space.uid) for space in world.namespaces.values()}
        return sorted(self._tenants.keys() - live)

    def _audit(
        self,
        world: World,
        compiled: CompiledWorld,
        *,
        owners: Mapping[ObjectKey, DeclaredObject | None],
        wanted: Mapping[TableKey, tuple[SnapshotRow, str, str]],
        changed: Mapping[TableKey, StoredRow],
        gone: frozenset[TableKey],
    ) -> list[ChangeRow]:
        """One row per object whose part of what is served differs, by digests only (EXT-04)."""
        touched = {stored.owner for (table, _), stored in changed.items() if table != VERDICT_TABLE}
        touched |= {self._rows[key].owner for key in (*gone, *changed) if key[0] != VERDICT_TABLE and key in self._rows}
        after: dict[str, list[str]] = defaultdict(list)
        bound: dict[str, SnapshotRow] = {}
        for (table, _), (row, owner, content) in wanted.items():
            if table != VERDICT_TABLE and owner in touched:
                after[owner].append(content)
                if table == "binding":
                    bound[owner] = row
        rows = []
        for key in sorted(owners):  # so that histories of the same changes read the same
            now, before = owners[key], self._known.get(key)
            if before is not None and before.uid in touched and (now is None or now.uid != before.uid):
                rows.append(self._audit_row(before, world, self._stored_digest(before.uid), None))
            if now is not None and now.uid in touched:
                digests = self._stored_digest(now.uid), _digest(after[now.uid])
                if digests[0] != digests[1]:
                    audit = self._audit_row(now, world, *digests)
                    rows.append(_witnessed(audit, compiled.verdicts.get(key), bound.get(now.uid)))
        return rows

    def _audit_row(self, declared: DeclaredObject, world: World, before: str | None, after: str | None) -> ChangeRow:
        key = declared.key
        tenant = self._tenant(key.namespace, world)
        return ChangeRow(
            key.kind,
            tenant,
            key.namespace,
            key.name,
            declared.uid,
            declared.generation,
            before,
            after,
            declared.manager,
        )

    def _stored_digest(self, uid: str) -> str | None:
        return _digest(self._rows[row].content for row in self._owned.get(uid, ()) if row[0] != VERDICT_TABLE)

    def _tenant(self, namespace: str, world: World) -> UUID | None:
        if (space := world.namespaces.get(namespace)) is not None:
            return UUID(space.uid)
        return next((row.tenant for row in self._tenants.values() if row.namespace == namespace), None)


def _witnessed(audit: ChangeRow, verdict: Verdict | None, bound: SnapshotRow | None) -> ChangeRow:
    """With the generation that is served from now on, and the packet a principal gets: what explain rebuilds from."""
    served = None if verdict is None else verdict.served_generation
    if bound is None:
        return replace(audit, served_generation=served)
    return replace(
        audit,
        # a Binding whose Profile is missing gives no packet, and is its principal's all the same
        served_generation=bound.values["generation"],
        principal_key=bound.values["principal_key"],
        packet_digest=bound.values["digest"],
    )


def _digest(contents: Iterable[str]) -> str | None:
    """Of everything served that one object declares; a row's content holds its key."""
    served = sorted(contents)
    return hashlib.sha256("\n".join(served).encode()).hexdigest() if served else None


def _declared_row(declared: DeclaredObject, world: World) -> DeclaredRow:
    key = declared.key
    space = world.namespaces.get(key.namespace)
    tenant = UUID(space.uid) if space is not None else None
    return DeclaredRow(
        declared.uid,
        declared.generation,
        key.kind,
        tenant,
        key.namespace,
        key.name,
        declared.created,
        declared.spec,
        declared.manager,
    )
