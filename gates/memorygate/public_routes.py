"""What needs no credential: the doctrine, health, readiness, metrics. Nothing here waits for anything."""

from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.metrics import exposed
from legivellum.http.openapi import openapi_document
from legivellum.http.problems import SECURITY_HEADERS, refuse
from memorygate.answers import rendered
from memorygate.endpoints import ENDPOINTS, SCHEMAS
from memorygate.gate import Gate
from memorygate.metrics import REGISTRY
from memorygate.problem_codes import Code

DOCTRINE = "MemoryGate remembers. It does not decide."


class PublicRoutes:
    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def root(self, _exchange: Exchange) -> Response:
        version = self._gate.settings.version
        return json_response(
            200,
            rendered({"service": "MemoryGate", "version": version, "doctrine": DOCTRINE, "openapi": "/openapi.json"}),
        )

    async def health(self, _exchange: Exchange) -> Response:
        """Says that this process answers. It asks nobody, not even the database (INV-035)."""
        said = {"status": "ok", "service": "memorygate", "version": self._gate.settings.version}
        return json_response(200, rendered(said))

    async def livez(self, _exchange: Exchange) -> Response:
        return json_response(200, rendered({"status": "ok"}))

    async def readyz(self, _exchange: Exchange) -> Response:
        """Ready once both databases were reached and the schema fits; a later outage does not take it back (D-52)."""
        seen = self._gate.seen
        if not seen.ready:
            why = (
                "The schema is not the one this release needs."
                if not seen.fits
                else "Who may speak is not known yet."
                if seen.up
                else "The ledger's database was not reached yet."
            )
            raise refuse(Code.NOT_READY, why)
        said = {
            "status": "ok",
            "database": "up" if seen.up else "down",
            "identity": "up" if seen.identity else "down",
            "schema_version": seen.schema_version,
        }
        return json_response(200, rendered(said))

    async def metrics(self, _exchange: Exchange) -> Response:
        shown = exposed(REGISTRY)
        headers = [
            (b"content-type", shown.content_type.encode()),
            (b"content-length", b"%d" % len(shown.body)),
            *SECURITY_HEADERS,
        ]
        return Response(200, headers, shown.body)

    async def openapi(self, _exchange: Exchange) -> Response:
        settings = self._gate.settings
        info = {
            "title": "MemoryGate",
            "version": settings.version,
            "description": "The append-only ledger of receipts.",
        }
        document = openapi_document(
            ENDPOINTS,
            info=info,
            schemas=SCHEMAS,
            codes=Code.registered().values(),
            api_key_header=settings.api_key_header,
        )
        return json_response(200, rendered(document))
