"""The last known version of each object in the cluster: as much as is needed to recognise the echo of our own status
write and to write the next one.

A custom resource with its status and managed fields is several kilobytes; ten thousand of them would be the operator's
memory. The spec is kept by the world; here stay the version to write against and the status that is already there.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from metagate_crds.objects import DeclaredObject, Namespace, ObjectKey

UNSTABLE = frozenset({"lastTransitionTime", "revision"})


@dataclass(frozen=True, slots=True)
class CachedObject:
    """One incarnation of one object. `since`: condition type → (status, reason, lastTransitionTime), as the cluster has
    them.
    """

    uid: str
    generation: int
    observed: int
    version: str
    status_digest: bytes
    since: Mapping[str, tuple[str, str, str]]
    snapshot: tuple[str, int, int]  # digest, generation, revision


class ObjectCache:
    """The last known version of every object that exists."""

    def __init__(self) -> None:
        self._objects: dict[ObjectKey, CachedObject] = {}
        self._meanwhile: set[ObjectKey] = set()

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[ObjectKey]:
        return iter(self._objects)

    def unreported(self) -> list[tuple[ObjectKey, CachedObject]]:
        """Those whose status does not speak of their present generation."""
        return [(key, cached) for key, cached in self._objects.items() if cached.observed < cached.generation]

    def get(self, key: ObjectKey) -> CachedObject | None:
        return self._objects.get(key)

    def observe(self, key: ObjectKey, cached: CachedObject) -> bool:
        """Remember it; False when it shows nothing new to compile: our own status coming back, or something older than
        is known.
        """
        known = self._objects.get(key)
        self._meanwhile.add(key)
        if known is not None and known.uid == cached.uid:
            if newer(known.version, cached.version):
                return False
            self._objects[key] = cached
            return cached.generation != known.generation
        self._objects[key] = cached
        return True

    def forget(self, key: ObjectKey, uid: str, version: str | None = None) -> bool:
        """The object is gone; False when that is old news: of an earlier incarnation, or before what was seen since."""
        known = self._objects.get(key)
        if known is None:
            return True
        if known.uid != uid or (version is not None and newer(known.version, version)):
            return False
        del self._objects[key]
        return True

    def begin_listing(self) -> None:
        """A listing begins: what is observed from now on may be younger than its result."""
        self._meanwhile = set()

    def end_listing(self, listed: Iterable[tuple[ObjectKey, CachedObject]]) -> None:
        """The listing ended, whole: this is everything, but for what came meanwhile."""
        meanwhile = self._meanwhile
        there = set(meanwhile)
        for key, cached in listed:
            there.add(key)
            self.observe(key, cached)
        self._objects = {key: cached for key, cached in self._objects.items() if key in there}
        self._meanwhile = set()


def newer(version: str, than: str) -> bool:
    """Resource versions of one kind can be compared as numbers (KEP-5504); where they are not numbers
    nothing is newer.
    """
    return version.isdigit() and than.isdigit() and int(version) > int(than)


def cached_object(body: Mapping[str, Any]) -> CachedObject:
    """Project an object as the API server sends it."""
    metadata = body["metadata"]
    status = body.get("status")
    status = status if isinstance(status, dict) else {}
    snapshot = status.get("snapshot")
    snapshot = snapshot if isinstance(snapshot, dict) else {}
    return CachedObject(
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        observed=status.get("observedGeneration", -1),
        version=metadata.get("resourceVersion", ""),
        status_digest=status_digest(status),
        since={
            sys.intern(condition["type"]): (
                sys.intern(condition.get("status", "")),
                sys.intern(condition.get("reason", "")),
                sys.intern(condition.get("lastTransitionTime", "")),
            )
            for condition in status.get("conditions") or ()
            if isinstance(condition, dict) and "type" in condition
        },
        snapshot=(sys.intern(snapshot.get("digest", "")), snapshot.get("generation", 0), snapshot.get("revision", 0)),
    )


def status_digest(status: Mapping[str, Any]) -> bytes:
    """Equal for statuses that say the same; when they began to say so, and in which revision, does not count."""
    return hashlib.blake2b(
        json.dumps(_stable(status), sort_keys=True, separators=(",", ":")).encode(), digest_size=16
    ).digest()


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _stable(member) for name, member in value.items() if name not in UNSTABLE}
    if isinstance(value, list):
        members = [_stable(member) for member in value]
        return (
            sorted(members, key=lambda member: member.get("type", ""))
            if all(isinstance(member, dict) for member in members)
            else members
        )
    return value


def declared_object(kind: str, body: Mapping[str, Any]) -> DeclaredObject:
    """The object as the language knows it; spec as it is, valid or not."""
    metadata = body["metadata"]
    return DeclaredObject(
        key=object_key(kind, body),
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        created=timestamp(metadata["creationTimestamp"]),
        spec=body.get("spec"),
        manager=last_manager(metadata.get("managedFields") or ()),
    )


def object_key(kind: str, body: Mapping[str, Any]) -> ObjectKey:
    metadata = body["metadata"]
    return ObjectKey(kind, sys.intern(metadata.get("namespace", "")), metadata["name"])


def being_deleted(body: Mapping[str, Any]) -> bool:
    """Somebody deleted it; another party's finalizer keeps the shell. For us that is a deletion (D-20)."""
    return body["metadata"].get("deletionTimestamp") is not None


def namespace_of(body: Mapping[str, Any]) -> Namespace:
    metadata = body["metadata"]
    return Namespace(name=metadata["name"], uid=metadata["uid"], created=timestamp(metadata["creationTimestamp"]))


def timestamp(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def last_manager(fields: Any) -> str | None:
    """Who last wrote the spec, as far as the API server says (EXT-04)."""
    writers = [field for field in fields if field.get("subresource", "") == "" and field.get("manager")]
    return sys.intern(max(writers, key=lambda field: field.get("time", ""))["manager"]) if writers else None
