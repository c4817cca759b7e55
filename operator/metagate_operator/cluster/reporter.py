"""Verdicts become status, after the commit and at the API server's pace.

A status write costs the API server 4–5 ms of its CPU, a useless one as much as a needed one, and with many in flight it
tells of new changes seconds late. So few are in flight, the freshest verdict goes first, and what the object already
says is not written again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import structlog
from prometheus_client import Counter, Gauge, Histogram

from legivellum.base.backoff import Backoff
from metagate_crds.kinds import TOKEN_ISSUER
from metagate_crds.objects import ObjectKey
from metagate_crds.reasons import KEYS_FRESH
from metagate_crds.verdict import Condition, Verdict
from metagate_operator.cluster import events
from metagate_operator.cluster.kubernetes_client import (
    APPLY_PATCH,
    KubernetesClient,
    KubernetesError,
    KubernetesRefused,
    KubernetesUnreachable,
    get_by_name,
    object_path,
)
from metagate_operator.cluster.object_cache import CachedObject, ObjectCache, cached_object
from metagate_operator.cluster.status import FIELD_MANAGER, status_differs, status_of, status_patch

log = structlog.get_logger(__name__)

WRITES = Counter("metagate_status_writes_total", "Status writes by what became of them", ["outcome"])
WAITING = Gauge("metagate_status_waiting", "Verdicts that are not in the status of their object yet")
SECONDS = Histogram("metagate_status_write_seconds", "How long the API server takes for one status write")

LONGEST_PAUSE_SECONDS = 30.0
TRIES_ON_CONFLICT = 5
BREATH = 50


class ClusterReporter:
    """Writes status with a few workers; `run` it as a task, `report` only queues. `everywhere`: cluster-scoped objects
    too.
    """

    def __init__(
        self,
        kubernetes: KubernetesClient,
        cache: ObjectCache,
        *,
        instance: str,
        everywhere: bool = True,
        in_flight: int = 3,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kubernetes = kubernetes
        self._cache = cache
        self._instance = instance
        self._everywhere = everywhere
        self._in_flight = in_flight
        self._clock = clock
        self._waiting: dict[ObjectKey, tuple[Verdict, int]] = {}
        self._busy: set[ObjectKey] = set()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._backoff = Backoff(0.5, LONGEST_PAUSE_SECONDS, spread=0.3)
        self._issuers: dict[str, tuple[Verdict, int]] = {}
        self.freshness: Mapping[str, Condition] = {}
        self._allowance = events.EventBudget(time.monotonic)

    async def report(self, verdicts: Sequence[Verdict], revision: int) -> None:
        """Queue those that differ from what their objects say; the last queued is the first written."""
        for number, verdict in enumerate(reversed(verdicts)):
            if number % BREATH == BREATH - 1:
                await asyncio.sleep(0)  # ten thousand comparisons must not hold up the next change
            self._waiting.pop(verdict.key, None)
            if not (verdict.key.namespace or self._everywhere):
                continue  # without cluster-wide rights TokenIssuers are read only
            if verdict.key.kind == TOKEN_ISSUER.name:
                self._issuers[verdict.key.name] = (verdict, revision)
                verdict = self._refreshed(verdict)  # noqa: PLW2901 - the same verdict, with what is known of its keys
            before = self._cache.get(verdict.key)
            if (
                before is not None
                and before.uid == verdict.uid
                and status_differs(status_of(verdict, revision, self._clock(), before), before)
            ):
                self._waiting[verdict.key] = (verdict, revision)
        self._tell()

    async def keys_changed(self, name: str) -> None:
        """`freshness` says something else of this TokenIssuer: its status does too, from now on."""
        if name in self._issuers:
            verdict, revision = self._issuers[name]
            await self.report([verdict], revision)

    def _refreshed(self, verdict: Verdict) -> Verdict:
        """Compiling knows nothing of fetched keys; whoever fetches them does."""
        fresh = self.freshness.get(verdict.key.name)
        if fresh is None or verdict.condition(KEYS_FRESH) is None:
            return verdict
        return replace(
            verdict,
            conditions=tuple(fresh if condition.type == KEYS_FRESH else condition for condition in verdict.conditions),
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as workers:
            for number in range(self._in_flight):
                workers.create_task(self._work_on(), name=f"status-{number}")

    async def drained(self) -> None:
        """Until nothing waits and nothing is being written."""
        await self._idle.wait()

    def _tell(self) -> None:
        WAITING.set(len(self._waiting))
        if self._waiting:
            self._idle.clear()
            self._work.set()
        elif not self._busy:
            self._idle.set()

    async def _work_on(self) -> None:
        while True:
            await self._work.wait()
            taken = self._take()
            if taken is None:
                self._work.clear()
                continue
            verdict, revision = taken
            self._busy.add(verdict.key)
            try:
                await self._write(verdict, revision)
            except KubernetesError as error:
                self._put_back(verdict, revision)
                pause = self._backoff.pause()
                log.warning("status_not_written", error=str(error), retry_in=round(pause, 1))
                await asyncio.sleep(pause)
            finally:
                self._busy.discard(verdict.key)
                self._tell()

    def _take(self) -> tuple[Verdict, int] | None:
        for key in reversed(self._waiting):
            if key not in self._busy:  # two writes to one object would only conflict
                return self._waiting.pop(key)
        return None

    def _put_back(self, verdict: Verdict, revision: int) -> None:
        """Behind everything else, unless a younger verdict of the object waits already."""
        if verdict.key not in self._waiting:
            self._waiting = {verdict.key: (verdict, revision), **self._waiting}

    async def _write(self, verdict: Verdict, revision: int) -> None:
        before = self._cache.get(verdict.key)
        for _ in range(TRIES_ON_CONFLICT):
            if before is None or (before.uid, before.generation) != (verdict.uid, verdict.generation):
                WRITES.labels("obsolete").inc()
                return  # gone, or another incarnation or generation, which gets a verdict of its own
            new_status = status_of(verdict, revision, self._clock(), before)
            if not status_differs(new_status, before):
                return
            try:
                with SECONDS.time():
                    body = await self._kubernetes.call(
                        "PATCH",
                        f"{object_path(*verdict.key)}/status",
                        query={"fieldManager": FIELD_MANAGER, "force": "true"},
                        body=status_patch(verdict, new_status, before.version),
                        content_type=APPLY_PATCH,
                    )
            except KubernetesRefused as error:
                if error.status == 409:
                    WRITES.labels("conflict").inc()
                    before = await self._look(verdict)
                    continue
                self._refused(verdict, error)
                return
            self._backoff.reset()
            WRITES.labels("written").inc()
            self._cache.observe(verdict.key, cached_object(body))
            await self._tell_transition(verdict, before)
            return
        self._put_back(verdict, revision)

    async def _look(self, verdict: Verdict) -> CachedObject | None:
        """The object moved on under our hands: what does it look like now?"""
        body = await get_by_name(self._kubernetes, *verdict.key)
        return None if body is None else cached_object(body)

    def _refused(self, verdict: Verdict, error: KubernetesRefused) -> None:
        if error.status == 404:
            WRITES.labels("obsolete").inc()
            return
        if error.status in {401, 429} or error.status >= 500:
            raise KubernetesUnreachable(str(error)) from error
        WRITES.labels("refused").inc()
        log.error(
            "status_refused",
            kind=verdict.key.kind,
            namespace=verdict.key.namespace,
            name=verdict.key.name,
            status=error.status,
        )

    async def _tell_transition(self, verdict: Verdict, before: CachedObject) -> None:
        ready = events.ready_transition(verdict, before)
        if ready is None or not self._allowance.take():
            return
        namespace, body = events.event_body(verdict, ready, self._clock(), self._instance)
        try:
            await self._kubernetes.call("POST", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", body=body)
        except KubernetesError as error:
            log.warning("event_not_written", error=str(error))  # best effort: the status says it too
