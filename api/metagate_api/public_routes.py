"""What needs no credential: the kit's public routes, and discovery, which is MetaGate's own."""

from typing import Final

from legivellum.base.timestamps import rfc3339
from legivellum.gate.public_routes import PublicRoutes
from legivellum.http import strict_json
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.openapi import openapi_document
from legivellum.http.router import Handler
from metagate_api import metrics
from metagate_api.endpoints import ENDPOINTS
from metagate_api.gate import Gate
from metagate_api.problem_codes import Code
from metagate_api.schemas import SCHEMAS

DOCTRINE: Final = "MetaGate is truth, not control."
DISCOVERY: Final = "/.well-known/metagate.json"


def public_handlers(gate: Gate) -> dict[str, Handler]:
    """By key of the endpoint table."""
    settings, status = gate.settings, gate.status

    def readiness() -> dict[str, object]:
        compiled = status.compiled_at
        return {"revision": status.revision, "compiled_at": None if compiled is None else rfc3339(compiled)}

    async def discovery(_exchange: Exchange) -> Response:
        return json_response(200, strict_json.encode(discovery_document(gate)))

    routes = PublicRoutes(
        name="metagate",
        version=settings.version,
        description={"service": "MetaGate", "doctrine": DOCTRINE, "discovery": DISCOVERY},
        status=status,
        readiness=readiness,
        registry=None if settings.metrics_port is not None else metrics.REGISTRY,
        document=openapi_document(
            ENDPOINTS,
            info={
                "title": "MetaGate",
                "version": settings.version,
                "summary": "Bootstrap truth: who am I, what may I do, what world am I in?",
            },
            schemas=SCHEMAS,
            codes=Code.registered().values(),
            api_key_header=settings.api_key_header,
        ),
    )
    return {**routes.handlers(), f"GET {DISCOVERY}": discovery}


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
