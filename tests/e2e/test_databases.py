"""A database of one's own, and what pods say while it is wrong: each in one line, and each mended without deleting a pod."""

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from tests.e2e.kubernetes import NodeCluster, Object, eventually
from tests.e2e.release import CHART, InstalledRelease, account, declared, namespace, pod

from legivellum.identity.api_keys import mint
from metagate_operator.cluster.admission.certificates import CertificateBundle, issue_certificates

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


def roles(cluster: NodeCluster, *, right: bool) -> None:
    """The three Secrets of the release, with the passwords of the server or with others."""
    for role in ("owner", "publisher", "api"):
        password = PASSWORDS[f"metagate_{role}"] if right else "a-wrong-one"
        cluster.apply(secret(f"pg-{role}", {"username": f"metagate_{role}", "password": password}))


def server(cluster: NodeCluster) -> None:
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
def spare(release: InstalledRelease) -> Iterator[NodeCluster]:
    """A second release in its own namespace, which watches that namespace only; its database is not there yet."""
    cluster = release.cluster
    namespace(cluster, SPARE)
    cluster.helm("install", SPARE, str(CHART), "-n", SPARE, *(part for value in VALUES for part in ("--set", value)))
    yield cluster
    cluster.helm("uninstall", SPARE, "-n", SPARE)
    cluster.kubectl("delete", "namespace", SPARE, "--wait=false")


def uids(cluster: NodeCluster) -> set[str]:
    items = cluster.get("pods", "-n", SPARE, "-l", f"app.kubernetes.io/instance={SPARE}")["items"]
    return {item["metadata"]["uid"] for item in items}


def last_log(cluster: NodeCluster, component: str, container: str) -> str:
    """What a container last said: now, or before it was started again."""
    of = f"deployment/spare-metagate-{component}"
    try:
        return cluster.logs(SPARE, of, "-c", container, "--tail=3")
    except AssertionError:
        return ""


def test_wrong_databases_say_so_and_recover(spare: NodeCluster, say: Callable[[str], None]):
    """Missing Secret, no server, wrong password, no schema: named by status or log; then right, and the same pods go on."""

    def waiting() -> bool:
        items = spare.get("pods", "-n", SPARE, "-l", "app.kubernetes.io/component=operator")["items"]
        states = [
            state.get("waiting", {})
            for item in items
            for status in item["status"].get("initContainerStatuses", [])
            for state in [status["state"]]
        ]
        return any('secret "pg-owner" not found' in state.get("message", "") for state in states)

    eventually(waiting, within=60)
    before = uids(spare)

    roles(spare, right=False)
    eventually(lambda: "database" in last_log(spare, "operator", "migrate").lower(), within=60)
    unreachable = last_log(spare, "operator", "migrate").strip().splitlines()
    assert len(unreachable) == 1, unreachable

    server(spare)
    eventually(lambda: "password" in last_log(spare, "operator", "migrate").lower(), within=90)
    wrong = last_log(spare, "operator", "migrate").strip().splitlines()
    assert len(wrong) == 1, wrong
    assert "a-wrong-one" not in wrong[0]

    roles(spare, right=True)
    # The kubelet gives new values of a Secret to the next start of a container: no pod is deleted.
    spare.rolled_out(SPARE, "deployment/spare-metagate-operator", "deployment/spare-metagate-api", within=200)
    assert uids(spare) == before
    say(f"a wrong database says: {unreachable[0]!r}; {wrong[0]!r}")


POOLER = """
[databases]
metagate = host=pg port=5432 dbname=metagate
[pgbouncer]
listen_addr = 0.0.0.0
listen_port = 5432
pool_mode = {mode}
max_prepared_statements = {statements}
auth_type = scram-sha-256
auth_file = /pooler/users
client_tls_sslmode = require
client_tls_cert_file = /pooler/tls.crt
client_tls_key_file = /pooler/tls.key
"""


