"""Who may call which route of which gate: eight types of principals and nobody × every route × every gate, on real
processes, against the tables of `docs/edges.md`; and what each gate counts of it (`legivellum_edge_total`).
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.delegate.gate_fixture import PlanTenant
from tests.integration.memorygate.conftest import accepted, complete, new_id
from tests.integration.memorygate.ledger_fixture import free_port

from asyncgate.gate import GATE as ASYNCGATE
from cognigate.gate import GATE as COGNIGATE
from delegate.gate import GATE as DELEGATE
from depotgate.gate import GATE as DEPOTGATE
from interrogate.gate import GATE as INTERROGATE
from legivellum.http.endpoints import ANYBODY, Endpoint
from legivellum.receipts.rights import ROLES
from memorygate.gate import GATE as MEMORYGATE
from metagate_api.endpoints import ENDPOINTS as METAGATE_ENDPOINTS

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.invariant("INV-126", "INV-122")]

PAGE = Path(__file__).parents[3] / "docs" / "edges.md"
ROW = re.compile(r"^\| `([A-Z]+ [^`]+)`(?:, ([^|]+))? \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
OF_TYPE = {"ROLE_REQUIRED", "MAY_NOT_EMIT", "ROLE_NOT_PERMITTED"}
"""What a gate answers where the type of the principal is the reason."""
TABLES: Mapping[str, tuple[Endpoint, ...]] = {
    "metagate": METAGATE_ENDPOINTS,
    "memorygate": MEMORYGATE.all_endpoints,
    "interrogate": INTERROGATE.all_endpoints,
    "asyncgate": ASYNCGATE.all_endpoints,
    "depotgate": DEPOTGATE.all_endpoints,
    "delegate": DELEGATE.all_endpoints,
}
TITLES = {
    "metagate": "MetaGate", "memorygate": "MemoryGate", "interrogate": "InterroGate", "asyncgate": "AsyncGate",
    "depotgate": "DepotGate", "delegate": "DeleGate",
}  # fmt: skip
RESOURCE = {"apiVersion": "metagate.io/v1", "kind": "Manifest", "metadata": {"name": "m"}, "spec": {}}
POINTER = f"depot:{'0' * 26}:{'a' * 64}"
DRAFT = {"draft": {"escalation": [], "steps": [{"id": "a", "capability": "web.look", "job": {"instruction": "Look."}}]}}
ENVELOPE_CAUSALITY = {
    "root_task_id": "r", "parent_task_id": None, "caused_by_receipt_id": None, "spawn_depth": None,
    "capability_id": "document.review", "task_id": "r",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EdgeRow:
    """One line of the page."""

    route: str
    what: str | None
    types: frozenset[str]
    codes: frozenset[str]

    @property
    def label(self) -> str:
        return f"`{self.route}`" + (f", {self.what}" if self.what else "")


def types_of(text: str) -> frozenset[str]:
    """`every type`, `every type but a, b`, `a, b` or `nobody`."""
    if text == "nobody":
        return frozenset()
    if not text.startswith("every type"):
        return frozenset(text.split(", "))
    excepted = text.removeprefix("every type").removeprefix(" but ")
    return frozenset(ROLES) - frozenset(excepted.split(", "))


def documented(gate: str) -> list[EdgeRow]:
    page = PAGE.read_text(encoding="utf-8")
    section = page.partition(f"\n## {TITLES[gate]}\n")[2].partition("\n## ")[0]
    return [
        EdgeRow(route, what or None, types_of(types), frozenset(re.findall(r"`(\w+)`", codes)))
        for route, what, types, codes in ROW.findall(section)
    ]


def body_of(row: EdgeRow, who: str, tenant: PlanTenant) -> tuple[Any, dict[str, str]]:
    """A body that is good enough for the caller's type to be what decides, and headers."""
    task_id = new_id()
    envelope = {
        "tenant_id": str(tenant.uid), "surface_id": "nowhere", "policy_profile_id": "front", "payload_kind": "task",
        "payload": {}, "causality": {**ENVELOPE_CAUSALITY, "root_task_id": task_id, "task_id": task_id},
    }  # fmt: skip
    ids = {"task_id": task_id, "obligation_id": task_id, "principal_ai": who}
    receipts: dict[str | None, dict[str, Any]] = {
        "opening an obligation": accepted(**ids),
        "ending an obligation": complete(**ids),
        "a startup": accepted(**ids, kind="startup"),
        "opening a plan": accepted(**ids, task_type="plan"),
    }
    task = {
        "task_id": task_id,
        "principal_ai": who,
        "payload_pointer": f"s3://jobs/{task_id}",
        "capability": "web.look",
    }
    lease_id = new_id()
    claim = {"lease_id": lease_id, "status": "success", "outcome_kind": "none"}
    bodies: dict[str, Any] = {
        "POST /receipts": receipts.get(row.what),
        "POST /receipts/batch": {"receipts": [accepted(**ids)]},
        "POST /v1/obligations/lookup": {"obligation_ids": [task_id]},
        "POST /v1/evaluate": envelope,
        "POST /v1/check": envelope,
        "POST /v1/explain": envelope,
        "POST /mcp": {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        "POST /tasks": task,
        "POST /tasks/batch": {"items": [{"task": task}]},
        "POST /lease": {"capabilities": ["web.look"]},
        "POST /lease/renew": {"lease_id": lease_id},
        "POST /lease/release": {"lease_id": lease_id},
        "POST /complete": claim,
        "POST /complete/batch": {"items": [claim]},
        "POST /escalate": {"lease_id": lease_id, "escalation_class": "other", "escalation_reason": "no"},
        "POST /tasks/{task_id}/revoke": {},
        "POST /plans/validate": {"intent": DRAFT},
        "POST /plans": {"intent": {"template": "nothing", "parameters": {}}},
        "POST /plans/{plan_id}/close": {},
        "POST /v1/bootstrap": {"component_key": "reader"},
        "POST /v1/startup/ready": {"startup_id": str(tenant.uid), "build_version": "1"},
        "POST /v1/startup/failed": {"startup_id": str(tenant.uid), "error": "no"},
        "POST /v1/introspect": {"token": "nothing"},
        "POST /v1/admin/plan": {"resources": []},
        "POST /v1/admin/{kind}": RESOURCE,
        "PUT /v1/problematas/{problemata_id}/instances/{instance}": {
            "endpoint": "http://here:8005/mcp",
            "version": "1",
            "capabilities": [],
            "health": "ok",
        },
    }
    headers = {"content-type": "application/json"}
    if row.route == "POST /artifacts":
        return b"bytes", {"content-type": "application/octet-stream"}
    if row.route == "POST /mcp":
        headers |= {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
    return bodies.get(row.route), headers


def address_of(row: EdgeRow, tenant: PlanTenant) -> tuple[str, str]:
    method, _, path = row.route.partition(" ")
    names = {
        "receipt_id": new_id(), "task_id": new_id(), "problemata_id": "nothing", "instance": "one", "pointer": POINTER,
        "plan_id": new_id(), "startup_id": str(tenant.uid), "kind": "principals", "key": "nothing",
    }  # fmt: skip
    path = re.sub(r"\{(\w+)\}", lambda match: names[match[1]], path)
    if row.route == "POST /artifacts":
        assert row.what is not None
        path += f"?task_id={new_id()}&role={row.what.rpartition(' ')[2]}"
    return method, path


async def answered(
    client: httpx.AsyncClient, row: EdgeRow, who: str | None, tenant: PlanTenant
) -> tuple[int, str | None]:
    """The status and the code of a refusal; of a stream the head is enough."""
    method, path = address_of(row, tenant)
    body, headers = body_of(row, who or "principal", tenant)
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    sent = headers if content is not None else {}
    credential = {} if who is None else tenant.principals[who].headers
    async with client.stream(method, path, content=content, headers={**sent, **credential}) as answer:
        media = answer.headers.get("content-type", "")
        content = b"" if media.startswith("text/event-stream") else await answer.aread()
        return answer.status_code, json.loads(content)["code"] if media == "application/problem+json" else None


async def edges(client: httpx.AsyncClient) -> Counter[tuple[str, str]]:
    exposition = (await client.get("/metrics")).text
    series = re.findall(
        r'^legivellum_edge_total\{from_type="([^"]+)",route="([^"]+)"\} (\S+)$', exposition, re.MULTILINE
    )
    return Counter({(from_type, route): int(float(value)) for from_type, route, value in series})


@pytest.mark.parametrize("gate", TABLES)
async def test_each_type_at_each_route(typed_tenant: PlanTenant, gate: str) -> None:
    """Let in or refused with the gate's code, exactly as the page says; nobody is let in without a credential; all counted."""
    rows = documented(gate)
    with_credential = [endpoint.key for endpoint in TABLES[gate] if endpoint.auth != ANYBODY]
    with_credential += ["POST /mcp"] if gate == "interrogate" else []
    assert {row.route for row in rows} == set(with_credential)
    sent: Counter[tuple[str, str]] = Counter()
    async with httpx.AsyncClient(base_url=typed_tenant.gates.url(gate), timeout=20) as client:
        before = await edges(client)
        for row in rows:
            let_in, codes = set(), set()
            for who in ROLES:
                status, code = await answered(client, row, who, typed_tenant)
                assert status not in {401, 405, 415, 422, 500, 503} or code == "DECLARED_BY_RESOURCE", (
                    row.label,
                    who,
                    status,
                    code,
                )
                if status == 403 and code in OF_TYPE:
                    codes.add(code)
                else:
                    let_in.add(who)
                sent[who, row.route.partition(" ")[2]] += 1
            assert let_in == row.types, (gate, row.label)
            assert codes == row.codes, (gate, row.label)
            assert (await answered(client, row, None, typed_tenant))[0] == 401, row.label
            sent["none", row.route.partition(" ")[2]] += 1
        counted = await edges(client)
        counted.subtract(before)
    assert {edge: counted[edge] for edge in sent} == dict(sent)
    others = {edge for edge, number in counted.items() if number and edge not in sent}
    assert others <= {("none", "/metrics"), ("none", "/readyz"), ("none", "/livez")}


async def test_nothing_can_be_sent_to_cognigate(typed_tenant: PlanTenant, tmp_path: Path) -> None:
    """It has views alone: whatever any type sends to any path that another gate has is 404 or 405, and no type is counted."""
    gates, key = typed_tenant.gates, tmp_path / "worker.key"
    key.write_text(typed_tenant.principals["worker"].key, encoding="ascii")
    gates.ports["cognigate"] = free_port()
    gates.environments["cognigate"] = {
        "COGNIGATE_PORT": str(gates.ports["cognigate"]), "COGNIGATE_BUILTIN_MODEL": "true",
        "COGNIGATE_CAPABILITIES": "nothing.asked", "METAGATE_API_KEY_FILE": str(key),
        **{f"METAGATE_{name.upper()}_URL": gates.url(name) for name in ("asyncgate", "memorygate", "depotgate")},
    }  # fmt: skip
    await gates.start("cognigate")
    try:
        async with httpx.AsyncClient(base_url=gates.url("cognigate"), timeout=20) as client:
            views = {endpoint.key for endpoint in COGNIGATE.all_endpoints}
            assert all(key.startswith("GET ") for key in views)
            for row in {row.route: row for gate in TABLES for row in documented(gate)}.values():
                for who in ("worker", "delegate", "admin"):
                    status, _ = await answered(client, row, who, typed_tenant)
                    assert status in ({200} if row.route in views else {404, 405}), (row.route, who, status)
            counted = await edges(client)
        assert {from_type for from_type, _ in counted} == {"none"}
    finally:
        await gates.stop("cognigate")
