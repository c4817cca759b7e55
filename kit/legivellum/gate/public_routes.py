"""What every gate answers without a credential: who it is, whether it lives, metrics. Nothing here waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry

from legivellum.gate.snapshot_poller import DatabaseStatus
from legivellum.http import strict_json
from legivellum.http.endpoints import ANYBODY, Endpoint, Reply, Schema
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.metrics import exposition_of
from legivellum.http.problem_codes import Code, ProblemCode
from legivellum.http.problems import SECURITY_HEADERS, refuse
from legivellum.http.router import Handler

_OBJECT: Final = "Object"
_TEXT: Final = "Text"
PUBLIC_SCHEMAS: Final[Mapping[str, Schema]] = {_OBJECT: {"type": "object"}, _TEXT: {"type": "string"}}


def _public(path: str, summary: str, reply: Reply, *codes: ProblemCode) -> Endpoint:
    name = path.strip("/").replace(".", "_") or "root"
    return Endpoint("GET", path, summary, ANYBODY, (reply,), codes, name=name)


PUBLIC_ENDPOINTS: Final = (
    _public("/", "The service and its doctrine.", Reply(200, "Who this is.", _OBJECT)),
    _public("/health", "This process answers.", Reply(200, "It answers.", _OBJECT)),
    _public("/livez", "This process lives.", Reply(200, "It lives.", _OBJECT)),
    _public("/readyz", "The databases were reached.", Reply(200, "It is ready.", _OBJECT), Code.NOT_READY),
    _public("/metrics", "Prometheus metrics.", Reply(200, "The exposition.", _TEXT, media="text/plain")),
    _public("/openapi.json", "This document.", Reply(200, "OpenAPI 3.1.", _OBJECT)),
)


class PublicRoutes:
    """`description`: what `/` answers; `readiness`: what `/readyz` answers once the gate is ready; `document` is the
    gate's OpenAPI document. Without a `registry` the metrics have a port of their own, and `/metrics` is 404.
    """

    def __init__(
        self,
        *,
        name: str,
        version: str,
        description: Mapping[str, str],
        status: DatabaseStatus,
        readiness: Callable[[], Mapping[str, object]],
        registry: CollectorRegistry | None,
        document: Mapping[str, Any],
    ) -> None:
        self._name = name
        self._version = version
        self._description = description
        self._status = status
        self._readiness = readiness
        self._registry = registry
        self._document = strict_json.encode(document)

    def handlers(self) -> dict[str, Handler]:
        return {
            "GET /": self.root,
            "GET /health": self.health,
            "GET /livez": self.livez,
            "GET /readyz": self.readyz,
            "GET /metrics": self.metrics,
            "GET /openapi.json": self.openapi,
        }

    async def root(self, _exchange: Exchange) -> Response:
        return json_response(200, strict_json.encode({**self._description, "version": self._version}))

    async def health(self, _exchange: Exchange) -> Response:
        """Says that this process answers. It asks nobody, not even the database (INV-035)."""
        return json_response(200, strict_json.encode({"status": "ok", "service": self._name, "version": self._version}))

    async def livez(self, _exchange: Exchange) -> Response:
        return json_response(200, strict_json.encode({"status": "ok"}))

    async def readyz(self, _exchange: Exchange) -> Response:
        """Ready once what it follows was reached and the schema fits; a later outage does not take it back (D-52)."""
        status = self._status
        if not status.ready:
            raise refuse(Code.NOT_READY, _why_not_ready(status))
        database = {"database": "up" if status.up else "down", "schema_version": status.schema_version}
        facts = {"status": "ok", **(database if status.present else {}), **self._readiness()}
        return json_response(200, strict_json.encode(facts))

    async def metrics(self, _exchange: Exchange) -> Response:
        if self._registry is None:
            raise refuse(Code.NOT_FOUND, "Metrics have a port of their own.")
        exposition = exposition_of(self._registry)
        headers = [
            (b"content-type", exposition.content_type.encode()),
            (b"content-length", b"%d" % len(exposition.body)),
            *SECURITY_HEADERS,
        ]
        return Response(200, headers, exposition.body)

    async def openapi(self, _exchange: Exchange) -> Response:
        return json_response(200, self._document)


def _why_not_ready(status: DatabaseStatus) -> str:
    if not status.fits:
        return "The schema is not the one this release needs."
    if status.up:
        return "What this gate follows is not known yet." if status.identity else "The principals are not known yet."
    return "The database was not reached yet."
