"""POST /plans/validate: what would become of a request, written nowhere and asked of nobody."""

from typing import Any

import pytest
from tests.integration.delegate.gate_fixture import PlanTenant

pytestmark = pytest.mark.asyncio(loop_scope="session")

REQUEST = {"intent": {"template": "review", "parameters": {"documents": ["s3://in/one", "s3://in/two"]}}}
DRAFT: dict[str, Any] = {
    "escalation": [],
    "steps": [
        {"id": "look", "capability": "web.look", "job": {"instruction": "Look."}},
        {"id": "write", "capability": "text.write", "dependsOn": ["look"], "job": {"instruction": "Write."}},
    ],
}


async def validated(tenant: PlanTenant, body: Any, who: str = "principal") -> dict[str, Any]:
    answer = await tenant.ask(who, "POST", "delegate", "/plans/validate", body)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


@pytest.mark.invariant("INV-086")
async def test_a_template_becomes_a_plan(tenant: PlanTenant) -> None:
    """Every step with its task and its needs, the end as the last; the same digest for whoever asks again."""
    result = await validated(tenant, {**REQUEST, "plan_id": "01K7Z3W8M0000000000000000A"})
    assert (result["valid"], result["findings"], result["tasks"], result["depth"]) == (True, [], 4, 0)
    steps = result["plan"]["steps"]
    assert [(step["step_id"], step["depends_on"]) for step in steps] == [
        ("read-0", []), ("read-1", []), ("merge", ["read-0", "read-1"]), ("close", ["merge"]),
    ]  # fmt: skip
    assert steps[0]["task_id"] == "01K7Z3W8M0000000000000000A.read-0"
    assert steps[0]["job"]["inputs"] == [{"name": "document", "pointer": "s3://in/one", "maxBytes": 1048576}]
    assert result["plan"]["principal_ai"] == "principal"
    assert (await validated(tenant, REQUEST))["plan_digest"] == result["plan_digest"]
    assert (await validated(tenant, REQUEST, "admin"))["plan_digest"] != ""
