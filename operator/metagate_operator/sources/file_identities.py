"""When a declared file was first seen, and how often its spec changed: what Kubernetes would know and files do not
(D-53).

They are restored from the database before the first listing, and saved in the same transaction as the publish they
belong to. An object that is declared again after it was removed is another one, with another uid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

from metagate_crds.objects import ObjectKey
from metagate_store.rows import DeclaredRow, FileIdentityRow


@dataclass(frozen=True, slots=True)
class UnsavedIdentities:
    """What the next publish must write."""

    seen: tuple[FileIdentityRow, ...]
    forgotten: tuple[ObjectKey, ...]

    def __bool__(self) -> bool:
        return bool(self.seen or self.forgotten)


class FileIdentities:
    """Mints uid, generation and age of declared objects. In memory; `unsaved` and `saved` tie it to the database."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        mint: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        self._clock, self._mint = clock, mint
        self._identities: dict[ObjectKey, FileIdentityRow] = {}
        self._touched: dict[ObjectKey, FileIdentityRow | None] = {}
        self._declared: Mapping[str, DeclaredRow] = {}

    def restore(self, sightings: Iterable[FileIdentityRow], declared: Iterable[DeclaredRow]) -> None:
        """Take over what the database remembers; what was observed since and never saved stays."""
        self._identities = {ObjectKey(s.kind, s.namespace, s.name): s for s in sightings}
        for key, identity in self._touched.items():
            if identity is None:
                self._identities.pop(key, None)
            else:
                self._identities[key] = identity
        self._declared = {row.uid: row for row in declared}

    def observe(self, key: ObjectKey, spec_digest: str) -> FileIdentityRow:
        """The object is there with this spec."""
        known = self._identities.get(key)
        if known is not None and known.spec_digest == spec_digest:
            return known
        if known is not None:
            current = replace(known, generation=known.generation + 1, spec_digest=spec_digest)
        else:
            current = FileIdentityRow(*key, self._mint(), 1, spec_digest, self._clock())
        self._identities[key] = self._touched[key] = current
        return current

    def forget(self, key: ObjectKey) -> None:
        """The object was removed."""
        if self._identities.pop(key, None) is not None:
            self._touched[key] = None

    def all(self) -> Mapping[ObjectKey, FileIdentityRow]:
        return self._identities

    def last_good(self, identity: FileIdentityRow) -> DeclaredRow | None:
        """The last valid spec that the database kept of it at the last `restore`."""
        return self._declared.get(identity.uid)

    def unsaved(self) -> UnsavedIdentities:
        return UnsavedIdentities(
            tuple(identity for identity in self._touched.values() if identity is not None),
            tuple(key for key, identity in self._touched.items() if identity is None),
        )

    def saved(self, what: UnsavedIdentities) -> None:
        """The database has these now; what was observed meanwhile stays unsaved."""
        for identity in what.seen:
            key = ObjectKey(identity.kind, identity.namespace, identity.name)
            if self._touched.get(key) is identity:
                del self._touched[key]
        for key in what.forgotten:
            if key in self._touched and self._touched[key] is None:
                del self._touched[key]
