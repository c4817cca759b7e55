"""How much a request may be: exactly at a limit it is judged like any other, one beyond it is refused."""

import json
from typing import Any

import pytest
from tests.integration.api.gate_fixture import GateFixture

from legivellum.http.strict_json import MAX_DEPTH, MAX_KEYS

PLAIN = {"component_key": "indexer_1"}


def nested(levels: int) -> dict[str, Any]:
    """A body of that many levels, its own object included."""
    inner: Any = []
    for _ in range(levels - 2):
        inner = [inner]
    return {**PLAIN, "extra": inner}


def padded(size: int) -> bytes:
    body = json.dumps({**PLAIN, "pad": ""}).encode()
    return body[:-2] + b"x" * (size - len(body)) + body[-2:]


@pytest.mark.invariant("EXT-08")
async def test_each_limit_and_one_beyond(gate: GateFixture) -> None:
    """Bytes (413), depth and members (422): the limit itself boots, one more is refused and opens nothing."""
    principal = await gate.principal()
    limit = gate.settings.body_bytes
    cases = [
        (padded(limit), padded(limit + 1), 413, "BODY_TOO_LARGE"),
        (json.dumps(nested(MAX_DEPTH)).encode(), json.dumps(nested(MAX_DEPTH + 1)).encode(), 422, "JSON_TOO_DEEP"),
        (
            json.dumps({**PLAIN, **{f"k{n}": n for n in range(MAX_KEYS - 1)}}).encode(),
            json.dumps({**PLAIN, **{f"k{n}": n for n in range(MAX_KEYS)}}).encode(),
            422,
            "JSON_TOO_MANY_KEYS",
        ),
    ]
    headers = {**principal.by_key, "content-type": "application/json"}
    for within, beyond, status, code in cases:
        before = await gate.sessions()
        assert (await gate.client.post("/v1/bootstrap", content=within, headers=headers)).status_code == 200, code
        refused = await gate.client.post("/v1/bootstrap", content=beyond, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
        assert await gate.sessions() == before + 1
