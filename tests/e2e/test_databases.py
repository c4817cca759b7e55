"""A database of one's own, and what pods say while it is wrong: each in one line, and each mended without deleting a pod."""

import base64
from collections.abc import Callable, Iterator

import pytest
from tests.e2e.kubernetes import Cluster, Object, eventually
from tests.e2e.release import CHART, Release, account, namespace, pod

SPARE = "spare"
PASSWORDS = {
    role: f"password-of-{role}"
    for role in ("postgres", "metagate_owner", "metagate_publisher", "metagate_api", "metagate_identity")
}
VALUES = (
    "database.trial.enabled=false", "database.external.enabled=true", "database.external.host=pg",
    "database.external.sslMode=disable", "database.external.owner.existingSecret=pg-owner",
    "database.external.publisher.existingSecret=pg-publisher", "database.external.api.existingSecret=pg-api",
    "operator.namespaces={spare}", "api.replicas=1", "admission.enabled=false", "tokenIssuer.create=false",
    "crds.hook=false", "tests.enabled=false",
)  # fmt: skip


def secret(name: str, data: dict[str, str]) -> Object:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": SPARE}, "data": encoded}


def roles(cluster: Cluster, *, right: bool) -> None:
    """The three Secrets of the release, with the passwords of the server or with others."""
    for role in ("owner", "publisher", "api"):
        password = PASSWORDS[f"metagate_{role}"] if right else "a-wrong-one"
        cluster.apply(secret(f"pg-{role}", {"username": f"metagate_{role}", "password": password}))


def server(cluster: Cluster) -> None:
    """A PostgreSQL in a pod, found as `pg`."""
    started = pod(
        "pg",
        SPARE,
        "pg",
        ["python3", "-m", "metagate_postgres", "--directory=/tmp/data", "--listen=0.0.0.0", "--passwords=/passwords"],
    )
    container = started["spec"]["containers"][0]
    container["image"] += "-embedded"
    container["readinessProbe"] = {"tcpSocket": {"port": 5432}, "periodSeconds": 1}
    container["volumeMounts"].append({"name": "passwords", "mountPath": "/passwords"})
    started["spec"]["volumes"].append({"name": "passwords", "secret": {"secretName": "pg-server"}})
    started["spec"]["securityContext"].update({"runAsUser": 65532, "fsGroup": 65532})
    started["metadata"]["labels"] = {"app": "pg"}
    spec = {"selector": {"app": "pg"}, "ports": [{"port": 5432}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "pg", "namespace": SPARE}, "spec": spec}
    cluster.apply(secret("pg-server", PASSWORDS), account("pg", SPARE), service, started)
    cluster.kubectl("-n", SPARE, "wait", "--for=condition=Ready", "pod/pg", "--timeout=60s")


@pytest.fixture(scope="module")
def spare(release: Release) -> Iterator[Cluster]:
    """A second release in its own namespace, which watches that namespace only; its database is not there yet."""
    cluster = release.cluster
    namespace(cluster, SPARE)
    cluster.helm("install", SPARE, str(CHART), "-n", SPARE, *(part for value in VALUES for part in ("--set", value)))
    yield cluster
    cluster.helm("uninstall", SPARE, "-n", SPARE)
    cluster.kubectl("delete", "namespace", SPARE, "--wait=false")


def uids(cluster: Cluster) -> set[str]:
    found = cluster.get("pods", "-n", SPARE, "-l", f"app.kubernetes.io/instance={SPARE}")["items"]
    return {each["metadata"]["uid"] for each in found}


def said(cluster: Cluster, component: str, container: str) -> str:
    """What a container last said: now, or before it was started again."""
    of = f"deployment/spare-metagate-{component}"
    try:
        return cluster.logs(SPARE, of, "-c", container, "--tail=3")
    except AssertionError:
        return ""


def test_wrong_databases_say_so_and_recover(spare: Cluster, say: Callable[[str], None]):
    """Missing Secret, no server, wrong password, no schema: named by status or log; then right, and the same pods go on."""

    def waiting() -> bool:
        found = spare.get("pods", "-n", SPARE, "-l", "app.kubernetes.io/component=operator")["items"]
        states = [
            state.get("waiting", {})
            for each in found
            for status in each["status"].get("initContainerStatuses", [])
            for state in [status["state"]]
        ]
        return any('secret "pg-owner" not found' in state.get("message", "") for state in states)

    eventually(waiting, within=60)
    before = uids(spare)

    roles(spare, right=False)
    eventually(lambda: "database" in said(spare, "operator", "migrate").lower(), within=60)
    unreachable = said(spare, "operator", "migrate").strip().splitlines()
    assert len(unreachable) == 1, unreachable

    server(spare)
    eventually(lambda: "password" in said(spare, "operator", "migrate").lower(), within=90)
    wrong = said(spare, "operator", "migrate").strip().splitlines()
    assert len(wrong) == 1, wrong
    assert "a-wrong-one" not in wrong[0]

    roles(spare, right=True)
    # The kubelet gives new values of a Secret to the next start of a container: no pod is deleted.
    spare.rolled_out(SPARE, "deployment/spare-metagate-operator", "deployment/spare-metagate-api", within=200)
    assert uids(spare) == before
    say(f"a wrong database says: {unreachable[0]!r}; {wrong[0]!r}")
