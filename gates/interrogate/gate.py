"""InterroGate as the kit serves it: its definition, and each endpoint's handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import UUID

from interrogate.admission_gate import AdmissionGate, InterrogateProcess
from interrogate.announcing import announcer_of
from interrogate.call_handlers import CallHandlers
from interrogate.database import InterrogateDatabase
from interrogate.endpoints import ENDPOINTS, SCHEMAS
from interrogate.evaluation_handlers import EvaluationHandlers
from interrogate.explanation_handlers import ExplanationHandlers
from interrogate.mcp_gateway.gateway import McpGateway, Tools
from interrogate.mcp_gateway.listing_handlers import ListingHandlers
from interrogate.mcp_gateway.resource_metadata import METADATA_PATH, ResourceMetadata
from interrogate.metrics import METRICS
from interrogate.problem_codes import Code
from interrogate.schema import INTERROGATE, WRITER
from interrogate.settings import Settings
from legivellum.gate.definition import GateDefinition
from legivellum.gate.interview import Interview
from legivellum.http import strict_json
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.router import Handler
from legivellum.identity.caller import TYPES_BUT_WITNESS


async def interview(process: InterrogateProcess, tenant: UUID) -> Interview:
    """Raises Unavailable."""
    as_of, pending = await process.database.interview(tenant)
    return Interview(as_of, {"forwards_pending": pending.number}, {"forwards_pending": pending.oldest})


class PublishedKeys:
    """GET /.well-known/jwks.json: what targets verify this gate's tokens with."""

    def __init__(self, gate: AdmissionGate) -> None:
        keys = [] if gate.tokens is None else [gate.tokens.public_jwk]
        self._body = strict_json.encode({"keys": keys})

    async def __call__(self, _exchange: Exchange) -> Response:
        return json_response(200, self._body)


def handlers(
    process: InterrogateProcess, *, more_tools: Callable[[Tools], Tools] = lambda _own: {}
) -> Mapping[str, Handler]:
    """Raises OSError, ValueError for a signing key that cannot be used."""
    gate = AdmissionGate.of(process)
    gateway = McpGateway(gate, more_tools=more_tools)
    if (announcer := announcer_of(gate, gateway.reading.is_degraded)) is not None:
        process.beside.append(announcer.running)
    return bound_handlers(gate, gateway)


def bound_handlers(gate: AdmissionGate, gateway: McpGateway) -> Mapping[str, Handler]:
    evaluation, explanation = EvaluationHandlers(gate), ExplanationHandlers(gate)
    return {
        "POST /v1/evaluate": evaluation.evaluate,
        "POST /v1/check": evaluation.check,
        "POST /v1/explain": explanation.explain,
        "GET /v1/calls": CallHandlers(gate).calls,
        "GET /v1/problematas/{problemata_id}/tools": ListingHandlers(gate, gateway.upstreams).tools,
        "GET /.well-known/jwks.json": PublishedKeys(gate),
        f"GET {METADATA_PATH}": ResourceMetadata(gateway.resource),
    }


GATE = GateDefinition(
    module=__name__,
    name="interrogate",
    title="InterroGate",
    doctrine="InterroGate decides. It does not act.",
    description="Admission control: may this request pass?",
    settings=Settings,
    schema=INTERROGATE,
    requires=("memorygate.schema:LEDGER",),
    role=WRITER,
    connect=InterrogateDatabase.served,
    handlers=handlers,
    interview=interview,
    callers=TYPES_BUT_WITNESS,
    endpoints=ENDPOINTS,
    schemas=SCHEMAS,
    codes=Code,
    metrics=METRICS,
)
