"""What the log says of a refusal."""

from typing import Any

import pytest
from tests.integration.api.gate_fixture import GateFixture

from legivellum.http import access_log


class Lines:
    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def info(self, _event: str, **values: Any) -> None:
        self.said.append(values)

    warning = error = info


async def test_a_refusal_is_logged_with_its_code(gate: GateFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for each refusal, with its code and what was wrong with the credential, and nothing of the credential."""
    lines = Lines()
    monkeypatch.setattr(access_log, "_log", lines)
    principal = await gate.principal(components=("indexer_*",))
    junk = {"authorization": "Bearer canary.canary.canary"}
    await gate.boot(principal, "other")
    await gate.client.get("/v1/topology", headers=junk)
    await gate.client.post("/v1/bootstrap", json={"component_key": "a"}, headers=junk)
    await gate.client.get("/v1/startups", params={"limit": "many"}, headers=principal.by_key)
    await gate.client.get("/nowhere")
    assert [(line["status"], line["code"], line["reason"]) for line in lines.said] == [
        (403, "COMPONENT_NOT_PERMITTED", None),
        (401, "CREDENTIAL_INVALID", "token_malformed"),
        (401, "CREDENTIAL_INVALID", "token_malformed"),
        (422, "INVALID_REQUEST", None),
        (404, "NOT_FOUND", None),
    ]
    assert "canary" not in str(lines.said)
