"""What the chart grants is what the code says it needs, under this release's names, and nothing else."""

import importlib.util
import sys
from typing import Any

import pytest
from tests.chart.rendering import CHART, MATRIX, NAMESPACE, ROOT, Chart, Object, of_kind

from metagate_operator.cluster.rbac import RbacRight, Where, admission_rights, operator_rights

WORKLOADS = {"pods", "deployments", "statefulsets", "daemonsets", "replicasets", "jobs", "cronjobs", "services"}
Grant = tuple[str, str, str, str, str]
"""(where: "" for the cluster, verb, group, resource or URL, name)"""


def _written(rule: Object, where: str) -> set[Grant]:
    return {
        (where, verb, group, resource, name)
        for verb in rule["verbs"]
        for group in rule.get("apiGroups", [""])
        for resource in rule.get("resources", rule.get("nonResourceURLs"))
        for name in rule.get("resourceNames", [""])
    }


def granted(objects: list[Object], account: str) -> set[Grant]:
    """Everything the bindings give to a service account."""
    result: set[Grant] = set()
    for kind in ("Role", "ClusterRole"):
        for obj in objects:
            if obj["kind"] != f"{kind}Binding":
                continue
            if not [s for s in obj["subjects"] if (s["name"], s["namespace"]) == (account, NAMESPACE)]:
                continue
            where = obj["metadata"].get("namespace", "")
            [role] = [
                role
                for role in objects
                if role["kind"] == kind
                and role["metadata"]["name"] == obj["roleRef"]["name"]
                and role["metadata"].get("namespace", "") == where
            ]
            for rule in role["rules"]:
                result |= _written(rule, where)
    return result


def needed(rights: tuple[RbacRight, ...], names: dict[str, str], watched: tuple[str, ...]) -> set[Grant]:
    result: set[Grant] = set()
    for right in rights:
        inside = {Where.CLUSTER: ("",), Where.OWN: (NAMESPACE,), Where.WATCHED: watched or ("",)}[right.where]
        for where in inside:
            for verb, group, resource, name in right.permissions():
                result.add((where, verb, group, resource, names.get(name, name)))
    return result


RENAMED = {"metagate": "metagate-system-mg-metagate", "metagate-admission-tls": "mg-metagate-admission-certificate"}
NOBODY_CREATES_SECRETS = {(NAMESPACE, "create", "", "secrets", "")}


def test_file_is_generated():
    """files/rbac.yaml is what charts/rbac.py writes from the code."""
    spec = importlib.util.spec_from_file_location("chart_rbac", ROOT / "charts" / "rbac.py")
    assert spec is not None
    assert spec.loader is not None
    rbac = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = rbac
    spec.loader.exec_module(rbac)
    assert (CHART / "files" / "rbac.yaml").read_text() == rbac.text(), "run charts/rbac.py"


@pytest.mark.parametrize("name", ["defaults", "watching two namespaces"])
def test_grants_are_the_codes_needs(chart: Chart, name: str):
    """Each account has exactly the rights the code lists; creating Secrets is left out, as the chart brings the one."""
    objects = chart.render(MATRIX[name])
    watched: tuple[str, ...] = tuple(MATRIX[name].get("operator", {}).get("namespaces", ()))
    assert granted(objects, "mg-metagate-operator") == needed(operator_rights(watched), RENAMED, watched)
    wanted = needed(admission_rights(), RENAMED, ()) - NOBODY_CREATES_SECRETS
    assert granted(objects, "mg-metagate-admission") == wanted
    assert "mg-metagate-admission-certificate" in of_kind(objects, "Secret")
    for account in ("mg-metagate-api", "mg-metagate-database", "mg-metagate-test"):
        assert granted(objects, account) == set()


def test_mounted_certificates_need_no_secret(chart: Chart):
    """With certificates of somebody else's, admission may neither touch Secrets nor webhook configurations."""
    objects = chart.render(MATRIX["certificates brought along"])
    result = granted(objects, "mg-metagate-admission")
    assert {group for _, _, group, _, _ in result} == {"metagate.legivellum.io"}
    assert {verb for _, verb, _, _, _ in result} <= {"get", "list"}


@pytest.mark.invariant("INV-030")
@pytest.mark.parametrize("name", MATRIX)
def test_nobody_touches_workloads(chart: Chart, name: str):
    """No account of the chart may do anything with a workload, use a wildcard, or write a declared object."""
    for item in chart.render(MATRIX[name]):
        if item["kind"] not in {"Role", "ClusterRole"}:
            continue
        for rule in item["rules"]:
            everything: list[Any] = [*rule["verbs"], *rule.get("resources", []), *rule.get("apiGroups", [])]
            assert "*" not in everything
            assert not WORKLOADS & {resource.split("/")[0] for resource in rule.get("resources", [])}
            if rule.get("apiGroups") == ["metagate.legivellum.io"] and {"patch", "update", "create", "delete"} & set(
                rule["verbs"]
            ):
                assert all(resource.endswith("/status") for resource in rule["resources"])


def test_crds_hook_may_touch_ours_only(chart: Chart):
    """The upgrade hook gets and patches our CRDs by name; creating cannot be limited to a name."""
    result = granted(chart.render({}), "mg-metagate-crds")
    plurals = (
        "principals",
        "profiles",
        "manifests",
        "principalbindings",
        "policyprofiles",
        "problematas",
        "plantemplates",
        "tokenissuers",
    )
    group, resource = "apiextensions.k8s.io", "customresourcedefinitions"
    assert result == {("", "create", group, resource, "")} | {
        ("", verb, group, resource, f"{plural}.metagate.legivellum.io")
        for verb in ("get", "patch")
        for plural in plurals
    }
