"""Traces: real spans over OTLP/HTTP to a collector that takes what arrives, and to one that takes nothing."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.databases import Database
from tests.integration.api.gate_fixture import GateFixture
from tests.integration.api.processes import started, wait_for

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """Keeps the spans that were sent to it."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        kept = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                kept.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "METAGATE_TRACING": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for res in request.resource_spans
            for sc in res.scope_spans
            for span in sc.spans
        ]

    async def span(self, route: str, **wanted: object) -> Span:
        async with asyncio.timeout(10):
            while True:
                for span in self.spans:
                    says = attributes_of(span.attributes)
                    if says.get("http.route") == route and wanted.items() <= says.items():
                        return span
                await asyncio.sleep(0.02)


def attributes_of(attributes: Any) -> dict[str, Any]:
    return {attribute.key: getattr(attribute.value, attribute.value.WhichOneof("value")) for attribute in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


async def test_a_request_is_a_span_of_its_callers_trace(
    gate: GateFixture, database: Database, collector: Collector
) -> None:
    """Name, times, parent and attributes by OpenTelemetry's conventions; nothing of credential, body or packet."""
    principal = await gate.principal("traced-indexer")
    carried = {**principal.by_key, "traceparent": f"00-{TRACE}-{PARENT}-01"}
    with started(database, **collector.environment, OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test") as (
        served,
        port,
    ):
        wait_for(port, served, "/readyz")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            before = time.time_ns()
            body = {"component_key": "indexer_1"}
            booted = await client.post("/v1/bootstrap", json=body, headers=carried)
            span = await collector.span("/v1/bootstrap")
            name = booted.json()["startup"]["startup_id"]
            await client.get(f"/v1/startup/{name}", headers=principal.by_key)
            await client.post("/v1/bootstrap", json=body, headers={"x-api-key": "mgk_not-a-key"})
            read = await collector.span("/v1/startup/{startup_id}")
            refused = await collector.span("/v1/bootstrap", **{"metagate.code": "CREDENTIAL_INVALID"})
    assert span.name == "POST /v1/bootstrap"
    assert span.kind == Span.SpanKind.SPAN_KIND_SERVER
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert before <= span.start_time_unix_nano <= span.end_time_unix_nano <= time.time_ns()
    assert attributes_of(span.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/bootstrap",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "metagate.request_id": booted.headers["x-request-id"],
    }
    assert read.trace_id.hex() != TRACE
    assert not read.parent_span_id
    assert (attributes_of(refused.attributes)["http.response.status_code"], refused.status.code) == (
        401,
        Status.STATUS_CODE_UNSET,
    )
    resource = attributes_of(collector.requests[0].resource_spans[0].resource.attributes)
    assert resource["service.name"] == "metagate"
    assert resource["deployment.environment"] == "test"
    sent = b"".join(request.SerializeToString() for request in collector.requests)
    for secret in (principal.key, "mgk_not-a-key", "indexer_1", "traced-indexer", name):
        assert secret.encode() not in sent


async def test_a_caller_that_is_not_sampled_is_not_sent(
    gate: GateFixture, database: Database, collector: Collector
) -> None:
    """The caller decides; a traceparent that is none, or was sent twice, begins a trace of its own."""
    principal = await gate.principal()
    with started(database, **collector.environment) as (served, port):
        wait_for(port, served, "/readyz")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for carried in (f"00-{TRACE}-{PARENT}-00", "00-zz-\xff-01", f"00-{TRACE}-{PARENT}-01"):
                headers = [*principal.by_key.items(), ("traceparent", carried.encode("latin-1"))]
                if carried.endswith(f"{PARENT}-01"):
                    headers.append(("traceparent", carried.encode()))
                answer = await client.post("/v1/bootstrap", json={"component_key": "a"}, headers=headers)
                assert answer.status_code == 200
            await client.get("/v1/topology", headers=principal.by_key)
            await collector.span("/v1/topology")
    boots = [span for span in collector.spans if span.name == "POST /v1/bootstrap"]
    assert len(boots) == 2
    assert TRACE not in {span.trace_id.hex() for span in boots}


async def test_a_5xx_is_an_error(database: Database, collector: Collector) -> None:
    """What is not answered because of us has status ERROR, and says which."""
    with started("postgresql://metagate_api@127.0.0.1:1/none", **collector.environment) as (_, port):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            answer = await client.post("/v1/bootstrap", json={"component_key": "a"}, headers={"x-api-key": "mgk_a_b"})
            assert answer.status_code == 503
            span = await collector.span("/v1/bootstrap")
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes_of(span.attributes)["error.type"] == "503"


async def test_a_collector_that_is_away_costs_spans_only(gate: GateFixture, database: Database) -> None:
    """Boots are answered as ever, and the process ends in time."""
    principal = await gate.principal()
    gone = {
        "METAGATE_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_BSP_SCHEDULE_DELAY": "10",
    }
    with started(database, **gone) as (served, port):
        wait_for(port, served, "/readyz")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for _ in range(50):
                answer = await client.post("/v1/bootstrap", json={"component_key": "a"}, headers=principal.by_key)
                assert answer.status_code == 200
        began = time.monotonic()
        served.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(served.wait, 20) == 0
        assert time.monotonic() - began < 8


OFF = """
import sys
from metagate_api.composition import compose
from metagate_api.settings import Settings
compose(Settings())
assert not [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
"""
HIDDEN = """
import sys
class Hide:
    def find_spec(self, name, *_):
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
sys.argv = ["metagate", "serve", "--port", "0"]
from metagate_cli.main import main
main()
"""


@pytest.mark.parametrize(("code", "tracing", "status"), [(OFF, "false", 0), (HIDDEN, "true", 3)])
def test_an_extra(database: Database, code: str, tracing: str, status: int) -> None:
    """Off, nothing of the SDK is imported; on without it, one line says what to install."""
    environ = {"PATH": "/usr/bin:/bin", "DATABASE_URL": database.api, "METAGATE_TRACING": tracing}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr
    assert not status or "install the extra otel" in done.stderr
