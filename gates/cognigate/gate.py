"""CogniGate as the kit serves it: views of its work. Nobody sends it anything (CG-11, INV-087)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from cognigate.metrics import METRICS, OUTCOMES
from cognigate.settings import Settings
from cognigate.work_loop import WorkLoop
from legivellum.base.timestamps import rfc3339
from legivellum.gate.definition import ServedDefinition
from legivellum.gate.process import ServedProcess
from legivellum.http import strict_json
from legivellum.http.endpoints import ANYBODY, Endpoint, Reply, Schema
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.router import Handler

_COUNTED: Final = (
    "running", *(f"jobs_{outcome}" for outcome in OUTCOMES), "model_calls", "prompt_tokens", "cached_tokens",
    "completion_tokens",
)  # fmt: skip
_SCHEMA: Final = "WorkCounts"
_COUNTS: Final[Schema] = {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}}
_TEXTS: Final[Mapping[str, Schema]] = {
    "gate": {"type": "string"}, "version": {"type": "string"}, "as_of": {"type": "string", "format": "date-time"},
}  # fmt: skip
SCHEMAS: Final[Mapping[str, Schema]] = {
    _SCHEMA: {
        "type": "object",
        "required": ["gate", "version", "as_of", "counts"],
        "properties": {**_TEXTS, "counts": _COUNTS},
    }
}
ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/v1/interview",
        "Numbers of this process since it started. They name nobody, so no credential is asked for.",
        ANYBODY,
        (Reply(200, "Counts as of now.", _SCHEMA),),
        name="interview",
    ),
)


def handlers(process: ServedProcess[Settings]) -> Mapping[str, Handler]:
    """Raises MisconfiguredError and UnusableSettingError for what it cannot work with."""
    loop = WorkLoop(process.settings)
    process.beside.append(loop.running)

    async def interview(_exchange: Exchange) -> Response:
        counts = {name: loop.counts[name] for name in _COUNTED}
        as_of = rfc3339(datetime.now(UTC))
        answer = {"gate": "cognigate", "version": process.settings.version, "as_of": as_of, "counts": counts}
        return json_response(200, strict_json.encode(answer))

    return {"GET /v1/interview": interview}


GATE = ServedDefinition(
    module=__name__,
    name="cognigate",
    title="CogniGate",
    doctrine="CogniGate thinks. It does not mint.",
    description="A worker that asks models, within what its lease permits.",
    settings=Settings,
    endpoints=ENDPOINTS,
    handlers=handlers,
    schemas=SCHEMAS,
    metrics=METRICS,
)
