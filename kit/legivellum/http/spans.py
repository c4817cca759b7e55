"""OpenTelemetry (the extra `otel`): one SERVER span per answer.

A span joins the trace of its caller's `traceparent` (W3C Trace Context) and is sampled as that one was. It is made when
the answer is known, so that nothing is added to the request's way, and sent by a thread; a collector that is slow or
away costs spans and nothing else. Where to, how often and under which name is OpenTelemetry's own environment:
OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME and their kin.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from legivellum.http.exchange import AnyResponse, Exchange

_PROPAGATED_HEADERS: Final = {b"traceparent": "traceparent", b"tracestate": "tracestate"}
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
_FLUSH_SECONDS: Final = 2.0


class SpanRecorder:
    """Told of every answer by the edge, like the access log. A span says what that would say, without who asked."""

    def __init__(self, service: str, version: str) -> None:
        self._service = service
        self._version = version
        self._tracer: Tracer | None = None
        self._context = TraceContextTextMapPropagator()
        # A full queue would be told once per span that is dropped.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """While this process serves. What is left at the end is sent if that takes no longer than two seconds."""
        resource = Resource.create({"service.name": self._service, "service.version": self._version})
        provider = TracerProvider(resource=resource.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = provider.get_tracer("legivellum.http", self._version)
        try:
            yield
        finally:
            self._tracer = None
            await _flush(provider)

    def __call__(self, exchange: Exchange, answer: AnyResponse, seconds: float) -> None:
        if self._tracer is None:
            return
        ended = time.time_ns()
        route = exchange.route
        method = exchange.method if exchange.method in _METHODS else "_OTHER"
        span = self._tracer.start_span(
            f"{method} {route}" if route else method,
            self._context.extract(_carrier(exchange)),
            SpanKind.SERVER,
            _attributes(exchange, answer, method, route),
            start_time=ended - int(seconds * 1e9),
        )
        if answer.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)


def _carrier(exchange: Exchange) -> dict[str, str]:
    carrier: dict[str, str] = {}
    for key, value in exchange.headers:
        name = _PROPAGATED_HEADERS.get(key)
        if name is not None:
            carrier[name] = value.decode("latin-1") if name not in carrier else ""  # sent twice is not sent
    return carrier


def _attributes(exchange: Exchange, answer: AnyResponse, method: str, route: str | None) -> dict[str, AttributeValue]:
    """By the semantic conventions of HTTP servers, but for `url.path`: a path holds ids, and what somebody mistyped."""
    attributes: dict[str, AttributeValue] = {
        "http.request.method": method,
        "http.response.status_code": answer.status,
        "url.scheme": exchange.scope.get("scheme", "http"),
        "metagate.request_id": exchange.request_id,
    }
    if route:
        attributes["http.route"] = route
    if exchange.code is not None:
        attributes["metagate.code"] = exchange.code.name
    if answer.status >= 500:
        attributes["error.type"] = str(answer.status)
    return attributes


async def _flush(provider: TracerProvider) -> None:
    """A daemon: whoever waits for a collector that does not answer must not be waited for."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=shut_down, name="last spans", daemon=True).start()
    with suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), _FLUSH_SECONDS)
