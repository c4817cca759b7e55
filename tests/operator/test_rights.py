"""The rights the processes use are the rights they have: none missing, none too many."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import pytest
from tests.cluster.control_plane import Cluster, eventually
from tests.operator.machinery import SYSTEM, Admission, Operator, Tenancy

from metagate_crds.kinds import KINDS
from metagate_operator.cluster.rbac import (
    ADMISSION,
    CERTIFICATES,
    OPERATOR,
    RbacRight,
    admission_rights,
    operator_rights,
)

Use = tuple[str, str, str]  # verb, group, resource with its subresource, or URL
EVERYBODY = re.compile(r"/(apis?|version)(/|$)")
"""Discovery, which any account may read; as it may ask for its own rights."""


def granted(rights: Iterable[RbacRight]) -> set[Use]:
    return {(verb, group, resource) for right in rights for verb, group, resource, _ in right.permissions()}


def used(cluster: Cluster, account: str) -> set[Use]:
    """Every request of the account in the API server's audit log that was allowed."""
    assert cluster.audit_log is not None
    result: set[Use] = set()
    for line in cluster.audit_log.read_text().splitlines():
        entry = json.loads(line)
        if entry["user"]["username"] != f"system:serviceaccount:{SYSTEM}:{account}":
            continue
        assert entry.get("annotations", {}).get("authorization.k8s.io/decision") == "allow", entry["requestURI"]
        reference = entry.get("objectRef") or {}
        if "resource" in reference:
            resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
            result.add((entry["verb"], reference.get("apiGroup", ""), resource))
        elif not EVERYBODY.match(url := entry["requestURI"].partition("?")[0]):
            result.add((entry["verb"], "", url))
    return result - {("create", "authorization.k8s.io", "selfsubjectaccessreviews")}


def skip_without_audit(cluster: Cluster) -> None:
    if cluster.audit_log is None:
        pytest.skip("this cluster keeps no audit log that can be read")


@pytest.mark.invariant("INV-030")
def test_the_operator_uses_every_right_it_has_and_no_other(cluster: Cluster, tenancy: Tenancy) -> None:
    """A life with every kind, from no Lease to a release of it: verbs used equal verbs granted."""
    skip_without_audit(cluster)
    cluster.kubectl.run("delete", "lease", "-n", SYSTEM, "metagate-operator", "--ignore-not-found")
    with Operator.running(tenancy) as operator:
        tenancy.apply(
            *tenancy.world(),
            tenancy.resource("PolicyProfile", "front", {"limits": {"maxSpawnDepth": 3}, "surfaces": []}),
        )
        issuer = f"cluster-{tenancy.namespace}"
        tenancy.apply(
            tenancy.resource(
                "TokenIssuer",
                issuer,
                {"audiences": ["metagate"], "algorithms": ["RS256"], "jwks": {"source": "Cluster"}},
            )
        )
        tenancy.wait_ready("pb/indexer", "policyprofile/front")
        cluster.kubectl.run("wait", "--for=condition=KeysFresh", "--timeout=20s", f"tokenissuer/{issuer}")
        assert operator.terminate() == 0
    rights = granted(operator_rights())
    eventually(lambda: rights <= used(cluster, OPERATOR), timeout=10)
    assert used(cluster, OPERATOR) == rights


@pytest.mark.invariant("INV-030")
def test_the_webhook_uses_every_right_it_has_and_no_other(cluster: Cluster, tenancy: Tenancy) -> None:
    """From no Secret to a renewed one, with a review that looks at each kind of neighbour."""
    skip_without_audit(cluster)
    cluster.kubectl.run("delete", "secret", "-n", SYSTEM, CERTIFICATES, "--ignore-not-found")
    shadowed = {"limits": {"maxSpawnDepth": 3}, "shadow": {"policyProfileRef": {"name": "next"}}}
    with Admission.running(cluster):
        tenancy.apply(*tenancy.world(), tenancy.resource("PolicyProfile", "front", shadowed))
        cluster.kubectl.run(
            "patch", "secret", "-n", SYSTEM, CERTIFICATES, "--type=merge", "-p", '{"data":{"tls.crt":""}}'
        )
        rights = granted(admission_rights())
        eventually(lambda: rights <= used(cluster, ADMISSION), timeout=10)
    assert used(cluster, ADMISSION) == rights


@pytest.mark.invariant("INV-030")
def test_no_right_touches_a_workload_or_a_declared_object() -> None:
    """Declared objects are read, their status is patched; nothing is created but events, a Lease and one's own Secret."""
    for verb, group, resource in granted((*operator_rights(), *operator_rights(["a"]), *admission_rights())):
        assert group not in {"apps", "batch"}
        assert "*" not in (verb, group, resource)
        assert "delete" not in verb
        if resource in {kind.plural for kind in KINDS.values()}:
            assert verb in {"list", "watch"}
    creations = {
        resource for verb, _, resource in granted((*operator_rights(), *admission_rights())) if verb == "create"
    }
    assert creations == {"events", "leases", "secrets"}
