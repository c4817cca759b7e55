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

from legivellum.base.backoff import Backoff
from legivellum.base.supervision import run_until_first_exit
from metagate_crds.compile.compiler import compile_world
from metagate_crds.compile.snapshot import CompiledWorld
from metagate_crds.compile.world import World
from metagate_crds.objects import CompileSettings, ObjectKey
from metagate_operator.reconcile.desired_state import DesiredState
from metagate_operator.reconcile.health import WriterHealth
from metagate_operator.reconcile.mass_deletion_guard import MassDeletionGuard
from metagate_operator.reconcile.publish_diff import PublishedState
from metagate_operator.reconcile.status_queue import StatusQueue
from metagate_operator.settings import WriterSettings
from metagate_operator.sources.file_identities import FileIdentities, UnsavedIdentities
from metagate_operator.sources.source import (
    Event,
    NamespaceGone,
    NamespacePut,
    Relist,
    Reporter,
    Source,
    SourceUnavailable,
)
from metagate_store.errors import Fenced, ForeignCluster, SchemaMismatch, StaleBase, StoreUnavailable
from metagate_store.rows import Change, Published

_log = structlog.stdlib.get_logger("metagate.reconcile")
_LITTLE = 100
_EXPECTED = (SourceUnavailable, StoreUnavailable, StaleBase)
_FATAL = (Fenced, SchemaMismatch, ForeignCluster)


class Store(Protocol):
    """What the reconciler needs of `metagate_store.publisher.Publisher`."""

    def load(self) -> Awaitable[Published]: ...
    def publish(self, change: Change, *, mirror: bool = False) -> Awaitable[int]: ...


