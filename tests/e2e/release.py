"""The release under test, somebody who may see everything it recorded, and pods that boot in a loop."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.kubernetes import ENVIRONMENT, HERE, ROOT, NodeCluster, Object, eventually

CHART = ROOT / "charts" / "metagate"
NAMESPACE = "metagate-system"
NAME = "metagate"
AGENTS = "agents"
IMAGE = "metagate:0.1.0"
WORKLOADS = (
    "statefulset/metagate-database",
    "deployment/metagate-operator",
    "deployment/metagate-api",
    "deployment/metagate-admission",
)
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}


@dataclass(frozen=True)
class InstalledRelease:
    cluster: NodeCluster
    seconds: float

    def ask(self, path: str) -> Any:
        """GET as an observer of the whole cluster, from a pod; the parsed answer."""
        output = self.cluster.kubectl("-n", NAMESPACE, "exec", "watcher", "--", "python3", "/scripts/ask.py", path)
        return json.loads(output)

    def startups(self, namespace: str, prefix: str = "") -> list[Object]:
        """The sessions of a namespace whose component key begins with `prefix`, newest first."""
        tenant = self.cluster.get("namespace", namespace)["metadata"]["uid"]
        result: list[Object] = []
        cursor = ""
        while True:
            page = self.ask(f"/v1/startups?tenant={tenant}&limit=500{f'&cursor={cursor}' if cursor else ''}")
            result += [item for item in page["items"] if item["component_key"].startswith(prefix)]
            cursor = page["next_cursor"]
            if not cursor:
                return result


def namespace(cluster: NodeCluster, name: str) -> None:
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})


def installed(cluster: NodeCluster, say: Callable[[str], None]) -> InstalledRelease:
    namespace(cluster, NAMESPACE)
    began = time.monotonic()
    install = ("upgrade", "--install") if ENVIRONMENT.get("METAGATE_E2E_KEEP") else ("install",)
    cluster.helm(*install, NAME, str(CHART), "-n", NAMESPACE, "--wait", "--timeout", "3m")
    cluster.rolled_out(NAMESPACE, *WORKLOADS)
    seconds = time.monotonic() - began
    say(f"helm install to everything Ready {seconds:.1f} s")
    watcher(cluster)
    return InstalledRelease(cluster, seconds)


def script(cluster: NodeCluster, where: str, name: str) -> None:
    data = {name: (HERE / name).read_text()}
    metadata = {"name": Path(name).stem, "namespace": where}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def pod(
    name: str,
    where: str,
    account: str,
    command: list[str],
    *,
    scripts: str = "",
    audience: str = "metagate",
    **extra: str,
) -> Object:
    """A restricted pod with a projected token and MetaGate's address."""
    environment = {
        "METAGATE_URL": f"http://{NAME}.{NAMESPACE}:8000",
        "METAGATE_TOKEN_FILE": "/var/run/secrets/metagate/token",
        "METAGATE_COMPONENT_KEY": name,
        **extra,
    }
    token = {"serviceAccountToken": {"audience": audience, "expirationSeconds": 3600, "path": "token"}}
    volumes: list[Object] = [
        {"name": "token", "projected": {"sources": [token]}},
        {"name": "tmp", "emptyDir": {}},
    ]
    mounts: list[Object] = [
        {"name": "token", "mountPath": "/var/run/secrets/metagate", "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    if scripts:
        volumes.append({"name": "scripts", "configMap": {"name": scripts}})
        mounts.append({"name": "scripts", "mountPath": "/scripts"})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": where},
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": volumes,
            "containers": [
                {
                    "name": "main",
                    "image": IMAGE,
                    "command": command,
                    "env": [{"name": key, "value": value} for key, value in environment.items()],
                    "volumeMounts": mounts,
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


def declared(kind: str, name: str, where: str, spec: Object) -> Object:
    metadata = {"name": name, "namespace": where}
    return {"apiVersion": "metagate.legivellum.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def account(name: str, where: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": where}}


def watcher(cluster: NodeCluster) -> None:
    """An observer of every tenant: a Principal of the system namespace with scope Cluster, and a pod that speaks as it."""
    script(cluster, NAMESPACE, "ask.py")
    subjects = [{"serviceAccount": {"name": "watcher"}}]
    cluster.apply(
        account("watcher", NAMESPACE),
        declared("Principal", "watcher", NAMESPACE, {"type": "observer", "scope": "Cluster", "subjects": subjects}),
        pod("watcher", NAMESPACE, "watcher", ["python3", "/scripts/ask.py", "--stay"], scripts="ask"),
    )
    cluster.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/watcher", "--timeout=60s")
    cluster.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "principal/watcher", "--timeout=30s")


@dataclass(frozen=True)
class PodLoad:
    """Pods' behaviour in a loop: boot, report READY, again; and what became of it."""

    cluster: NodeCluster

    def counts(self) -> dict[str, int]:
        """Stops the loop, lets it ask for every startup it was told of, and returns what it counted."""
        self.cluster.kubectl("-n", AGENTS, "exec", "courier-load", "--", "touch", "/tmp/stop")
        self.cluster.kubectl(
            "-n", AGENTS, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/courier-load", "--timeout=120s"
        )
        last = self.cluster.logs(AGENTS, "courier-load").strip().splitlines()[-1]
        self.cluster.kubectl("-n", AGENTS, "delete", "pod", "courier-load", "--now")
        result: dict[str, int] = json.loads(last)
        return result

    def running(self) -> bool:
        return "booting" in self.cluster.logs(AGENTS, "courier-load")


def loop(cluster: NodeCluster) -> PodLoad:
    """Starts one; it boots as the example `courier` does."""
    script(cluster, AGENTS, "load.py")
    cluster.apply(pod("courier-load", AGENTS, "courier", ["python3", "/scripts/load.py"], scripts="load"))
    cluster.kubectl("-n", AGENTS, "wait", "--for=condition=Ready", "pod/courier-load", "--timeout=60s")
    load = PodLoad(cluster)
    eventually(load.running, within=30)
    return load


def undisturbed(counts: dict[str, int]) -> None:
    """Nothing failed, was lost or broke; a boot in fifty may be told to come again, which a starved machine does by itself."""
    assert {name: counts[name] for name in ("failed", "lost", "retried_connection")} == {
        "failed": 0, "lost": 0, "retried_connection": 0,
    }  # fmt: skip
    assert counts["retried_503"] <= counts["booted"] / 50
