"""The reconciler: what is declared becomes what is served.

It holds the declared world in memory and follows the database. Events are only speed: each is applied to the world,
what depends on it is compiled again, and the difference is published in one transaction, a few milliseconds after the
change. The listing is the truth: at start, at every resync, and after anything went wrong the whole world is listed,
compiled and compared.

Whatever fails, the database keeps what it serves: a listing that fails ends the pass before anything is compared, a
publish is one transaction, and after an error the next pass loads and lists anew. Being fenced ends the writer:
another one has taken over.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from time import monotonic
from typing import Protocol

import structlog

from metagate_crds.compiling import compile_world
from metagate_crds.snapshot import Compiled
from metagate_crds.world import CompileSettings, Declared, ObjectKey, World
from metagate_operator.announcing import Announcer
from metagate_operator.brake import Brake
from metagate_operator.health import Health
from metagate_operator.publication import Publication
from metagate_operator.settings import WriterSettings
from metagate_operator.sightings import SightingBook, Unsaved
from metagate_operator.source import (
    Event,
    Gone,
    Listing,
    NamespaceGone,
    NamespacePut,
    Put,
    Relist,
    Reporter,
    Source,
    SourceUnavailable,
)
from metagate_store.errors import Fenced, ForeignCluster, SchemaMismatch, StaleBase, StoreUnavailable
from metagate_store.rows import Change, Published

_log = structlog.stdlib.get_logger("metagate.reconcile")
_LITTLE = 100
_REMEMBERED = 10_000
_EXPECTED = (SourceUnavailable, StoreUnavailable, StaleBase)
_FATAL = (Fenced, SchemaMismatch, ForeignCluster)


class Store(Protocol):
    """What the reconciler needs of `metagate_store.publishing.Publisher`."""

    def load(self) -> Awaitable[Published]: ...
    def publish(self, change: Change, *, mirror: bool = False) -> Awaitable[int]: ...


class Reconciler:
    """The one writer. `run()` until cancelled or fenced; `book` where the source mints its own identities."""

    def __init__(
        self,
        *,
        source: Source,
        publisher: Store,
        reporter: Reporter,
        compile_settings: CompileSettings,
        settings: WriterSettings | None = None,
        book: SightingBook | None = None,
        mirror: bool = False,
        clock: Callable[[], float] = monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._source, self._publisher, self._book, self._mirror = source, publisher, book, mirror
        self._settings = settings or WriterSettings()
        self._clock, self._jitter = clock, jitter
        self._brake = Brake(
            objects=self._settings.brake_objects, share=self._settings.brake_share, seconds=self._settings.brake_seconds
        )
        self.health = Health(clock=clock)
        self._announcer = Announcer(reporter, self.health)
        self._world = World(compile_settings)
        self._compile_settings = compile_settings
        self._publication: Publication | None = None
        self._pending: list[Event] = []
        self._bell = asyncio.Event()
        self._relist = True
        self._ready = asyncio.Event()
        self._published = asyncio.Event()
        self._not_ready: set[ObjectKey] = set()
        self._gone: dict[str, None] = {}

    async def published(self) -> None:
        """Returns once the first full pass is committed."""
        await self._published.wait()

    def resync(self, reason: str, *, compile_settings: CompileSettings | None = None) -> None:
        """List everything anew soon; with other settings when the cluster's issuer became known, say."""
        self._compile_settings = compile_settings or self._compile_settings
        self._notice(Relist(reason))

    async def run(self) -> None:
        """Reconcile for ever.

        Raises:
            Fenced: another writer took over; nothing more is written.
            SchemaMismatch, ForeignCluster: the database is not one to write to.

        """
        tasks = [
            asyncio.create_task(self._reconcile(), name="reconcile"),
            asyncio.create_task(self._listening(), name="reconcile.listen"),
            asyncio.create_task(self._announcer.run(), name="reconcile.report"),
        ]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()  # none of them ends by itself
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listening(self) -> None:
        """Takes events as they come; a source that breaks off is asked again and listed."""
        await self._ready.wait()
        failures = 0
        while True:
            try:
                async with aclosing(self._source.events()) as events:  # type: ignore[type-var]
                    async for event in events:
                        failures = 0
                        self._notice(event)
            except SourceUnavailable as error:
                _log.warning("source.unavailable", message=str(error))
            failures += 1
            await asyncio.sleep(self._backoff(failures))
            self._notice(Relist("the source's events broke off"))

    def _notice(self, event: Event) -> None:
        if isinstance(event, Put):
            known = self._world.objects.get(event.object.key)
            if (
                known is not None
                and known.uid == event.object.uid
                and known.generation == event.object.generation
                and not self._pending
            ):
                return  # our own status writes come back as events
        self._pending.append(event)
        self._bell.set()

    async def _reconcile(self) -> None:
        due = self._clock()
        while True:
            full = self._relist = (
                self._relist or self._clock() >= due or any(isinstance(event, Relist) for event in self._pending)
            )
            started = self._clock()
            try:
                await (self._full_pass() if full else self._quick_pass())
            except _FATAL:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, what is served stays served
                self._failed(error)
                await asyncio.sleep(self._backoff(self.health.consecutive_failures))
                continue
            now = self._clock()
            self.health.succeeded(now - started)
            if full:
                due = now + self._settings.resync_seconds * (1 - 0.1 * self._jitter())
            if self._brake.waiting:
                due = min(due, now + self._settings.brake_seconds)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), max(due - now, 0))
                await asyncio.sleep(self._settings.debounce_seconds)
            self._bell.clear()

    def _failed(self, error: Exception) -> None:
        """After an error nothing is assumed: load (unless only the source failed) and list."""
        self.health.failed(error)
        self._relist = True
        if not isinstance(error, SourceUnavailable):
            self._publication = None
        _log.warning(
            "pass.failed",
            error=type(error).__name__,
            message=str(error) if isinstance(error, _EXPECTED) else "unexpected",
            failures=self.health.consecutive_failures,
            exc_info=None if isinstance(error, _EXPECTED) else error,
        )

    def _backoff(self, failures: int) -> float:
        grown: float = self._settings.backoff_seconds * 2.0 ** min(failures - 1, 16)
        return min(grown, self._settings.backoff_max_seconds) * (1 - 0.5 * self._jitter())

    async def _full_pass(self) -> None:
        publication = await self._loaded()
        self._ready.set()
        self._pending.clear()  # the listing is younger than these
        listing = await self._source.listing()
        world = World(self._compile_settings, listing.namespaces, listing.objects)
        for declared in listing.objects:
            self._gone.pop(declared.uid, None)
        self._brake_on(world, publication, listing)
        compiled = await asyncio.to_thread(compile_world, world, publication.last_good)
        await self._publish(publication, world, compiled, full=True)
        self._world, self._relist = world, False
        self._published.set()

    async def _quick_pass(self) -> None:
        publication = await self._loaded()
        events, self._pending = self._pending, []
        affected: set[ObjectKey] = set()
        spaces = False
        for event in events:
            affected |= self._apply(event)
            spaces = spaces or isinstance(event, NamespacePut | NamespaceGone)
        if affected or spaces:
            await self._follow(publication, frozenset(affected), retire=spaces)

    async def _follow(self, publication: Publication, affected: frozenset[ObjectKey], *, retire: bool) -> None:
        """Compile and publish what an event reaches: here when it is little, beside the loop when it is much."""
        if len(affected) <= _LITTLE:
            compiled = compile_world(self._world, publication.last_good, affected)
        else:
            compiled = await asyncio.to_thread(compile_world, self._world, publication.last_good, affected)
        await self._publish(publication, self._world, compiled, full=False, retire=retire)

    def _apply(self, event: Event) -> frozenset[ObjectKey]:
        """The world after the event, and what must be compiled again."""
        world = self._world
        match event:
            case Put(declared):
                known = world.objects.get(declared.key)
                if known is not None and known.uid == declared.uid and known.generation >= declared.generation:
                    return frozenset()
                if declared.uid in self._gone:
                    return frozenset()  # told late: an incarnation that was seen to go never comes back
                return world.put(declared)
            case Gone(key, uid):
                known = world.objects.get(key)
                self._gone[uid or (known.uid if known is not None else "")] = None
                while len(self._gone) > _REMEMBERED:
                    self._gone.pop(next(iter(self._gone)))
                if known is None or (uid and known.uid != uid):
                    return frozenset()
                return world.remove(key)
            case NamespacePut(namespace):
                return (
                    world.put_namespace(namespace) if world.namespaces.get(namespace.name) != namespace else frozenset()
                )
            case NamespaceGone(name, uid):
                space = world.namespaces.get(name)
                return world.remove_namespace(name) if space is not None and uid in {"", space.uid} else frozenset()
            case Relist():
                return frozenset()  # asked for before the pass began

    async def _loaded(self) -> Publication:
        if self._publication is None:
            published = await self._publisher.load()
            if self._book is not None:
                self._book.restore(published.sightings, published.declared)
            self._publication = Publication(published)
            self.health.revision = published.revision
        return self._publication

    def _brake_on(self, world: World, publication: Publication, listing: Listing) -> None:
        """Put back what the listing misses and nobody saw go, when it is too much to believe at once (D-40)."""
        before: dict[ObjectKey, Declared] = {**publication.objects, **self._world.objects}
        present = {declared.key for declared in listing.objects}
        counts: dict[str, int] = {}
        for key in before:
            counts[key.kind] = counts.get(key.kind, 0) + 1
        missing = {(key, declared.uid) for key, declared in before.items() if key not in present}
        held = missing - self._brake.believed(missing, counts, self._clock())
        spaces = {**publication.namespaces, **self._world.namespaces}
        for key, _ in held:
            if key.namespace and key.namespace not in world.namespaces and key.namespace in spaces:
                world.put_namespace(spaces[key.namespace])
            world.put(before[key])
        self.health.brake_held = len(held)
        if held:
            _log.warning(
                "brake",
                held=len(held),
                known=len(before),
                message="a listing misses too many objects: a second one must confirm it",
            )

    async def _publish(
        self, publication: Publication, world: World, compiled: Compiled, *, full: bool, retire: bool = False
    ) -> None:
        unsaved = self._book.unsaved() if self._book is not None else Unsaved((), ())
        if len(compiled.rows) <= _LITTLE:
            difference = publication.difference(world, compiled, unsaved, full=full, retire=retire)
        else:
            difference = await asyncio.to_thread(
                publication.difference, world, compiled, unsaved, full=full, retire=retire
            )
        revision = self.health.revision
        if not difference.empty:
            revision = await self._publisher.publish(difference.change, mirror=self._mirror)
            publication.committed(difference)
            if self._book is not None:
                self._book.saved(unsaved)
        if difference.served:
            _log.info("published", revision=revision, objects=len(difference.change.audit), full=full)
        self._account(world, compiled, revision, full=full)
        self._announcer.forget(key for key, now in difference.owners.items() if now is None)
        changed = {stored.owner for stored in difference.rows.values()}
        self._announcer.tell(sorted(compiled.verdicts.values(), key=lambda verdict: verdict.uid in changed), revision)

    def _account(self, world: World, compiled: Compiled, revision: int, *, full: bool) -> None:
        if full:
            self._not_ready.clear()
        self._not_ready.difference_update(compiled.rows)
        self._not_ready.update(key for key, verdict in compiled.verdicts.items() if not verdict.ready)
        self.health.revision, self.health.objects, self.health.not_ready = (
            revision,
            len(world.objects),
            len(self._not_ready),
        )
