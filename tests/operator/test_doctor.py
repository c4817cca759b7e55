"""`metagate doctor --cluster` on a real API server, as somebody with a kubeconfig uses it after an install.

There is no kubelet: what it would write into the status of pods is written by the test.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.calendar_days import OTHER_CLOCK
from tests.cluster.control_plane import Cluster, eventually
from tests.integration.api.gate_fixture import settings_for
from tests.operator.machinery import SYSTEM, Admission, Operator, Tenancy
from tests.unit.cli.running import metagate

from metagate_api.server import serving
from metagate_operator.cluster.rbac import ADMISSION, OPERATOR

pytestmark = pytest.mark.cluster
IMAGE = "metagate:0.1.0"


def observations(cluster: Cluster, namespace: str, *options: str) -> dict[str, tuple[str, str, str]]:
    """By what was looked at: state, what it says, what to do next."""
    done = metagate(
        "doctor",
        "--kubeconfig",
        str(cluster.kubectl.kubeconfig),
        "--system-namespace",
        namespace,
        "-o",
        "json",
        *options,
    )
    assert done.returncode in {0, 1}, done.stderr
    seen = json.loads(done.stdout)
    assert done.returncode == any(item["state"] == "wrong" for item in seen)
    return {item["what"]: (item["state"], item["says"], item["next"]) for item in seen}


def test_a_webhook_that_answers(admission: Admission, cluster: Cluster) -> None:
    assert observations(cluster, SYSTEM)["webhook"] == ("ok", "metagate answers, and refuses what is not valid", "")
    assert cluster.kubectl.get("manifests.metagate.legivellum.io", "-n", SYSTEM)["items"] == [], "the probe was stored"


@pytest.mark.parametrize(("policy", "says"), [("Fail", "failed calling webhook"), ("Ignore", "was let through")])
def test_a_webhook_that_does_not_answer(cluster: Cluster, policy: str, says: str) -> None:
    with Admission.running(cluster, failure_policy=policy) as process:
        process.terminate()
        state, sentence, advice = observations(cluster, SYSTEM)["webhook"]
    assert (state, advice) == ("wrong", "docs/howto/webhook.md")
    assert says in sentence


def deployment(namespace: str, component: str, account: str, *arguments: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/component": component}
    container = {"name": component, "image": IMAGE, "args": [component, *arguments]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"doctor-{component}", "namespace": namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"serviceAccountName": account, "containers": [container]},
            },
        },
    }


@pytest.fixture
def deployments(cluster: Cluster) -> Iterator[list[dict[str, Any]]]:
    """What is put into this list is deleted again."""
    applied: list[dict[str, Any]] = []
    yield applied
    for item in applied:
        metadata = item["metadata"]
        cluster.kubectl.run("delete", "deployment", metadata["name"], "-n", metadata["namespace"], "--ignore-not-found")


def test_rights_of_the_service_accounts(tenancy: Tenancy, deployments: list[dict[str, Any]]) -> None:
    """Those that were granted are enough; an account without them is named, with each right that it lacks."""
    cluster = tenancy.cluster
    deployments += [deployment(SYSTEM, "operator", OPERATOR), deployment(SYSTEM, "admission", ADMISSION)]
    deployments.append(deployment(tenancy.namespace, "operator", "powerless", f"--namespace={tenancy.namespace}"))
    cluster.kubectl.apply(*deployments)
    assert observations(cluster, SYSTEM)["rights"][:2] == ("ok", "2 service accounts may do what they have to")
    state, says, advice = observations(cluster, tenancy.namespace)["rights"]
    assert state == "wrong"
    assert f"powerless may not list principals.metagate.legivellum.io in {tenancy.namespace}" in says
    assert f"powerless may not create leases.coordination.k8s.io in {tenancy.namespace}" in says
    assert "helm upgrade" in advice


class Pods:
    """Pods of a namespace, in the state that a kubelet would report."""

    def __init__(self, tenancy: Tenancy) -> None:
        self.kubectl, self.namespace = tenancy.kubectl, tenancy.namespace
        self.kubectl.run("create", "serviceaccount", "pods", "-n", self.namespace)

    def report(self, name: str, status: dict[str, Any], *, init: str = "migrate") -> None:
        labels = {"app.kubernetes.io/component": "api" if name.startswith("api") else "operator"}
        spec = {
            "serviceAccountName": "pods",
            "automountServiceAccountToken": False,
            "initContainers": [{"name": init, "image": IMAGE}],
            "containers": [{"name": "main", "image": IMAGE}],
        }
        metadata = {"name": name, "namespace": self.namespace, "labels": labels}
        self.kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        patch = json.dumps({"status": status})
        self.kubectl.run(
            "patch", "pod", name, "-n", self.namespace, "--subresource=status", "--type=merge", "-p", patch
        )


def container(name: str, **state: Any) -> dict[str, Any]:
    return {"name": name, "image": IMAGE, "imageID": "", "ready": "running" in state, "restartCount": 0, "state": state}


READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
COMPLETED = {"terminated": {"exitCode": 0}}
INITIALIZING = container("main", waiting={"reason": "PodInitializing"})


@pytest.fixture
def pods(tenancy: Tenancy) -> Pods:
    return Pods(tenancy)


def test_an_image_that_cannot_be_pulled(tenancy: Tenancy, pods: Pods) -> None:
    """Of an init container too, for which the others wait."""
    waiting = container("migrate", waiting={"reason": "ImagePullBackOff", "message": "Back-off"})
    pods.report(
        "operator-1", {"phase": "Pending", "initContainerStatuses": [waiting], "containerStatuses": [INITIALIZING]}
    )
    state, says, advice = observations(tenancy.cluster, tenancy.namespace)["pod operator-1"]
    assert (state, says) == ("wrong", f"the image {IMAGE} cannot be pulled (ImagePullBackOff)")
    assert "image.repository" in advice


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (
            {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
            "waits in migrate: CrashLoopBackOff (back-off 10s)",
        ),
        ({"terminated": {"exitCode": 1}}, "waits in migrate: ended with 1"),
        ({"running": {}}, "waits in migrate"),
        (
            {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "pg-owner" not found'}},
            'waits in migrate: CreateContainerConfigError (secret "pg-owner" not found)',
        ),
    ],
)
def test_a_database_that_is_not_there(tenancy: Tenancy, pods: Pods, state: dict[str, Any], says: str) -> None:
    """The init container that migrates says so, and its log says more."""
    status = {
        "phase": "Pending",
        "initContainerStatuses": [container("migrate", **state)],
        "containerStatuses": [INITIALIZING],
    }
    pods.report("operator-1", status)
    looked = observations(tenancy.cluster, tenancy.namespace)
    assert looked["database"][:2] == ("wrong", f"pod operator-1 {says}")
    assert looked["database"][2] == f"kubectl logs operator-1 -c migrate -n {tenancy.namespace}"


def test_a_database_that_answers(tenancy: Tenancy, pods: Pods) -> None:
    completed = {"initContainerStatuses": [container("migrate", **COMPLETED)]}
    for name in ("operator-1", "api-1", "api-2"):
        pods.report(name, {**READY, **completed, "containerStatuses": [container("main", running={})]})
    looked = observations(tenancy.cluster, tenancy.namespace)
    assert looked["pods"][:2] == ("ok", f"3 in {tenancy.namespace}, all ready")
    assert looked["database"][:2] == ("ok", "its schema fits, and 2 API pods are ready, which takes its answers")


@OTHER_CLOCK
async def test_a_real_boot(tenancy: Tenancy) -> None:
    """By a token of the API server, at the API: READY is recorded, and nothing that was declared for it is left."""
    issuer = tenancy.resource("TokenIssuer", "cluster", {"audiences": ["metagate"], "jwks": {"source": "Cluster"}})
    tenancy.apply(issuer)
    with Operator.running(tenancy, kubeconfig=str(tenancy.kubectl.kubeconfig)):
        async with serving(settings_for(tenancy.database, jwt_secret=None)) as url:
            looked = await asyncio.to_thread(observations, tenancy.cluster, tenancy.namespace, "--boot", "--url", url)
    assert looked["boot"][0] == "ok", looked["boot"]
    [startup] = await tenancy.rows("SELECT status, component_key, principal_key FROM metagate.startup")
    assert (startup["status"], startup["component_key"]) == ("READY", "metagate-doctor")
    assert startup["principal_key"] in looked["boot"][1]
    everything = "principals,profiles,manifests.metagate.legivellum.io,principalbindings,serviceaccounts"

    def left() -> list[str]:
        items = tenancy.kubectl.get("-n", tenancy.namespace, everything)["items"]
        return [item["metadata"]["name"] for item in items if item["metadata"]["name"].startswith("metagate-doctor")]

    assert left() == []


@pytest.mark.slow
async def test_a_boot_that_is_refused(tenancy: Tenancy) -> None:
    """No issuer for the cluster's tokens: the refusal says so, and nothing is left behind."""
    with Operator.running(tenancy, kubeconfig=str(tenancy.kubectl.kubeconfig)):
        async with serving(settings_for(tenancy.database, jwt_secret=None)) as url:
            looked = await asyncio.to_thread(observations, tenancy.cluster, tenancy.namespace, "--boot", "--url", url)
    state, says, advice = looked["boot"]
    assert state == "wrong"
    assert "401 CREDENTIAL_INVALID" in says
    assert "no TokenIssuer names it" in says
    assert "TokenIssuer" in advice
    eventually(lambda: tenancy.kubectl.get("-n", tenancy.namespace, "principals")["items"] == [])


def test_a_user_who_may_nothing(tenancy: Tenancy) -> None:
    """Before an install: each right that is missing. After it: what cannot be looked at is a note, and no fault."""
    tenancy.kubectl.run("create", "serviceaccount", "guest", "-n", tenancy.namespace)
    guest = replace(tenancy.cluster, kubectl=tenancy.cluster.service_account(tenancy.namespace, "guest"))
    before = observations(guest, tenancy.namespace, "--pre")
    assert before["Kubernetes"][0] == "ok"
    assert before["rights"][0] == "wrong"
    assert "create customresourcedefinitions.apiextensions.k8s.io" in before["rights"][1]
    assert f"create deployments.apps in {tenancy.namespace}" in before["rights"][1]
    after = observations(guest, tenancy.namespace)
    assert {state for state, _, _ in after.values()} <= {"ok", "note"}
    assert "cannot" in after["cluster"][1]


def test_a_boot_needs_an_address(cluster: Cluster) -> None:
    done = metagate("doctor", "--boot", "--kubeconfig", str(cluster.kubectl.kubeconfig))
    assert done.returncode != 0
    assert "port-forward" in done.stderr
