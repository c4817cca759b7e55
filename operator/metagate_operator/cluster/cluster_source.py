"""Custom resources as the writer's source: LISTs are the truth, kopf's watch is only speed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog

from metagate_crds.kinds import KINDS, ResourceKind
from metagate_crds.objects import DeclaredObject, Namespace, ObjectKey
from metagate_operator.cluster.kubernetes_client import (
    KubernetesClient,
    KubernetesError,
    KubernetesRefused,
    collection_path,
)
from metagate_operator.cluster.object_cache import (
    CachedObject,
    ObjectCache,
    being_deleted,
    cached_object,
    declared_object,
    namespace_of,
    object_key,
)
from metagate_operator.cluster.watcher import Watcher
from metagate_operator.sources.issuer_files import read_issuer_files
from metagate_operator.sources.source import (
    Event,
    Listing,
    NamespaceGone,
    NamespacePut,
    ObjectGone,
    ObjectPut,
    Relist,
    SourceUnavailable,
)

log = structlog.get_logger(__name__)

PAGE = 500
NO_LABELS: Mapping[str, str] = MappingProxyType({})
QUIET_SECONDS = 2.0
CHECK_SECONDS = 10.0


class ClusterSource:
    """Everything declared in a cluster, or in some of its namespaces.

    `namespaces` empty: all of them, which needs cluster-wide rights. Otherwise only these are read, one by one.
    `selector`: of all of them those that have these labels; what is in others is as if it were not there.
    `issuers` is a directory whose files stand in for the TokenIssuers of the cluster; without it there must be a grant
    to read those.
    """

    def __init__(
        self,
        kubernetes: KubernetesClient,
        cache: ObjectCache,
        *,
        namespaces: Sequence[str] = (),
        selector: Mapping[str, str] = NO_LABELS,
        issuers: Path | None = None,
        inactivity_timeout: float = 70.0,
    ) -> None:
        self._kubernetes = kubernetes
        self._cache = cache
        self._namespaces = tuple(namespaces)
        self._selector = selector
        self._issuers = issuers
        self._kinds = tuple(kind for kind in KINDS.values() if kind.namespaced or issuers is None)
        self._filed: tuple[DeclaredObject, ...] = ()
        self._known: dict[str, Namespace] = {}
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._quiet: asyncio.TimerHandle | None = None
        self._vanished = False
        self.watch_compared = asyncio.Event()
        """Set once the watch has shown what it listed at its start, and that was compared with the last listing."""
        self._listed = asyncio.Event()
        self._relisted: set[ObjectKey] = set()
        self._listed_twice = False
        self._last: dict[ObjectKey, DeclaredObject] = {}
        self._watcher = Watcher(
            kubernetes,
            self._kinds,
            namespaces=self._namespaces,
            watch_namespaces=not self._namespaces,
            on_event=self.on_event,
            on_disconnect=self._on_disconnect,
            inactivity_timeout=inactivity_timeout,
        )

    async def listing(self) -> Listing:
        """Page through every kind, keeping of each object what the language needs.

        Raises:
            SourceUnavailable: any page of any list failed, a kind's 404 included: what is served stays.

        """
        self._cache.begin_listing()
        listed: list[tuple[ObjectKey, CachedObject]] = []
        objects: list[DeclaredObject] = []
        try:
            objects.extend(self._files())
            namespaces = await self._list_namespaces()
            spaces = {space.name: space for space in namespaces}
            for kind in self._kinds:
                for inside in self._namespaces if self._namespaces and kind.namespaced else (None,):
                    await self._list(kind, inside, spaces, objects, listed)
        except KubernetesError as error:
            self._vanished |= isinstance(error, KubernetesRefused) and error.status == 404
            raise SourceUnavailable(str(error)) from error
        if self._vanished:
            self._vanished = False
            self._watcher.restart()  # kopf does not look for kinds that were not there when it started
        self._known = spaces
        self._cache.end_listing(listed)
        self._last = {declared.key: declared for declared in objects}
        self._listed.set()
        return Listing(namespaces=tuple(namespaces), objects=tuple(objects))

    async def events(self) -> AsyncIterator[Event]:
        """The watch events, projected; a `Relist` whenever the watch may have missed something.

        The watch starts after the first listing: it is compared with it, or every object would come twice.
        """
        await self._listed.wait()
        self._watcher.start()
        check = (
            asyncio.create_task(self._check_unwatched(), name="unwatched")
            if self._namespaces or self._issuers
            else None
        )
        try:
            while True:
                yield await self._events.get()
        finally:
            if check is not None:
                check.cancel()
            if self._quiet is not None:
                self._quiet.cancel()
            await self._watcher.stop()

    def on_event(self, kind: str, event: str | None, body: Mapping[str, Any]) -> None:
        """One watch event. Echoes of our own status, replays of old versions and news of earlier
        incarnations end here.
        """
        if kind == "Namespace":
            self._on_namespace_event(event, body)
            return
        where = object_key(kind, body)
        if event is None:
            self._listed_again(where)
        if self._foreign(where, self._known):
            return
        if event == "DELETED" or being_deleted(body):
            if self._cache.forget(where, body["metadata"]["uid"], body["metadata"].get("resourceVersion")):
                self._last.pop(where, None)
                self._events.put_nowait(ObjectGone(where, body["metadata"]["uid"]))
        elif self._cache.observe(where, cached_object(body)):
            changed = self._last[where] = declared_object(kind, body)
            self._events.put_nowait(ObjectPut(changed))

    def _on_namespace_event(self, event: str | None, body: Mapping[str, Any]) -> None:
        space = namespace_of(body)
        known = self._known.get(space.name)
        if event == "DELETED":
            if known is None or known.uid == space.uid:
                self._known.pop(space.name, None)
                self._events.put_nowait(NamespaceGone(space.name, space.uid))
        elif not self._selector.items() <= body["metadata"].get("labels", {}).items():
            if self._known.pop(space.name, None) is not None:
                self._events.put_nowait(Relist("a namespace lost the label"))
        elif known != space:
            self._known[space.name] = space
            self._events.put_nowait(NamespacePut(space))
            if self._selector:
                self._events.put_nowait(Relist("a namespace has the label, and what is in it was not looked at"))

    def _foreign(self, where: ObjectKey, spaces: Mapping[str, Namespace]) -> bool:
        """In a namespace that the selector leaves out."""
        return bool(self._selector) and bool(where.namespace) and where.namespace not in spaces

    def _listed_again(self, where: ObjectKey) -> None:
        """Kopf lists at its start and after a 410, and an object deleted meanwhile then fires no event."""
        self._listed_twice |= where in self._relisted
        self._relisted.add(where)
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._compare)

    def _compare(self) -> None:
        """Kopf's listing is over. At its start it showed everything, and what it did not show may be gone since ours;
        after a 410 it showed some kinds anew, and says nothing of one that is empty now. Only a listing of our own
        can tell; also when the 410 came so early that the two listings cannot be told apart.
        """
        shown, self._relisted = self._relisted, set()
        twice, self._listed_twice = self._listed_twice, False
        if twice or self.watch_compared.is_set():
            self._events.put_nowait(Relist("the watch listed again"))
        elif missing := sum(key not in shown for key in self._cache):
            self._events.put_nowait(Relist(f"the watch started without {missing} objects that were listed"))
        self.watch_compared.set()

    def _on_disconnect(self, reason: str) -> None:
        self.watch_compared.clear()
        self._events.put_nowait(Relist(f"the watch broke: {reason}"))

    async def _list(
        self,
        kind: ResourceKind,
        inside: str | None,
        spaces: Mapping[str, Namespace],
        objects: list[DeclaredObject],
        listed: list[tuple[ObjectKey, CachedObject]],
    ) -> None:
        async for body in self.pages(collection_path(kind, inside)):
            where = object_key(kind.name, body)
            if not (being_deleted(body) or self._foreign(where, spaces)):
                known = self._last.get(where)
                cached = cached_object(body)
                listed.append((where, cached))
                # the same generation is the same object: two worlds that are compared share it
                same = known is not None and (known.uid, known.generation) == (cached.uid, cached.generation)
                objects.append(known if same and known is not None else declared_object(kind.name, body))

    async def pages(self, path: str, *, labels: Mapping[str, str] = NO_LABELS) -> AsyncIterator[Mapping[str, Any]]:
        """Each item of a list, page by page; a `continue` that the server gave up on (410) is an error like
        any other.
        """
        token = ""
        chosen = {"labelSelector": ",".join(f"{name}={value}" for name, value in labels.items())} if labels else {}
        while True:
            query: dict[str, str | int] = {"limit": PAGE, **chosen, **({"continue": token} if token else {})}
            page = await self._kubernetes.call("GET", path, query=query)
            for item in page["items"]:
                yield item
            token = page["metadata"].get("continue") or ""
            if not token:
                return

    async def _list_namespaces(self) -> list[Namespace]:
        if not self._namespaces:
            return [namespace_of(body) async for body in self.pages("/api/v1/namespaces", labels=self._selector)]
        spaces = []
        for name in self._namespaces:
            try:
                spaces.append(namespace_of(await self._kubernetes.get(f"/api/v1/namespaces/{name}")))
            except KubernetesRefused as error:
                if error.status != 404:
                    raise
        return spaces

    def _files(self) -> tuple[DeclaredObject, ...]:
        issuers = read_issuer_files(self._issuers) if self._issuers is not None else ()
        self._filed = issuers
        return issuers

    async def _check_unwatched(self) -> None:
        """Without the right to watch namespaces their coming and going is seen by asking, and files are not watched
        either.
        """
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                filed = self._filed
                if self._files() != filed:
                    self._events.put_nowait(Relist("an issuer's file changed"))
                if self._namespaces and {space.name: space for space in await self._list_namespaces()} != self._known:
                    self._events.put_nowait(Relist("a namespace came or went"))
            except (KubernetesError, SourceUnavailable) as error:
                log.warning("unreadable", error=str(error))
