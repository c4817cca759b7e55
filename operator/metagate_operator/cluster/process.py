"""`metagate operator`: from nothing to the one writer, and cleanly out again."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from legivellum.base.supervision import run_until_first_exit
from metagate_crds.objects import CompileSettings
from metagate_operator.cluster.cluster_issuer import discover_cluster_issuer, key_refresher, with_cluster_issuer
from metagate_operator.cluster.cluster_source import ClusterSource
from metagate_operator.cluster.database_outage import DatabaseOutageReporter
from metagate_operator.cluster.kubernetes_client import KubernetesClient
from metagate_operator.cluster.leader_election import LeaderElection
from metagate_operator.cluster.memory_trim import MemoryTrimmer
from metagate_operator.cluster.metrics import OperatorMetrics
from metagate_operator.cluster.object_cache import ObjectCache
from metagate_operator.cluster.preflight import check_kinds, check_rights
from metagate_operator.cluster.probes import ProbeChecks, ProbeServer
from metagate_operator.cluster.rbac import operator_rights
from metagate_operator.cluster.reporter import ClusterReporter
from metagate_operator.cluster.watcher import silence_kopf_loggers
from metagate_operator.issuers.key_fetcher import HttpsKeyFetcher, parse_networks
from metagate_operator.ledger.ledger_client import HttpLedgerClient, LedgerAccess
from metagate_operator.ledger.relay import run_relay
from metagate_operator.overdue import OverdueCounter
from metagate_operator.reconcile.health import HealthFacts, WriterHealth
from metagate_operator.reconcile.reconciler import Reconciler
from metagate_operator.retention import RetentionTask
from metagate_operator.settings import WriterSettings, kill_at
from metagate_store.errors import StoreUnavailable
from metagate_store.maintenance import MaintenanceStore
from metagate_store.publisher import Publisher

log = structlog.get_logger(__name__)

# JSON from the API server may be nested ten thousand deep; reading it must not fail, so that judging it can.
RECURSION_LIMIT = 30_000
STACK_BYTES = 64 << 20
STORE_RETRY_SECONDS = 2.0

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class OperatorOptions:
    """What the operator is told. `namespaces` and `selector` empty: the whole cluster."""

    dsn: str
    identity: str
    kubeconfig: str | None = None
    context: str | None = None
    namespace: str = "metagate-system"
    namespaces: tuple[str, ...] = ()
    selector: Mapping[str, str] = field(default_factory=dict)
    issuers: Path | None = None
    lease: bool = True
    host: str = "0.0.0.0"  # noqa: S104 - the kubelet asks from outside the pod
    port: int = 9090
    mirror: bool = False
    ledger: LedgerAccess | None = None
    inactivity_seconds: float = 70.0
    retention: timedelta = timedelta(hours=72)
    issuer_ca: Path | None = None
    issuer_networks: str = ""
    compile: CompileSettings = field(default_factory=CompileSettings)
    writer: WriterSettings = field(default_factory=WriterSettings)


def run(options: OperatorOptions) -> None:
    """Operate until a signal; on a thread whose stack is deep enough for whatever people nest.

    Raises:
        NotReady: the cluster lacks something.
        LeadershipLost, StoreError, KubernetesError: it cannot go on.

    """
    sys.setrecursionlimit(RECURSION_LIMIT)
    threading.stack_size(STACK_BYTES)  # reserved, not used: pages come with depth
    silence_kopf_loggers()
    outcome: list[BaseException] = []
    stop = _Stop()

    def body() -> None:
        try:
            asyncio.run(_until(stop, operate(options)))
        except BaseException as error:  # noqa: BLE001 - raised again where the caller can see it
            outcome.append(error)

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop.request)
    thread = threading.Thread(target=body, name="operator")
    thread.start()
    thread.join()
    if outcome:
        raise outcome[0]


class _Stop:
    """A signal arrives in the main thread and cancels a task of the loop in another one."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def request(self, *_: object) -> None:
        self._requested.set()
        if self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)

    def cancel_on_request(self, task: asyncio.Task[None]) -> None:
        self._loop, self._task = asyncio.get_running_loop(), task
        if self._requested.is_set():
            task.cancel()

    @property
    def requested(self) -> bool:
        return self._requested.is_set()


async def _until(stop: _Stop, work: Awaitable[None]) -> None:
    task = asyncio.ensure_future(work)
    assert isinstance(task, asyncio.Task)
    stop.cancel_on_request(task)
    try:
        await task
    except asyncio.CancelledError:
        if not stop.requested:
            raise
        log.info("stopped")


