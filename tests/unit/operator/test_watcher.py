"""The watch is started again after anything that ends it, also where kopf does not come to its end."""

import asyncio
import contextlib
import threading
from collections.abc import Callable

import kopf

from metagate_crds.kinds import KINDS
from metagate_operator.cluster.watcher import Watcher, silence_kopf_loggers

silence_kopf_loggers()


class HungLogin:
    """A credential plugin that hangs, and misses the first cancellation, as a wait for a new session can."""

    def __init__(self) -> None:
        self.logins = 0

    async def login(self) -> kopf.ConnectionInfo:
        self.logins += 1
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)
        raise AssertionError


class AbsentCluster:
    """Credentials of an API server that nobody answers for."""

    async def login(self) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server="http://127.0.0.1:1")


def watcher_of(kubernetes: object, disconnected: Callable[[str], None]) -> Watcher:
    return Watcher(
        kubernetes,  # type: ignore[arg-type]
        tuple(KINDS.values()),
        namespaces=(),
        watch_namespaces=True,
        on_event=lambda *_: None,
        on_disconnect=disconnected,
    )


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not fact():
            await asyncio.sleep(0.02)


async def test_a_watch_ends_although_a_task_of_it_hangs() -> None:
    """Else the operator would hear nothing any more until its next listing, and never watch again."""
    kubernetes, reasons = HungLogin(), list[str]()
    watcher = watcher_of(kubernetes, reasons.append)
    watcher.start()
    try:
        await until(lambda: kubernetes.logins == 1)
        watcher.restart()
        await until(lambda: kubernetes.logins == 2)
        assert reasons == ["stopped"]
    finally:
        await watcher.stop()


async def test_a_watch_that_fails_leaves_no_thread() -> None:
    """A cluster that is away for a day would else cost a thread for each attempt."""
    kubernetes, reasons = AbsentCluster(), list[str]()
    threads = threading.active_count()
    watcher = watcher_of(kubernetes, reasons.append)
    watcher.start()
    try:
        await until(lambda: len(reasons) >= 2)
        assert threading.active_count() <= threads + 1  # its own
    finally:
        await watcher.stop()
