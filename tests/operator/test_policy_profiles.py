"""PolicyProfiles on a real API server: what kubectl says of them, and what becomes of those of an earlier release."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from tests.cluster.control_plane import Cluster, eventually
from tests.operator.machinery import Admission, Operator, Tenancy

from metagate_crds.crd_yaml import crd_documents

CRD = next(item for item in crd_documents() if item["spec"]["names"]["kind"] == "PolicyProfile")
BOUNDED = {"limits": {"maxSpawnDepth": 5, "maxTotalDescendants": 100}}
REFERRING = {
    **BOUNDED,
    "surfaces": [{"surfaceId": "public", "escalateTo": "on-call"}],
    "shadow": {"policyProfileRef": {"name": "next"}},
}
WIDE = {
    "limits": {"maxSpawnDepth": 5, "ancestorWindow": {"size": 500, "maxRepeats": 1}},
    "invariants": {"rules": [{"name": f"r{n}", "cel": f"payload.x{n}.matches('a')"} for n in range(20)]},
    "surfaces": [{"surfaceId": "public", "targets": [{"name": "a", "url": "concierge:8000"}]}],
}


def test_references_become_status(tenancy: Tenancy, operator: Operator) -> None:
    """What a PolicyProfile names and what is not there: said in status, served all the same, and gone once it is there."""
    tenancy.apply(tenancy.resource("PolicyProfile", "front", REFERRING))
    condition = tenancy.condition("PolicyProfile", "front", "ResolvedRefs")
    assert condition["status"] == "False"
    assert "spec.surfaces[0].escalateTo: Principal on-call does not exist" in condition["message"]
    assert "spec.shadow.policyProfileRef: PolicyProfile next does not exist" in condition["message"]
    assert tenancy.condition("PolicyProfile", "front", "Compiled")["status"] == "True"
    tenancy.apply(
        tenancy.resource("Principal", "on-call", {"type": "principal"}),
        tenancy.resource("PolicyProfile", "next", {"limits": {"maxSpawnDepth": 2}}),
    )
    tenancy.wait_ready("policyprofile/front")
    warning = tenancy.condition("PolicyProfile", "next", "Warning")
    assert (warning["status"], warning["reason"]) == ("True", "TreeNotBounded")
    assert tenancy.condition("PolicyProfile", "front", "Warning")["status"] == "absent"


def test_admission_says_the_same(tenancy: Tenancy, cluster: Cluster) -> None:
    """kubectl prints what does not resolve and what nothing bounds, and refuses a rule by its path."""
    with Admission.running(cluster):
        done = tenancy.kubectl.apply(tenancy.resource("PolicyProfile", "front", REFERRING))
        assert "created" in done.stdout
        assert "Warning: spec.surfaces[0].escalateTo: Principal on-call does not exist" in done.stderr
        assert "Warning: spec.shadow.policyProfileRef: PolicyProfile next does not exist" in done.stderr
        done = tenancy.kubectl.apply(tenancy.resource("PolicyProfile", "next", {"limits": {"maxSpawnDepth": 2}}))
        assert "Warning: spec.limits.maxTotalDescendants" in done.stderr
        hostile = {**BOUNDED, "invariants": {"rules": [{"name": "a", "cel": "payload.text.matches('(a+)+$')"}]}}
        manifest = json.dumps(tenancy.resource("PolicyProfile", "hostile", hostile))
        done = tenancy.kubectl.run("apply", "-f", "-", stdin=manifest, check=False)
        assert done.returncode != 0
        assert "spec.invariants.rules[0].cel: may not call `matches`" in done.stderr


@pytest.mark.parametrize(
    ("field", "part"),
    [
        ("shadow.policyProfileRef", "its own shadow is not asked"),
        ("invariants.rules.cel", "CEL expression over payload, request, caller and observed"),
        ("surfaces.parentage", "Whose tasks a request may name as its parent"),
        ("surfaces.targets.secretRef", "Never the credential itself"),
    ],
)
def test_kubectl_explains_the_fields(cluster: Cluster, field: str, part: str) -> None:
    """Where people look first."""
    text = " ".join(cluster.kubectl.run("explain", f"policyprofile.spec.{field}").stdout.split())
    assert part in text


@contextlib.contextmanager
def crd_of_the_release_before(cluster: Cluster) -> Iterator[None]:
    """With the bounds as they were before they were narrowed."""
    before: Any = copy.deepcopy(CRD)
    spec = before["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    spec["limits"]["properties"]["ancestorWindow"]["properties"]["size"]["maximum"] = 1024
    spec["invariants"]["properties"]["rules"]["maxItems"] = 64
    spec["surfaces"]["items"]["properties"]["targets"]["items"]["properties"]["url"]["pattern"] = "^[^\\s]+$"
    apply_crd(cluster, before)
    try:
        yield
    finally:
        apply_crd(cluster, CRD)


def apply_crd(cluster: Cluster, document: Any) -> None:
    cluster.kubectl.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(document))


async def remember(tenancy: Tenancy, body: dict[str, Any]) -> None:
    """As the operator of the release before remembered a generation that it served."""
    metadata = body["metadata"]
    connection = await asyncpg.connect(tenancy.database.publisher)
    try:
        await connection.execute(
            "INSERT INTO metagate.declared (uid, generation, kind, tenant, namespace, name, created_at, spec) "
            "VALUES ($1::text::uuid, $2, 'PolicyProfile', $3::text::uuid, $4, $5, now(), $6)",
            metadata["uid"],
            metadata["generation"],
            tenancy.kubectl.get("namespace", tenancy.namespace)["metadata"]["uid"],
            tenancy.namespace,
            metadata["name"],
            json.dumps(body["spec"]),
        )
    finally:
        await connection.close()


async def test_an_upgrade_takes_away_nothing_that_is_served(tenancy: Tenancy, cluster: Cluster) -> None:
    """A stored object beyond the narrower bounds: still served, and its status, which is written, says what to change."""
    with crd_of_the_release_before(cluster):
        manifest = json.dumps(tenancy.resource("PolicyProfile", "front", WIDE))
        eventually(lambda: cluster.kubectl.run("apply", "-f", "-", stdin=manifest, check=False).returncode == 0)
        body = tenancy.get("PolicyProfile", "front")
    await remember(tenancy, body)
    with Operator.running(tenancy):
        accepted = tenancy.condition("PolicyProfile", "front", "Accepted")
        assert accepted["status"] == "False"
        assert "spec.limits.ancestorWindow.size: must be less than or equal to 64" in accepted["message"]
        assert "spec.surfaces[0].targets[0].url: must be an absolute http or https URL" in accepted["message"]
        assert tenancy.condition("PolicyProfile", "front", "Compiled")["reason"] == "LastGoodServed"
        (row,) = await tenancy.rows("SELECT body FROM metagate.policy_profile WHERE name = 'front'")
        assert json.loads(row["body"])["limits"]["ancestorWindow"]["size"] == 500
        tenancy.apply(tenancy.resource("PolicyProfile", "front", REFERRING | {"shadow": None, "surfaces": []}))
        tenancy.wait_ready("policyprofile/front")
