"""Wrong values are refused before anything is installed, with a sentence that says what to set."""

from typing import Any

import pytest
from tests.chart.rendering import EXTERNAL, MATRIX, Chart, Object, RenderingRefused, containers, environment, of_kind

WRONG: list[tuple[dict[str, Any], str]] = [
    # by the schema
    ({"oparator": {}}, "oparator"),
    ({"operator": {"replica": 1}}, "replica"),
    ({"operator": {"replicas": 0}}, "/operator/replicas"),
    ({"api": {"replicas": 0}}, "/api/replicas"),
    ({"admission": {"replicas": 0}}, "/admission/replicas"),
    ({"api": {"replicas": "two"}}, "/api/replicas"),
    ({"api": {"service": {"port": 70000}}}, "/api/service/port"),
    ({"admission": {"failurePolicy": "Maybe"}}, "/admission/failurePolicy"),
    ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    ({"image": {"digest": "latest"}}, "/image/digest"),
    ({"database": {"external": {"sslMode": "prefer"}}}, "/database/external/sslMode"),
    ({"database": {"external": {"password": "hunter2"}}}, "password"),
    ({"networkPolicy": {"apiFrom": [{"cidr": "10.0.0.0/8"}]}}, "/networkPolicy/apiFrom/0"),
    ({"tokenIssuer": {"maxTokenLifetime": "1 hour"}}, "/tokenIssuer/maxTokenLifetime"),
    ({"operator": {"extraEnv": {"A": "b"}}}, "/operator/extraEnv"),
    ({"ledger": {"url": "memorygate:8001"}}, "/ledger/url"),
    # by what contradicts itself
    ({"database": {"external": {"enabled": True}}}, "two databases: set database.trial.enabled=false"),
    ({"database": {"trial": {"enabled": False}}}, "no database: set database.trial.enabled=true"),
    (
        {"database": {**EXTERNAL, "external": {**EXTERNAL["external"], "host": ""}}},
        "database.external.host is empty: set it to your PostgreSQL's host name",
    ),
    (
        {"database": {**EXTERNAL, "external": {**EXTERNAL["external"], "publisher": {}}}},
        "database.external.publisher.existingSecret is empty: set it to the Secret",
    ),
    (
        {"database": {**EXTERNAL, "external": {**EXTERNAL["external"], "caSecret": ""}}},
        "database.external.caSecret is empty: set it to the Secret with the CA",
    ),
    ({"image": {"digest": "sha256:" + "0" * 64}}, "set image.tag instead, or use database.external"),
    ({"admission": {"certificates": {"mode": "secret"}}}, "needs admission.certificates.secretName and"),
    ({"admission": {"certificates": {"secretName": "mine"}}}, "belong to mode=secret, but mode is self"),
    ({"api": {"autoscaling": {"enabled": True, "minReplicas": 11}}}, "minReplicas is more than"),
    ({"api": {"audience": "other"}}, "tokenIssuer.audiences does not name api.audience (other)"),
    (
        {"ledger": {"url": "http://memorygate:8001"}, "operator": {"namespaces": ["team-a"]}},
        "which operator.namespaces leaves out",
    ),
    (
        {"operator": {"namespaces": ["team-a"], "namespaceSelector": {"cell": "a"}}},
        "set operator.namespaces or operator.namespaceSelector, not both",
    ),
    ({"console": {"enabled": True}}, "console.secretName is empty: set it to a Secret"),
    (
        {"monitoring": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}},
        "not both: everything would be scraped twice",
    ),
]


@pytest.mark.parametrize(("values", "says"), WRONG, ids=[says[:40] for _, says in WRONG])
def test_wrong_values_are_refused(chart: Chart, values: dict[str, Any], says: str):
    """An unknown key, a wrong type, a contradiction: nothing is rendered and the message names what to set."""
    with pytest.raises(RenderingRefused) as refused:
        chart.render(values)
    output = str(refused.value)
    assert says in output.replace(".", "/") or says in output
    assert "hunter2" not in output


def test_old_kubernetes_is_refused(chart: Chart):
    """A cluster older than the chart's kubeVersion is named as the reason."""
    with pytest.raises(RenderingRefused, match=r"kubeVersion"):
        chart.render({}, "--kube-version", "1.29.0")


def _roles(objects: list[dict[str, Any]]) -> dict[str, set[tuple[str, str]]]:
    result = {}
    for name, item in of_kind(objects, "Deployment").items():
        spec = item["spec"]["template"]["spec"]
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            values = environment(container).values()
            result[f"{name}/{container['name']}"] = {value for value in values if isinstance(value, tuple)}
    return result


