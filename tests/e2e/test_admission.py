"""The webhook through its Service, and what `failurePolicy` means while nobody answers."""

import json
from collections.abc import Iterator

import pytest
from tests.e2e.kubernetes import Object, eventually
from tests.e2e.release import CHART, NAME, NAMESPACE, InstalledRelease, declared, namespace

WHERE = "reviewed"
BAD = {
    "deploymentKey": "d",
    "version": 1,
    "services": {"mail": {"type": "mail", "endpoint": "http://m", "metadata": {"x": [{"jobs": 1}]}}},
}


def webhook(release: InstalledRelease) -> Object:
    result: Object = release.cluster.get("validatingwebhookconfiguration", f"{NAMESPACE}-{NAME}")["webhooks"][0]
    return result


@pytest.fixture(scope="module", autouse=True)
def reviewed(release: InstalledRelease) -> Iterator[None]:
    namespace(release.cluster, WHERE)
    yield
    release.cluster.kubectl("delete", "namespace", WHERE, "--wait=false")


def refusal(release: InstalledRelease, manifest: Object) -> str:
    return release.cluster.refused("apply", "-f", "-", feed=json.dumps(manifest))


@pytest.mark.invariant("INV-031")
def test_refuses_through_its_service(release: InstalledRelease):
    """A forbidden key three levels down is refused by the webhook, with its path, when it is applied."""
    output = refusal(release, declared("Manifest", "bad", WHERE, BAD))
    assert "is invalid" in output
    assert "spec.services.mail.metadata.x[0].jobs" in output


def test_ignore_lets_everything_in_and_status_tells(release: InstalledRelease):
    """Nobody answers, failurePolicy Ignore: the bad object is accepted, and its status says what the webhook would have."""
    cluster = release.cluster
    assert webhook(release)["failurePolicy"] == "Ignore"
    cluster.kubectl("-n", NAMESPACE, "scale", "deployment/metagate-admission", "--replicas=0")
    cluster.kubectl(
        "-n", NAMESPACE, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=admission", "--timeout=90s"
    )
    cluster.apply(declared("Manifest", "bad", WHERE, BAD))
    cluster.kubectl("-n", WHERE, "wait", "--for=condition=Accepted=False", "manifest/bad", "--timeout=30s")
    conditions = cluster.get("manifest", "bad", "-n", WHERE)["status"]["conditions"]
    [accepted] = [condition for condition in conditions if condition["type"] == "Accepted"]
    assert "spec.services.mail.metadata.x[0].jobs" in accepted["message"]


def test_fail_refuses_everything_and_deleting_still_works(release: InstalledRelease):
    """Nobody answers, failurePolicy Fail: nothing of ours can be applied, other kinds can, and everything can be deleted."""
    cluster = release.cluster
    authorities = webhook(release)["clientConfig"]["caBundle"]
    cluster.helm(
        "upgrade", NAME, str(CHART), "-n", NAMESPACE, "--set", "admission.failurePolicy=Fail", "--timeout", "3m"
    )
    cluster.kubectl("-n", NAMESPACE, "scale", "deployment/metagate-admission", "--replicas=0")
    cluster.kubectl(
        "-n", NAMESPACE, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=admission", "--timeout=90s"
    )
    assert webhook(release)["failurePolicy"] == "Fail"
    assert webhook(release)["clientConfig"]["caBundle"] == authorities, "an upgrade must not take the CA away"
    good = {"deploymentKey": "d", "version": 1}
    assert "failed calling webhook" in refusal(release, declared("Manifest", "good", WHERE, good))
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other", "namespace": WHERE}})
    cluster.kubectl("-n", WHERE, "delete", "manifest/bad")
    cluster.kubectl("-n", NAMESPACE, "scale", "deployment/metagate-admission", "--replicas=2")
    cluster.rolled_out(NAMESPACE, "deployment/metagate-admission")
    eventually(lambda: "created" in cluster.apply(declared("Manifest", "good", WHERE, good)), within=30)
    assert "is invalid" in refusal(release, declared("Manifest", "bad", WHERE, BAD))


def test_back_to_the_default(release: InstalledRelease):
    """Another upgrade puts the policy back; the issuer that the chart ships went through both."""
    release.cluster.helm("upgrade", NAME, str(CHART), "-n", NAMESPACE, "--reset-values", "--wait", "--timeout", "3m")
    assert webhook(release)["failurePolicy"] == "Ignore"
    release.cluster.kubectl("wait", "--for=condition=Ready", "tokenissuer/cluster", "--timeout=30s")
