"""`GET /v1/interview`: what waits at a gate, how much of it and since when, for whoever looks across gates.

A gate gives one function, which asks its database one question about a tenant. The rest is the same at every gate: any
principal of the tenant may ask, nothing is written, nobody is called (INV-095).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from legivellum.base.timestamps import rfc3339
from legivellum.gate.query import TENANT_QUERY, query_parameters, tenant_parameter
from legivellum.http import strict_json
from legivellum.http.endpoints import ANY_PRINCIPAL, ANYBODY, Endpoint, Reply, Schema
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.problem_codes import Code
from legivellum.identity.caller import Caller

MOST_NAMES: Final = 32
MOST_NOTES: Final = 8
LONGEST_NOTE: Final = 400
_SCHEMA: Final = "Interview"

INTERVIEW_ENDPOINT: Final = Endpoint(
    "GET",
    "/v1/interview",
    "What waits at this gate: counts of the tenant, the oldest of what waits, notes. Nothing is written.",
    ANY_PRINCIPAL,
    (Reply(200, "Counts, times and notes as of now.", _SCHEMA),),
    (Code.INVALID_REQUEST, Code.TENANT_MISMATCH),
    (TENANT_QUERY,),
    name="interview",
)
INTERVIEW_SCHEMAS: Final[Mapping[str, Schema]] = {
    _SCHEMA: {
        "type": "object",
        "required": ["gate", "version", "tenant_id", "as_of", "counts", "oldest", "notes"],
        "properties": {
            "gate": {"type": "string"},
            "version": {"type": "string"},
            "tenant_id": {"type": "string", "format": "uuid"},
            "as_of": {"type": "string", "format": "date-time", "description": "The database's clock."},
            "counts": {
                "type": "object",
                "maxProperties": MOST_NAMES,
                "additionalProperties": {"type": "integer", "minimum": 0},
            },
            "oldest": {
                "type": "object",
                "maxProperties": MOST_NAMES,
                "additionalProperties": {"type": ["string", "null"], "format": "date-time"},
                "description": "By name of what waits: since when the oldest does; null when none waits.",
            },
            "notes": {
                "type": "array",
                "maxItems": MOST_NOTES,
                "items": {"type": "string", "maxLength": LONGEST_NOTE},
                "description": "What a person should know beside the numbers.",
            },
        },
    }
}

_COUNTS_SCHEMA: Final = "Counts"
COUNTS_ENDPOINT: Final = Endpoint(
    "GET",
    "/v1/interview",
    "Numbers of this process since it started. They name nobody, so no credential is asked for.",
    ANYBODY,
    (Reply(200, "Counts as of now.", _COUNTS_SCHEMA),),
    name="interview",
)
"""Of a gate that knows no callers and has no database."""
COUNTS_SCHEMAS: Final[Mapping[str, Schema]] = {
    _COUNTS_SCHEMA: {
        "type": "object",
        "required": ["gate", "version", "as_of", "counts"],
        "properties": {
            "gate": {"type": "string"},
            "version": {"type": "string"},
            "as_of": {"type": "string", "format": "date-time"},
            "counts": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
        },
    }
}


@dataclass(frozen=True, slots=True)
class Interview:
    """What a gate's database says of a tenant. `oldest`: None where nothing waits."""

    as_of: datetime
    counts: Mapping[str, int]
    oldest: Mapping[str, datetime | None] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        # The names are the gate's own words, so too many of them are a defect and no matter of its data.
        assert len(self.counts) <= MOST_NAMES
        assert len(self.oldest) <= MOST_NAMES


class InterviewHandler:
    """`authenticate` raises RequestRefused for what is no caller; `ask` raises what the gate's storage raises."""

    def __init__(
        self,
        gate: str,
        version: str,
        *,
        authenticate: Callable[[Exchange], Awaitable[Caller]],
        ask: Callable[[UUID], Awaitable[Interview]],
    ) -> None:
        self._gate = gate
        self._version = version
        self._authenticate = authenticate
        self._ask = ask

    async def __call__(self, exchange: Exchange) -> Response:
        caller = await self._authenticate(exchange)
        tenant = tenant_parameter(query_parameters(exchange, "tenant"), caller)
        interview = await self._ask(tenant)
        answer = {
            "gate": self._gate,
            "version": self._version,
            "tenant_id": str(tenant),
            "as_of": rfc3339(interview.as_of),
            "counts": dict(interview.counts),
            "oldest": {name: None if at is None else rfc3339(at) for name, at in interview.oldest.items()},
            "notes": [note[:LONGEST_NOTE] for note in interview.notes[:MOST_NOTES]],
        }
        return json_response(200, strict_json.encode(answer))


class CountsHandler:
    """`counts`: names and numbers of this process; the names are the gate's own words."""

    def __init__(self, gate: str, version: str, counts: Callable[[], Mapping[str, int]]) -> None:
        self._gate, self._version, self._counts = gate, version, counts

    async def __call__(self, _exchange: Exchange) -> Response:
        as_of = rfc3339(datetime.now(UTC))
        answer = {"gate": self._gate, "version": self._version, "as_of": as_of, "counts": dict(self._counts())}
        return json_response(200, strict_json.encode(answer))