def pooler(cluster: NodeCluster, name: str, tls: CertificateBundle, *, mode: str, statements: int = 0) -> None:
    """A PgBouncer in a pod, found as `name`, that speaks TLS only."""
    files = {
        "pgbouncer.ini": POOLER.format(mode=mode, statements=statements),
        "users": "".join(f'"{role}" "{password}"\n' for role, password in PASSWORDS.items()),
        "tls.crt": tls.leaf.decode(),
        "tls.key": tls.leaf_key.decode(),
    }
    started = pod(name, SPARE, "pg", ["pgbouncer", "/pooler/pgbouncer.ini"])
    container = started["spec"]["containers"][0]
    container["image"] = "localhost/pgbouncer:trixie"
    container["readinessProbe"] = {"tcpSocket": {"port": 5432}, "periodSeconds": 1}
    container["volumeMounts"].append({"name": "pooler", "mountPath": "/pooler"})
    started["spec"]["volumes"].append({"name": "pooler", "secret": {"secretName": name}})
    started["metadata"]["labels"] = {"app": name}
    spec = {"selector": {"app": name}, "ports": [{"port": 5432}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": SPARE}, "spec": spec}
    cluster.apply(secret(name, files), service, started)
    cluster.kubectl("-n", SPARE, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")


def through(cluster: NodeCluster, *values: str) -> None:
    """The release again, its database at other addresses."""
    answer = (
        "database.external.host=straight",
        "database.external.poolerHost=pooled",
        "database.external.caSecret=pg-ca",
    )
    answer = (*answer, "database.external.sslMode=verify-full", *values)
    settings = (part for value in answer for part in ("--set-string", value))
    cluster.helm("upgrade", SPARE, str(CHART), "-n", SPARE, "--reuse-values", *settings)
    cluster.rolled_out(SPARE, "deployment/spare-metagate-operator", "deployment/spare-metagate-api")


def boots(cluster: NodeCluster, name: str) -> None:
    """A pod of the release's own namespace, with an API key, through `metagate bootstrap`."""
    url = f"http://{SPARE}-metagate.{SPARE}:8000"
    command = ["metagate", "bootstrap", "--api-key-file", "/key/key", "--timeout", "30"]
    started = pod(name, SPARE, "pg", command, METAGATE_URL=url, METAGATE_TOKEN_FILE="")
    started["spec"]["containers"][0]["volumeMounts"].append({"name": "key", "mountPath": "/key"})
    started["spec"]["volumes"].append({"name": "key", "secret": {"secretName": "courier-key"}})
    cluster.apply(started)
    done = "--for=jsonpath={.status.phase}=Succeeded"
    cluster.kubectl("-n", SPARE, "wait", done, f"pod/{name}", "--timeout=60s")


def test_tls_and_poolers(spare: NodeCluster, say: Callable[[str], None]):
    """verify-full everywhere, the API through PgBouncer in transaction mode: with tracked named statements, and without."""
    key = mint()
    tls = issue_certificates(["straight", "pooled"], datetime.now(UTC))
    spare.apply(
        secret("pg-ca", {"ca.crt": tls.authorities.decode()}),
        secret("courier-key", {"key": key.key}),
        declared("Profile", "courier", SPARE, {"capabilities": {"deliver": True}}),
        declared("Manifest", "courier", SPARE, {"deploymentKey": "default", "version": 1}),
        declared("Principal", "courier", SPARE, {"type": "component", "apiKeys": [{"id": key.id, "sha256": key.sha256}]}),
        declared("PrincipalBinding", "courier", SPARE, {
            "principalRef": {"name": "courier"}, "profileRef": {"name": "courier"},
            "manifestRef": {"name": "courier"}, "components": ["*"],
        }),
    )  # fmt: skip
    pooler(spare, "straight", tls, mode="session")
    pooler(spare, "pooled", tls, mode="transaction", statements=200)
    through(spare)
    boots(spare, "courier-tracked")
    spare.kubectl("-n", SPARE, "delete", "pod", "pooled", "--now")
    pooler(spare, "pooled", tls, mode="transaction")
    off = "api.extraEnv[0].name=METAGATE_PREPARED_STATEMENTS"
    through(spare, off, "api.extraEnv[0].value=false")
    boots(spare, "courier-untracked")
    last_log = spare.logs(SPARE, "deployment/spare-metagate-api", "-c", "api")
    assert "prepared statement" not in last_log
    say("PgBouncer 1.24 in transaction mode over TLS with verify-full: boots with and without tracked statements")