def test_each_component_sees_its_own_database_password_only(chart: Chart):
    """Operator, API and migration take different Secrets' keys; admission and the hook take none."""
    assert _roles(chart.render({"database": EXTERNAL})) == {
        "mg-metagate-operator/migrate": {
            ("pg-owner", "username"), ("pg-owner", "password"), ("pg-publisher", "password"), ("pg-api", "password"),
        },
        "mg-metagate-operator/operator": {("pg-publisher", "username"), ("pg-publisher", "password")},
        "mg-metagate-api/wait-for-schema": {("pg-api", "username"), ("pg-api", "password")},
        "mg-metagate-api/api": {("pg-api", "username"), ("pg-api", "password")},
        "mg-metagate-admission/admission": set(),
    }  # fmt: skip


def test_no_password_is_in_an_argument_or_a_url(chart: Chart):
    """Database URLs carry neither user nor password, and no container has one in its arguments."""
    for values in ({}, {"database": EXTERNAL}):
        for value in of_kind(chart.render(values), "Deployment").values():
            spec = value["spec"]["template"]["spec"]
            for container in [*spec.get("initContainers", []), *spec["containers"]]:
                url = environment(container).get("METAGATE_DATABASE_URL", "")
                assert "@" not in url
                assert not [arg for arg in container.get("args", []) if "password" in arg.lower()]


def test_verify_full_reaches_the_client(chart: Chart):
    """The default TLS mode of an external database checks the certificate and the host name against the mounted CA."""
    spec = of_kind(chart.render({"database": EXTERNAL}), "Deployment")["mg-metagate-api"]["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert environment(container)["METAGATE_DATABASE_URL"] == (
        "postgresql://pg-rw.databases:5432/metagate?sslmode=verify-full&sslrootcert=/etc/metagate/database-ca/ca.crt"
    )
    assert {"name": "database-ca", "mountPath": "/etc/metagate/database-ca", "readOnly": True} in container[
        "volumeMounts"
    ]
    volume = next(volume for volume in spec["volumes"] if volume["name"] == "database-ca")
    assert volume["secret"] == {"secretName": "pg-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}


def test_the_pooler_is_the_apis_alone(chart: Chart):
    """Only the API goes through the pooler; whoever holds advisory locks connects directly."""
    values = {
        "database": {**EXTERNAL, "external": {**EXTERNAL["external"], "poolerHost": "pooler", "poolerPort": 6432}}
    }
    deployments = of_kind(chart.render(values), "Deployment")
    api = deployments["mg-metagate-api"]["spec"]["template"]["spec"]["containers"][0]
    operator = deployments["mg-metagate-operator"]["spec"]["template"]["spec"]["containers"][0]
    assert environment(api)["METAGATE_DATABASE_URL"].startswith("postgresql://pooler:6432/")
    assert environment(operator)["METAGATE_DATABASE_URL"].startswith("postgresql://pg-rw.databases:5432/")


def test_trial_passwords_differ_and_are_long(chart: Chart):
    """Every role of the trial database gets a random password of its own."""
    secret = of_kind(chart.render({}), "Secret")["mg-metagate-database"]["data"]
    assert set(secret) == {"postgres", "metagate_owner", "metagate_publisher", "metagate_api", "metagate_identity"}
    assert len(set(secret.values())) == 5
    assert min(map(len, secret.values())) >= 40


def test_a_cell_s_webhook_sees_its_namespaces(chart: Chart):
    """Each cell has a system namespace of its own, so what another cell may declare is not this one's to judge."""
    cell = chart.render(MATRIX["one cell of several"])
    arguments = {
        container["name"]: container["args"]
        for deployment in of_kind(cell, "Deployment").values()
        for container in containers(deployment["spec"]["template"]["spec"])
    }
    assert "--namespace-selector=cell=a,example.com/env=prod" in arguments["operator"]

    def namespace_selectors(objects: list[Object]) -> Any:
        [webhook] = of_kind(objects, "ValidatingWebhookConfiguration").values()
        return [item.get("namespaceSelector") for item in webhook["webhooks"]]

    assert namespace_selectors(cell) == [{"matchLabels": {"cell": "a", "example.com/env": "prod"}}]
    assert namespace_selectors(chart.render({})) == [None]
    other = {"matchLabels": {"tenants": "yes"}}
    values = {**MATRIX["one cell of several"], "admission": {"namespaceSelector": other}}
    assert namespace_selectors(chart.render(values)) == [other]
