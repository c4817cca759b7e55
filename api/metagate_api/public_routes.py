"""What needs no credential: discovery, the doctrine, health, metrics. Nothing here waits for another service."""

from fastapi import Request, Response

from legivellum.http.metrics import exposition_of
from legivellum.http.openapi import openapi_document
from legivellum.http.problems import SECURITY_HEADERS, refuse
from metagate_api import metrics
from metagate_api.endpoints import ENDPOINTS
from metagate_api.gate import Gate, gate_of
from metagate_api.problem_codes import Code
from metagate_api.responses import json_response
from metagate_api.schemas import SCHEMAS

DOCTRINE = "MetaGate is truth, not control."


def discovery_document(gate: Gate) -> dict[str, object]:
    """INV-001. Paths, or URLs under the configured base; never what a Host header says (EXT-29)."""
    settings = gate.settings
    base = (settings.public_url or "").rstrip("/")
    return {
        "metagate_version": settings.version,
        "bootstrap_endpoint": f"{base}/v1/bootstrap",
        "startup_endpoints": {"ready": f"{base}/v1/startup/ready", "failed": f"{base}/v1/startup/failed"},
        "supported_auth": ["api_key", "jwt"],
        "api_key_header": settings.api_key_header,
        "audience": settings.audience,
        "issuers": list(gate.issuers()),
        "openapi": f"{base}/openapi.json",
        **({"packet_signing_key": dict(gate.signer.public_jwk)} if gate.signer is not None else {}),
    }


async def discovery(request: Request) -> Response:
    return json_response(discovery_document(gate_of(request)))


async def root(request: Request) -> Response:
    return json_response(
        {
            "service": "MetaGate",
            "version": gate_of(request).settings.version,
            "doctrine": DOCTRINE,
            "discovery": "/.well-known/metagate.json",
        }
    )


async def health(request: Request) -> Response:
    """Says that this process answers. It asks nobody, not even the database (INV-035)."""
    return json_response({"status": "ok", "service": "metagate", "version": gate_of(request).settings.version})


async def livez() -> Response:
    return json_response({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Ready once the database was reached and its schema fits; a later outage does not take it back (D-52)."""
    status = gate_of(request).status
    if not status.ready:
        reason = "The database was not reached yet." if status.fits else "The schema is not the one this release needs."
        raise refuse(Code.NOT_READY, reason)
    return json_response(
        {
            "status": "ok",
            "database": "up" if status.up else "down",
            "schema_version": status.schema_version,
            "revision": status.revision,
            "compiled_at": status.compiled_at,
        }
    )


async def openapi(request: Request) -> Response:
    settings = gate_of(request).settings
    info = {
        "title": "MetaGate",
        "version": settings.version,
        "summary": "Bootstrap truth: who am I, what may I do, what world am I in?",
    }
    return json_response(
        openapi_document(
            ENDPOINTS,
            info=info,
            schemas=SCHEMAS,
            codes=Code.registered().values(),
            api_key_header=settings.api_key_header,
        )
    )


async def metrics_exposition(request: Request) -> Response:
    if gate_of(request).settings.metrics_port is not None:
        raise refuse(Code.NOT_FOUND, "Metrics have a port of their own.")
    shown = exposition_of(metrics.REGISTRY)
    response = Response(shown.body)
    response.raw_headers[:0] = [(b"content-type", shown.content_type.encode()), *SECURITY_HEADERS]
    return response
