"""The application, put together: every endpoint of the table bound to its handler, one edge around them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from legivellum.base.token_bucket import TokenBuckets
from legivellum.gate.composition import unavailable
from legivellum.gate.interview import INTERVIEW_ENDPOINT
from legivellum.http.access_log import AccessLog
from legivellum.http.batching import Batcher, BatchLimits
from legivellum.http.edge import Edge, Observer, answer_observer
from legivellum.http.exchange import App
from legivellum.http.metrics import RouteMetrics
from legivellum.http.router import Handler, RouteLimits, Router
from metagate_api import admin, history, introspection, problematas, startups, views
from metagate_api.bootstrap import BootstrapHandler
from metagate_api.callers import ApiAuthenticator, CallerAuthenticator
from metagate_api.declared_files import DeclaredFiles
from metagate_api.endpoints import ENDPOINTS
from metagate_api.framework import FrameworkHandler, framework_handlers
from metagate_api.gate import Gate, SnapshotStatus
from metagate_api.interview import interview_handler
from metagate_api.metrics import BATCH_ROWS, EDGES, LATENCY, REQUESTS
from metagate_api.packet_cache import PacketCache
from metagate_api.packet_rendering import Signer
from metagate_api.public_routes import public_handlers
from metagate_api.session_opener import with_new_ids
from metagate_api.settings import Settings
from metagate_api.startup_reports import ReportHandler
from metagate_store.reader import Reader
from metagate_store.rows import BootstrapQuery, BootstrapResult, ReportQuery, ReportResult

Lifespan = Callable[[Gate], AbstractAsyncContextManager[Any]]

_FRAMEWORK_FUNCTIONS: Final[dict[str, FrameworkHandler]] = {
    "GET /v1/startup/{startup_id}": startups.startup,
    "GET /v1/startup/{startup_id}/packet": startups.packet_now,
    "GET /v1/startups": startups.startups,
    "GET /v1/summary": startups.summary,
    "GET /v1/topology": views.topology,
    "GET /v1/policy-profiles/{key}": views.policy_profile,
    "GET /v1/problematas": problematas.problematas,
    "GET /v1/problematas/{problemata_id}": problematas.problemata,
    "PUT /v1/problematas/{problemata_id}/instances/{instance}": problematas.announce,
    "DELETE /v1/problematas/{problemata_id}/instances/{instance}": problematas.withdraw,
    "POST /v1/introspect": introspection.introspect,
    "GET /v1/admin/explain/principal/{key}": history.explain_principal,
    "GET /v1/admin/explain/startup/{startup_id}": history.explain_startup,
    "GET /v1/admin/history": history.history,
    "GET /v1/admin/history/objects": history.objects,
    "POST /v1/admin/plan": history.plan_changes,
    "GET /v1/admin/{kind}": admin.listing,
    "GET /v1/admin/{kind}/{key}": admin.item,
    "POST /v1/admin/{kind}": admin.write,
    "DELETE /v1/admin/{kind}/{key}": admin.remove,
}
"""What FastAPI answers. Boots and reports are not among it: framework, models and dependency injection would cost more
than the work.
"""


@dataclass(frozen=True, slots=True)
class Application:
    """What the server serves, and the state behind it (`gate`)."""

    asgi: App
    gate: Gate
    router: Router


def create_app(
    settings: Settings,
    reader: Reader | None,
    authenticator: ApiAuthenticator,
    *,
    issuers: Callable[[], Sequence[str]] = tuple,
    declared: DeclaredFiles | None = None,
    signer: Signer | None = None,
    lifespan: Lifespan | None = None,
    traces: Observer | None = None,
) -> Application:
    """The whole gate. `reader` may come later (`gate.connected`): until then every question is answered with 503.

    `lifespan` is an async context manager around the serving time, given the gate. `traces` is told of every answer.
    """
    buckets = TokenBuckets(settings.rate_per_second, settings.rate_burst)
    status = SnapshotStatus(ready=reader is not None, up=reader is not None)
    gate = Gate(
        settings=settings,
        authenticator=authenticator,
        caller_authenticator=CallerAuthenticator(authenticator, buckets, informed=lambda: status.ready),
        packet_cache=PacketCache(limit_bytes=settings.cache_bytes),
        issuers=issuers,
        declared=declared,
        signer=signer,
        status=status,
        connected=reader,
    )
    router = Router.bind(
        ENDPOINTS,
        _batched_handlers(gate)
        | public_handlers(gate)
        | {INTERVIEW_ENDPOINT.key: interview_handler(gate)}
        | framework_handlers(gate, _FRAMEWORK_FUNCTIONS),
        defaults=RouteLimits(settings.body_bytes, settings.body_seconds, settings.deadline_seconds),
    )
    observe = answer_observer(RouteMetrics(REQUESTS, LATENCY, EDGES), AccessLog(settings.access_log), traces)

    @asynccontextmanager
    async def serving_time() -> AsyncIterator[None]:
        async with nullcontext() if lifespan is None else lifespan(gate):
            yield

    edge = Edge(router, translate=unavailable, observe=observe, lifespan=serving_time)
    if not settings.console:
        return Application(edge, gate, router)
    from metagate_api.console_mount import console  # noqa: PLC0415 - its templates are loaded only where somebody looks

    return Application(console(gate, edge, edge.observe), gate, router)


def _batched_handlers(gate: Gate) -> dict[str, Handler]:
    """Boot and report: many requests share one statement."""
    settings = gate.settings
    limits = BatchLimits(queue=settings.queue)
    opened = BATCH_ROWS.labels("bootstrap")
    reported = BATCH_ROWS.labels("report")

    async def bootstrap(asks: Sequence[BootstrapQuery]) -> list[BootstrapResult]:
        opened.observe(len(asks))
        return await gate.reader.bootstrap(asks)

    async def report(asks: Sequence[ReportQuery]) -> list[ReportResult]:
        reported.observe(len(asks))
        return await gate.reader.report(asks)

    reports = Batcher(report, name="report", limits=limits)
    authenticator, mirror = gate.caller_authenticator, settings.mirror
    return {
        "POST /v1/bootstrap": BootstrapHandler(
            caller_authenticator=authenticator,
            batcher=Batcher(bootstrap, name="bootstrap", limits=limits, renew=with_new_ids),
            packet_cache=gate.packet_cache,
            mirror=mirror,
            signer=gate.signer,
        ),
        "POST /v1/startup/ready": ReportHandler(
            "READY", caller_authenticator=authenticator, batcher=reports, mirror=mirror
        ),
        "POST /v1/startup/failed": ReportHandler(
            "FAILED", caller_authenticator=authenticator, batcher=reports, mirror=mirror
        ),
    }
