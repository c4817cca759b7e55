"""Problematas on a real API server: what kubectl says of them, and that only what can be admitted is served."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.cluster.control_plane import Cluster
from tests.operator.machinery import Admission, Operator, Tenancy
from tests.unit.crds.worlds import GATEWAY_POLICY, PROBLEMATA

FRONT_DESK = ("PolicyProfile", "front-desk", GATEWAY_POLICY)
GATEWAY = ("Principal", "mail-gateway", {"type": "service"})


def problemata(tenancy: Tenancy, name: str = "mail", **changes: Any) -> dict[str, Any]:
    return tenancy.resource("Problemata", name, {**PROBLEMATA, **changes})


async def served(tenancy: Tenancy) -> list[dict[str, Any]]:
    rows = await tenancy.rows("SELECT name, body FROM metagate.problemata WHERE name = 'mail'")
    return [json.loads(row["body"]) for row in rows]


@pytest.mark.invariant("INV-119")
async def test_it_is_served_when_what_it_names_is_there(tenancy: Tenancy, operator: Operator) -> None:
    """Applied first, Ready later, by itself; and not any more when its policy stops to admit it."""
    tenancy.apply(problemata(tenancy))
    condition = tenancy.condition("Problemata", "mail", "Ready")
    assert (condition["status"], condition["reason"]) == ("False", "PolicyProfileNotFound")
    assert await served(tenancy) == []
    tenancy.apply(tenancy.resource(*FRONT_DESK), tenancy.resource(*GATEWAY))
    tenancy.wait_ready("pm/mail")
    (body,) = await served(tenancy)
    assert body == {**body, **PROBLEMATA}
    printed = tenancy.kubectl.run("get", "pm", "-n", tenancy.namespace, "-o", "wide").stdout
    assert printed.split()[:9] == ["NAME", "READY", "STATUS", "VERSION", "POLICY", "SURFACE", "TOOLS", "AGE", "MESSAGE"]
    assert printed.split()[9:16] == ["mail", "True", "Served", "3", "front-desk", "mail", "true"]
    narrower = {
        **GATEWAY_POLICY,
        "surfaces": [{**GATEWAY_POLICY["surfaces"][0], "capabilities": {"allow": ["mail.*"]}}],
    }
    tenancy.apply(tenancy.resource("PolicyProfile", "front-desk", narrower))
    tenancy.wait_ready("pm/mail", condition="condition=Ready=False")
    condition = tenancy.condition("Problemata", "mail", "Ready")
    assert condition["reason"] == "CapabilityNotAdmitted"
    assert condition["message"].startswith("spec.capabilities[0].id: ")
    assert await served(tenancy) == []


REFUSED = [
    ({}, "problemata", "must be a DNS label and not problemata"),
    ({}, "mail.box", "must be a DNS label and not problemata"),
    ({"capabilities": [{"id": f"c{number}"} for number in range(129)]}, "mail", "128"),
    ({"capabilities": [{"id": "a"}, {"id": "a"}]}, "mail", "Duplicate value"),
    (
        {"capabilities": [{**PROBLEMATA["capabilities"][1], "inputSchema": {}}]},
        "mail",
        "has its inputSchema in the tool's definition",
    ),
    ({"gateway": {**PROBLEMATA["gateway"], "principals": []}}, "mail", "spec.gateway.principals"),
]


@pytest.mark.parametrize(("changes", "name", "message"), REFUSED)
def test_the_api_server_refuses_by_itself(
    tenancy: Tenancy, cluster: Cluster, changes: dict[str, Any], name: str, message: str
) -> None:
    """By the schema and its rules, without the webhook."""
    manifest = json.dumps(problemata(tenancy, name, **changes))
    done = cluster.kubectl.run("create", "-f", "-", stdin=manifest, check=False)
    assert done.returncode != 0
    assert message in done.stderr


def test_admission_says_the_rest(tenancy: Tenancy, cluster: Cluster) -> None:
    """What only the rules know is refused by its path; what is not there yet is a warning."""
    schema = {"type": "object", "properties": {"a": {"$ref": "https://example.com/a"}}}
    hostile = [
        (
            {"capabilities": [{"id": "doc.review", "inputSchema": schema}]},
            '.inputSchema.properties.a["$ref"]: must lead',
        ),
        ({"topology": [{"from": "a", "to": "b", "purpose": "AKIA" + "ABCDEFGHIJKLMNOP"}]}, "spec.topology[0].purpose"),
    ]
    with Admission.running(cluster):
        done = tenancy.kubectl.apply(problemata(tenancy))
        assert "Warning: spec.gateway.policyProfileRef: PolicyProfile front-desk does not exist" in done.stderr
        assert "Warning: spec.gateway.principals[0]: Principal mail-gateway does not exist" in done.stderr
        tenancy.apply(tenancy.resource(*FRONT_DESK), tenancy.resource(*GATEWAY))
        done = tenancy.kubectl.apply(problemata(tenancy, capabilities=[{"id": "doc.write"}]))
        assert "Warning: spec.capabilities[0].id: is not admitted by the surface" in done.stderr
        for changes, message in hostile:
            manifest = json.dumps(problemata(tenancy, "hostile", **changes))
            done = tenancy.kubectl.run("apply", "-f", "-", stdin=manifest, check=False)
            assert done.returncode != 0
            assert message in done.stderr


async def test_nulls_of_a_schema_arrive(tenancy: Tenancy, operator: Operator) -> None:
    """A definition is pinned to the byte; server-side apply keeps `default: null`, also when it changes."""
    tenancy.apply(tenancy.resource(*FRONT_DESK), tenancy.resource(*GATEWAY))
    for version in ("1", "2"):
        schema = {"type": "object", "properties": {"a": {"default": None, "title": version}}}
        manifest = json.dumps(
            problemata(tenancy, version=version, capabilities=[{"id": "doc.review", "inputSchema": schema}])
        )
        tenancy.kubectl.run("apply", "--server-side", "-f", "-", stdin=manifest)
        stored = tenancy.get("Problemata", "mail")["spec"]["capabilities"][0]["inputSchema"]
        assert stored == schema
        tenancy.wait_ready("pm/mail")
    async with asyncio.timeout(20):
        while (body := (await served(tenancy))[0])["version"] != "2":
            await asyncio.sleep(0.05)
    assert body["capabilities"][0]["inputSchema"] == schema


def test_kubectl_explains_the_fields(cluster: Cluster) -> None:
    """Where people look first."""
    for field, part in (
        ("gateway.principals", "may announce instances"),
        ("capabilities.tool.definition", "A call is refused while the server lists another"),
        ("capabilities.tool.as", "name under which agents see the tool"),
    ):
        text = " ".join(cluster.kubectl.run("explain", f"problemata.spec.{field}").stdout.split())
        assert part in text


async def test_it_is_gone_when_it_is_deleted(tenancy: Tenancy, operator: Operator) -> None:
    """A deletion is a revocation."""
    tenancy.apply(tenancy.resource(*FRONT_DESK), tenancy.resource(*GATEWAY), problemata(tenancy))
    tenancy.wait_ready("pm/mail")
    assert len(await served(tenancy)) == 1
    tenancy.kubectl.run("delete", "pm", "mail", "-n", tenancy.namespace)
    async with asyncio.timeout(20):
        while await served(tenancy):
            await asyncio.sleep(0.05)
