"""Delivers the watch events of custom resources, by kopf. It decides nothing and writes nothing.

It has a thread and an event loop of its own, because on its way out it ends every task of the loop that it did not find
there, and because a stream error other than 410 ends it: it is then started again, and its listener lists everything
anew. Measured on 1.45.2: an exception in an event handler is logged and never retried, so the handler does no I/O;
`on.delete`, timers and daemons add finalizers and `on.create` and `on.update` annotate people's objects, so only
`event` handlers are registered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import kopf
import structlog

from legivellum.base.backoff import Backoff
from metagate_crds.kinds import GROUP, VERSION, ResourceKind
from metagate_operator.cluster.kubernetes_client import KubernetesClient

log = structlog.get_logger(__name__)

OnEvent = Callable[[str, str | None, Mapping[str, Any]], None]
"""(kind, event type, object); the type is None for objects of a first or repeated listing."""

LONGEST_PAUSE_SECONDS = 30.0
WORKED_SECONDS = 60.0
"""A watch that lasted longer did not fail at once: the next pause is short again."""
ENDING_SECONDS = 2.0
CANCELLATIONS = 3
"""How often, and with how much time, the tasks of a watch are canceled when it ends. What is left is left behind."""
PAGE = 500


class Watcher:
    """Watches some kinds, everywhere or in some namespaces. `on_event` and `on_disconnect` are called in the
    loop that called `start`.
    """

    def __init__(
        self,
        kubernetes: KubernetesClient,
        kinds: Sequence[ResourceKind],
        *,
        namespaces: Sequence[str],
        watch_namespaces: bool,
        on_event: OnEvent,
        on_disconnect: Callable[[str], None],
        inactivity_timeout: float = 70.0,
    ) -> None:
        self._kubernetes = kubernetes
        self._kinds = tuple(kinds)
        self._namespaces = tuple(namespaces)
        self._watch_namespaces = watch_namespaces
        self._on_event = on_event
        self._on_disconnect = on_disconnect
        self._inactivity_timeout = inactivity_timeout
        self._stop = threading.Event()
        self._again = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        """The loop of the present watch, and what ends it."""

    def start(self) -> None:
        self._stop.clear()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._watch_until_stopped, name="kopf", daemon=True)
        self._thread.start()

    def restart(self) -> None:
        """Watch anew: a kind that was missing when it started is watched from now on."""
        self._again.set()
        self._end_watch()

    def _end_watch(self) -> None:
        if self._watch is not None:
            loop, ended = self._watch
            with contextlib.suppress(RuntimeError):  # the loop is closed: that watch has ended
                loop.call_soon_threadsafe(ended.set)

    async def stop(self) -> None:
        self._stop.set()
        self.restart()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 10)

    def _watch_until_stopped(self) -> None:
        backoff = Backoff(1.0, LONGEST_PAUSE_SECONDS, spread=0.3)
        while not self._stop.is_set():
            self._again.clear()
            loop = asyncio.new_event_loop()
            started = loop.time()
            try:
                loop.run_until_complete(self._watch_once())
                reason = "stopped"
            except Exception as error:  # noqa: BLE001 - whatever ended it, it is started again
                reason = type(error).__name__
                log.warning("watch_broke", error=str(error)[:300], kind=reason)
            if loop.time() - started > WORKED_SECONDS:
                backoff.reset()
            loop.close()
            if self._stop.is_set():
                return
            if self._again.is_set():
                backoff.reset()  # somebody asked for this restart: nothing failed
            else:
                self._again.wait(backoff.pause())
            self._tell(self._on_disconnect, reason)

    async def _watch_once(self) -> None:
        """Watch until a task of kopf ends, or `restart` is called. Raises what ended it.

        `kopf.run` cancels its tasks once and waits for them without a limit. One that misses it, because it waits for a
        new session, never ends: then nothing would be heard until the next listing, and nothing be watched again. Nor
        does kopf get a `threading.Event` to stop at: a thread would wait for it, also after the watch has failed.
        """
        ended = asyncio.Event()
        self._watch = asyncio.get_running_loop(), ended
        if self._again.is_set():
            return  # asked for before there was anything to end
        tasks = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=self._settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=ended,
        )
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finished, remaining = [*done], asyncio.all_tasks() - {asyncio.current_task()}
        for _ in range(CANCELLATIONS):
            for task in remaining:
                task.cancel()
            if remaining:
                done, remaining = await asyncio.wait(remaining, timeout=ENDING_SECONDS)
                finished += done
        if remaining:
            log.warning("watch_tasks_stuck", tasks=sorted(task.get_name() for task in remaining))
        errors = [error for task in finished if not task.cancelled() and (error := task.exception()) is not None]
        if errors:
            raise errors[0]

    def _tell(self, callback: Callable[..., None], *what: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(callback, *what)
        except RuntimeError:
            self._stop.set()  # the loop of the receiver has ended: there is nobody to call

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        async def login(**_: object) -> kopf.ConnectionInfo:
            return await self._kubernetes.login()

        kopf.on.login(registry=registry)(login)
        for kind in self._kinds:
            kopf.on.event(GROUP, VERSION, kind.plural, registry=registry, id=kind.plural)(self._handler(kind.name))
        if self._watch_namespaces:
            kopf.on.event("", "v1", "namespaces", registry=registry, id="namespaces")(self._handler("Namespace"))
        return registry

    def _handler(self, kind: str) -> Callable[..., Any]:
        async def handler(event: Mapping[str, Any], **_: object) -> None:
            self._tell(self._on_event, kind, event["type"], event["object"])

        return handler

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.scanning.disabled = True  # else it wants to see CRDs and namespaces everywhere
        settings.posting.enabled = False
        settings.queueing.idle_timeout = 0.2  # idle workers are the peak of memory after a listing
        settings.watching.chunk_size = PAGE
        settings.watching.inactivity_timeout = self._inactivity_timeout
        settings.process.ultimate_exiting_timeout = None
        settings.networking.error_backoffs = (0.5, 1, 2)
        return settings


def silence_kopf_loggers() -> None:
    """Kopf logs a line per object and event; the operator's log is its own."""
    for name in ("kopf.objects", "kopf.activities", "kopf._core", "kopf._cogs", "kopf"):
        logging.getLogger(name).setLevel(logging.ERROR)