class Reconciler:
    """The one writer. `run()` until cancelled or fenced; `identities` where the source makes its own identities."""

    def __init__(
        self,
        *,
        source: Source,
        publisher: Store,
        reporter: Reporter,
        compile_settings: CompileSettings,
        settings: WriterSettings | None = None,
        identities: FileIdentities | None = None,
        mirror: bool = False,
        clock: Callable[[], float] = monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._source, self._publisher, self._identities, self._mirror = source, publisher, identities, mirror
        self._settings = settings or WriterSettings()
        self._clock, self._jitter = clock, jitter
        self._backoff = Backoff(self._settings.backoff_seconds, self._settings.backoff_max_seconds, jitter=jitter)
        self._guard = MassDeletionGuard(
            objects=self._settings.brake_objects, share=self._settings.brake_share, seconds=self._settings.brake_seconds
        )
        self.health = WriterHealth(clock=clock)
        self._status_queue = StatusQueue(reporter, self.health)
        self._desired = DesiredState(compile_settings, self._guard)
        self._published_state: PublishedState | None = None
        self._pending: list[Event] = []
        self._wake = asyncio.Event()
        self._relist = True
        self._ready = asyncio.Event()
        self._published = asyncio.Event()
        self._not_ready: set[ObjectKey] = set()

    async def published(self) -> None:
        """Returns once the first full pass is committed."""
        await self._published.wait()

    def resync(self, reason: str, *, compile_settings: CompileSettings | None = None) -> None:
        """List everything anew soon; with other settings when the cluster's issuer became known, say."""
        self._desired.settings = compile_settings or self._desired.settings
        self._notice(Relist(reason))

    async def run(self) -> None:
        """Reconcile for ever.

        Raises:
            Fenced: another writer took over; nothing more is written.
            SchemaMismatch, ForeignCluster: the database is not one to write to.

        """
        await run_until_first_exit(
            reconcile=self._reconcile, consume_events=self._consume_events, report=self._status_queue.run
        )

    async def _consume_events(self) -> None:
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
            await asyncio.sleep(self._backoff.after(failures))
            self._notice(Relist("the source's events broke off"))

    def _notice(self, event: Event) -> None:
        if not self._pending and self._desired.is_known(event):
            return
        self._pending.append(event)
        self._wake.set()

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
                await asyncio.sleep(self._backoff.after(self.health.consecutive_failures))
                continue
            now = self._clock()
            self.health.succeeded(now - started)
            if full:
                due = now + self._settings.resync_seconds * (1 - 0.1 * self._jitter())
            if self._guard.waiting:
                due = min(due, now + self._settings.brake_seconds)
            with suppress(TimeoutError):
                # Not wait_for: of Python 3.11 it loses a cancellation that comes with the event, and this would go on.
                async with asyncio.timeout(max(due - now, 0)):
                    await self._wake.wait()
                await asyncio.sleep(self._settings.debounce_seconds)
            self._wake.clear()

    def _failed(self, error: Exception) -> None:
        """After an error nothing is assumed: load (unless only the source failed) and list."""
        self.health.failed(error)
        self._relist = True
        if not isinstance(error, SourceUnavailable):
            self._published_state = None
        _log.warning(
            "pass.failed",
            error=type(error).__name__,
            message=str(error) if isinstance(error, _EXPECTED) else "unexpected",
            failures=self.health.consecutive_failures,
            exc_info=None if isinstance(error, _EXPECTED) else error,
        )

    async def _full_pass(self) -> None:
        published_state = await self._loaded()
        self._ready.set()
        self._pending.clear()  # the listing is younger than these
        listing = await self._source.listing()
        world, self.health.brake_held = self._desired.merge_listing(
            listing, published_state.objects, published_state.namespaces, self._clock()
        )
        world.key_owners = published_state.key_owners
        compiled = await asyncio.to_thread(compile_world, world, published_state.last_good)
        await self._publish(published_state, world, compiled, full=True)
        self._desired.replace(world)
        self._relist = False
        self._published.set()

    async def _quick_pass(self) -> None:
        published_state = await self._loaded()
        events, self._pending = self._pending, []
        affected: set[ObjectKey] = set()
        spaces = False
        for event in events:
            affected |= self._desired.apply(event)
            spaces = spaces or isinstance(event, NamespacePut | NamespaceGone)
        if affected or spaces:
            await self._follow(published_state, frozenset(affected), retire=spaces)

    async def _follow(self, published_state: PublishedState, affected: frozenset[ObjectKey], *, retire: bool) -> None:
        """Compile and publish what an event reaches: here when it is little, beside the loop when it is much."""
        world = self._desired.world
        world.key_owners = published_state.key_owners
        if len(affected) <= _LITTLE:
            compiled = compile_world(world, published_state.last_good, affected)
        else:
            compiled = await asyncio.to_thread(compile_world, world, published_state.last_good, affected)
        await self._publish(published_state, world, compiled, full=False, retire=retire)

    async def _loaded(self) -> PublishedState:
        if self._published_state is None:
            published = await self._publisher.load()
            if self._identities is not None:
                self._identities.restore(published.file_identities, published.declared)
            self._published_state = PublishedState(published)
            self.health.revision = published.revision
        return self._published_state

    async def _publish(
        self,
        published_state: PublishedState,
        world: World,
        compiled: CompiledWorld,
        *,
        full: bool,
        retire: bool = False,
    ) -> None:
        unsaved = self._identities.unsaved() if self._identities is not None else UnsavedIdentities((), ())
        if len(compiled.rows) <= _LITTLE:
            diff = published_state.diff(world, compiled, unsaved, full=full, retire=retire)
        else:
            diff = await asyncio.to_thread(published_state.diff, world, compiled, unsaved, full=full, retire=retire)
        revision = self.health.revision
        if not diff.empty:
            revision = await self._publisher.publish(diff.change, mirror=self._mirror)
            published_state.committed(diff)
            if self._identities is not None:
                self._identities.saved(unsaved)
        if diff.served:
            _log.info("published", revision=revision, objects=len(diff.change.audit), full=full)
        self._account(world, compiled, revision, full=full)
        self._status_queue.forget(key for key, now in diff.owners.items() if now is None)
        changed = {stored.owner for stored in diff.rows.values()}
        self._status_queue.enqueue(
            sorted(compiled.verdicts.values(), key=lambda verdict: verdict.uid in changed), revision
        )

    def _account(self, world: World, compiled: CompiledWorld, revision: int, *, full: bool) -> None:
        if full:
            self._not_ready.clear()
        self._not_ready.difference_update(compiled.rows)
        self._not_ready.update(key for key, verdict in compiled.verdicts.items() if not verdict.ready)
        self.health.revision, self.health.objects, self.health.not_ready = (
            revision,
            len(world.objects),
            len(self._not_ready),
        )