async def operate(options: OperatorOptions) -> None:
    """Check what is needed, wait for the leadership, reconcile until cancelled."""
    kubernetes = await KubernetesClient.connect(options.kubeconfig, options.context)
    health = WriterHealth()
    state = _State(options, health)
    OperatorMetrics(state.facts)
    probes = ProbeServer(ProbeChecks(state.alive, state.ready), host=options.host, port=options.port)
    leadership = LeaderElection(kubernetes, options.namespace, options.identity, clock=time.monotonic)
    publisher: Publisher | None = None
    try:
        await probes.start()
        await check_kinds(kubernetes)
        rights = operator_rights(options.namespaces, cluster_issuers=options.issuers is None)
        await check_rights(kubernetes, rights, namespace=options.namespace, namespaces=options.namespaces)
        publisher = await _store(kubernetes, options)
        state.phase = "waiting for the leadership"
        if options.lease:
            await leadership.acquire()
        await _reconcile(kubernetes, publisher, leadership, options, state)
    finally:
        await leadership.release()
        if publisher is not None:
            await publisher.close()
        await probes.stop()
        await kubernetes.close()


async def _store(kubernetes: KubernetesClient, options: OperatorOptions) -> Publisher:
    """The database, once it is there. One that is away is waited for; one that is foreign or not migrated
    is an error.
    """
    cluster = (await kubernetes.get("/api/v1/namespaces/kube-system"))["metadata"]["uid"]
    while True:
        try:
            return await Publisher.open(
                options.dsn, cluster_uid=cluster, failpoint=kill_at(options.writer.fail.split(","))
            )
        except StoreUnavailable as error:
            log.warning("database_awaited", error=str(error))
            await asyncio.sleep(STORE_RETRY_SECONDS)


async def _reconcile(
    kubernetes: KubernetesClient,
    publisher: Publisher,
    leadership: LeaderElection,
    options: OperatorOptions,
    state: _State,
) -> None:
    cache = ObjectCache()
    source = ClusterSource(
        kubernetes,
        cache,
        namespaces=options.namespaces,
        selector=options.selector,
        issuers=options.issuers,
        inactivity_timeout=options.inactivity_seconds,
    )
    reporter = ClusterReporter(kubernetes, cache, instance=options.identity, everywhere=not options.namespaces)
    settings = await with_cluster_issuer(kubernetes, options.compile)
    web = HttpsKeyFetcher(ca_file=options.issuer_ca, allow=parse_networks(options.issuer_networks))
    keys = key_refresher(kubernetes, publisher, reporter, web)
    reconciler = Reconciler(
        source=source,
        publisher=publisher,
        reporter=reporter,
        compile_settings=settings,
        settings=options.writer,
        mirror=options.mirror,
    )
    state.health = reconciler.health
    state.phase = ""
    maintenance = MaintenanceStore(options.dsn)
    mirroring = options.mirror or options.ledger is not None
    works: dict[str, Work] = {
        "reconcile": reconciler.run,
        "report": reporter.run,
        "refresh_keys": keys.run,
        "tell_outages": DatabaseOutageReporter(cache, reporter, reconciler.health).run,
        "trim_memory": MemoryTrimmer(reconciler.health).run,
        "retain": RetentionTask(maintenance, retention=options.retention, mirroring=mirroring).run,
        "count_overdue": OverdueCounter(maintenance).run,
    }
    if options.ledger is not None:
        ledger = options.ledger
        works["relay"] = lambda: run_relay(options.dsn, HttpLedgerClient(ledger))
    if settings.cluster_issuer is None:
        works["discover_issuer"] = lambda: discover_cluster_issuer(kubernetes, options.compile, reconciler)
    if options.lease:
        works["keep_lease"] = leadership.keep
    try:
        await run_until_first_exit(**works)
    finally:
        await maintenance.close()


class _State:
    """What probes and metrics show."""

    def __init__(self, options: OperatorOptions, health: WriterHealth) -> None:
        self._bound = 3 * options.writer.resync_seconds
        self.health = health
        self.phase = "starting"

    def facts(self) -> HealthFacts:
        return self.health.facts()

    def alive(self) -> str | None:
        if self.phase or self.health.alive(self._bound):
            return None
        return f"no pass ended within {self._bound:.0f} s"

    def ready(self) -> str | None:
        return "starting" if self.phase == "starting" else None
