"""Every pod of the chart passes the restricted standard, and is given no more than it needs."""

import pytest
from tests.chart.rendering import MATRIX, Chart, containers, of_kind, pods

WITH_TOKEN = {"operator", "admission", "crds"}


@pytest.mark.parametrize("name", MATRIX)
def test_restricted(chart: Chart, name: str):
    """Pod Security *restricted*, field by field, in every combination of values."""
    items = list(pods(chart.render(MATRIX[name])))
    assert len(items) >= 3
    for owner, _, spec in items:
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), owner
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
        for volume in spec.get("volumes", []):
            assert set(volume) - {"name"} <= allowed, owner
        for container in containers(spec):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert not [port for port in container.get("ports", []) if "hostPort" in port]


@pytest.mark.parametrize("name", MATRIX)
def test_given_no_more_than_needed(chart: Chart, name: str):
    """No service addresses in the environment, no token where nobody calls the API server, bounded memory and scratch space."""
    for owner, metadata, spec in pods(chart.render(MATRIX[name])):
        assert spec["enableServiceLinks"] is False, owner
        component = metadata["labels"]["app.kubernetes.io/component"]
        assert spec["automountServiceAccountToken"] is (component in WITH_TOKEN), owner
        for container in containers(spec):
            assert "memory" in container["resources"]["limits"], owner
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), owner
        for volume in spec.get("volumes", []):
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), owner


def test_every_account_is_bare(chart: Chart):
    """No service account mounts its token by default; each pod has an account of its own."""
    objects = chart.render(MATRIX["defaults"])
    accounts = of_kind(objects, "ServiceAccount")
    assert all(account["automountServiceAccountToken"] is False for account in accounts.values())
    used = [spec["serviceAccountName"] for _, _, spec in pods(objects)]
    assert sorted(used) == sorted(set(used)) == sorted(accounts)


def test_probes_mean_something(chart: Chart):
    """Liveness asks the process alone, readiness asks whether it can serve; only the operator has no readiness."""
    for name, item in of_kind(chart.render({}), "Deployment").items():
        container = item["spec"]["template"]["spec"]["containers"][0]
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
        if not name.endswith("-operator"):
            assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_drains_before_it_stops(chart: Chart):
    """A stopping API pod first goes on serving, and the grace period covers that and the requests in flight."""
    spec = of_kind(chart.render({"api": {"drainSeconds": 30}}), "Deployment")["mg-metagate-api"]["spec"]
    pod = spec["template"]["spec"]
    assert pod["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 30}}}
    assert pod["terminationGracePeriodSeconds"] >= 30 + 10
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_one_image_but_for_the_database(chart: Chart):
    """Every container runs the one image; the trial database runs the one with the binaries."""
    for owner, _, spec in pods(chart.render(MATRIX["everything optional"])):
        wanted = "registry.example.com/metagate:1.2.3" + ("-embedded" if owner.startswith("StatefulSet/") else "")
        assert {container["image"] for container in containers(spec)} == {wanted}
        assert spec["imagePullSecrets"] == [{"name": "registry"}]


def test_a_digest_wins_over_the_tag(chart: Chart):
    """An image pinned by digest is asked for by digest."""
    values = {**MATRIX["external database"], "image": {"digest": "sha256:" + "a" * 64, "tag": "1.2.3"}}
    for _, _, spec in pods(chart.render(values)):
        assert {container["image"] for container in containers(spec)} == {"metagate@sha256:" + "a" * 64}


def test_the_shipped_issuer_gets_past_its_own_webhook(chart: Chart):
    """With failurePolicy Fail the first install would otherwise wait for an admission pod that Helm has not started."""
    objects = chart.render({"admission": {"failurePolicy": "Fail"}, "tokenIssuer": {"name": "own"}})
    [webhook] = of_kind(objects, "ValidatingWebhookConfiguration").values()
    [conditions] = [item["matchConditions"] for item in webhook["webhooks"]]
    assert conditions[0]["expression"] == "!(request.kind.kind == 'TokenIssuer' && request.name == 'own')"
    assert "caBundle" not in webhook["webhooks"][0]["clientConfig"]
