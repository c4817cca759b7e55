"""What DeleGate never says: credentials anywhere, and in its log nothing that anybody sent or declared."""

from typing import Any

import pytest
from tests.canaries import canaries_in, canary, dump, spellings
from tests.integration.delegate.gate_fixture import REVIEW, GateGroup, plan_tenant
from tests.integration.memorygate.conftest import new_id

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECRET = "AKIA" + "IOSFODNN7EXAMPLF"
"""What a secret detector knows."""


def requests_with(value: str, name: str) -> list[tuple[str, str, Any]]:
    """Good and bad requests that hold the value wherever a text can stand, and the name as that of members."""
    draft = {
        "escalation": [],
        "steps": [{"id": "look", "capability": "web.look", "job": {"instruction": f"Look for {value}."}}],
    }
    bodies: list[Any] = [
        {"intent": {"template": "review", "parameters": {"documents": [f"s3://in/{value}"]}}},
        {"intent": {"template": "review", "parameters": {name: [value]}}},
        {"intent": {"template": value}},
        {"intent": {"draft": draft}},
        {"intent": {"draft": {**draft, name: value}}},
        {"intent": {"draft": {"steps": [{"id": value, "capability": value}]}}},
        {"intent": value, name: value},
        {"plan_id": value, "intent": {"template": "review"}},
        value.encode(),
    ]
    requests: list[tuple[str, str, Any]] = [
        ("POST", path, body) for path in ("/plans", "/plans/validate") for body in bodies
    ]
    requests += [("POST", f"/intents/{value.lower()}", {"documents": [value]})]
    requests += [("GET", path, None) for path in (f"/plans/{value}", f"/plans?cursor={value}", f"/plans?{value}=1")]
    requests += [("POST", f"/plans/{new_id()}/close", {"abandon": True, "reason": value})]
    requests += [("POST", f"/plans/{value}/dispatch", None)]
    return requests


@pytest.mark.invariant("INV-034")
async def test_the_log_says_nothing_of_what_was_sent(gates: GateGroup) -> None:
    """At debug level, every request logged: no part of a request, no credential, and refusals do not repeat it either."""
    tenant = await plan_tenant(gates)
    sent, named = canary(), canary()
    keys = {name: principal.key for name, principal in tenant.principals.items()}
    await gates.stop("delegate")
    await gates.start("delegate", ACCESS_LOG="all", DEBUG="true")
    try:
        await tenant.until_known()
        refusals = []
        for method, path, body in requests_with(sent, named):
            answer = await tenant.ask(
                "principal", method, "delegate", path, body, legivellum_admission=sent, x_request_id=new_id()
            )
            if answer.status_code >= 400:
                refusals.append(answer.text)
        assert len(refusals) > 10
        junk = gates.credentials / "junk"
        junk.write_text(sent)
        junk.unlink()
        places = {
            "the log": gates.log("delegate"),
            "the metrics": (await tenant.ask(None, "GET", "delegate", "/metrics")).text,
            "the refusals": "\n".join(refusals),
        }
        assert '"path": "/plans/validate"' in places["the log"]
        assert canaries_in({"what was sent": sent, **keys}, places) == []
        # A finding's path names the members that lead to it, so a refusal repeats those: to whoever sent them.
        del places["the refusals"]
        assert canaries_in({"a member's name": named}, places) == []
    finally:
        await gates.stop("delegate")
        await gates.start("delegate")


async def test_the_credential_is_nowhere_but_in_its_file(gates: GateGroup) -> None:
    """Neither in the log of a gate that it was sent to, nor in the database."""
    tenant = await plan_tenant(gates)
    key = tenant.principals["delegate"].key
    answer = await tenant.ask(
        "principal", "POST", "delegate", "/plans", {"intent": {"template": "review", "parameters": {"documents": []}}}
    )
    assert answer.status_code == 202
    places = {name: gates.log(name) for name in gates.processes}
    places["the database"] = dump(gates.database.superuser)
    assert canaries_in({"the delegate's key": key}, places) == []


async def test_a_secret_among_parameters_is_refused_and_not_repeated(gates: GateGroup) -> None:
    """They would lie in a receipt for ever."""
    tenant = await plan_tenant(gates)
    for parameters in ({"documents": [SECRET]}, {"documents": [f"https://bucket/?key={SECRET}"]}):
        intent = {"template": "review", "parameters": parameters}
        answer = await tenant.ask("principal", "POST", "delegate", "/plans", {"intent": intent})
        assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_PLAN")
        assert {finding["reason"] for finding in answer.json()["findings"]} == {"SecretValue"}
        validated = await tenant.ask("principal", "POST", "delegate", "/plans/validate", {"intent": intent})
        assert [finding["reason"] for finding in validated.json()["findings"]] == ["SecretValue"]
        assert not any(spelling in answer.text + validated.text for spelling in spellings(SECRET))
    draft = {
        "escalation": [],
        "steps": [{**REVIEW["steps"][1], "job": {"instruction": "x", "settings": {"k": SECRET}}}],
    }
    answer = await tenant.ask("principal", "POST", "delegate", "/plans", {"intent": {"draft": draft}})
    assert answer.status_code == 422
    assert SECRET not in answer.text
    assert await tenant.receipts() == []
