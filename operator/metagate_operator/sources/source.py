"""What the reconciler works with: where declared objects come from, and where verdicts go.

A `Source` is level-triggered. `listing()` is the truth: everything that is declared, or `SourceUnavailable`, and then
nothing changes. `events()` is only speed: each event says what one object looks like now, and a source that may
have missed an event sends `Relist`. Kubernetes (`ClusterSource`) and a directory of YAML files
(`DirectorySource`) both implement it; the reconciler, the compiler, the store and the API do not know which one is in
use.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from metagate_crds.objects import DeclaredObject, Namespace, ObjectKey
from metagate_crds.verdict import Verdict


class SourceUnavailable(Exception):  # noqa: N818 - it names a state, not a mistake of the caller
    """The declared objects cannot be listed now; what is served stays as it is."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything that is declared at one moment. A partial listing is never one: raise `SourceUnavailable` instead."""

    namespaces: tuple[Namespace, ...]
    objects: tuple[DeclaredObject, ...]


@dataclass(frozen=True, slots=True)
class ObjectPut:
    """The object is there and looks like this."""

    object: DeclaredObject


@dataclass(frozen=True, slots=True)
class ObjectGone:
    """The deletion of this incarnation was witnessed: a revocation, which takes effect at once (D-20, D-40).

    `uid` keeps a late event about an earlier incarnation from removing its successor; "" where it is not known.
    """

    key: ObjectKey
    uid: str


@dataclass(frozen=True, slots=True)
class NamespacePut:
    """The namespace is there; another `uid` than before is another tenant (D-46)."""

    namespace: Namespace


@dataclass(frozen=True, slots=True)
class NamespaceGone:
    """The deletion of the namespace was witnessed; everything in it goes with it."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Relist:
    """Something may have been missed: list again soon. `reason` is for the log."""

    reason: str


Event: TypeAlias = ObjectPut | ObjectGone | NamespacePut | NamespaceGone | Relist


class Source(Protocol):
    """Where declared objects come from."""

    async def listing(self) -> Listing:
        """Everything that is declared now.

        Raises:
            SourceUnavailable: it cannot be listed whole; the caller changes nothing and asks again later.

        """
        ...

    def events(self) -> AsyncIterator[Event]:
        """What changes, in order per object, from the moment of the call; ends only with its task.

        Called once, before the first `listing()`, so that nothing falls between the two. May repeat itself: the
        reconciler drops an event whose generation it has seen. May raise `SourceUnavailable`; it is then called again
        after a back-off, and listed.
        """
        ...


class Reporter(Protocol):
    """Where verdicts go: a line per change standalone, status and events in a cluster."""

    async def report(self, verdicts: Sequence[Verdict], revision: int) -> None:
        """Tell what became of these objects, freshest change first.

        Called after the commit and in a task of its own, so it may be slow; `revision` is the one that serves them.
        The same verdict may come again (after a resync, say): compare before writing. An exception is logged and
        counted, never retried at once.
        """
        ...
