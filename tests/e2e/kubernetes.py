"""The cluster that the tests use: a node started here, or any other one through USE_EXISTING_CLUSTER."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ENVIRONMENT = os.environ  # noqa: TID251 - which cluster, and its PATH
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECIPE = ROOT / "tests" / "cluster" / "cluster"
CACHE = Path(
    ENVIRONMENT.get("CLUSTER_HOME")
    or Path(ENVIRONMENT.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "legivellum-cluster"
)
RUN = Path(ENVIRONMENT.get("CLUSTER_RUN") or CACHE / "node")
NODE = {
    **ENVIRONMENT,
    "CLUSTER_RUN": str(RUN),
    "CLUSTER_API_PORT": ENVIRONMENT.get("CLUSTER_API_PORT", "17443"),
    "CLUSTER_NETNS": ENVIRONMENT.get("CLUSTER_NETNS", "metagate-e2e"),
}

Object = dict[str, Any]
T = TypeVar("T")


class CommandFailed(AssertionError):  # noqa: N818
    """A command ended with another code than 0; the message is what it said."""


@dataclass(frozen=True)
class NodeCluster:
    prefix: tuple[str, ...]
    environment: Mapping[str, str]

    def run(self, *command: str, feed: str | None = None, within: float = 240) -> str:
        done = subprocess.run(
            [*self.prefix, *command],
            input=feed,
            text=True,
            capture_output=True,
            check=False,
            env=dict(self.environment),
            timeout=within,
        )
        if done.returncode:
            raise CommandFailed(f"{' '.join(command)[:300]}\n{done.stderr}\n{done.stdout}"[:8000])
        return done.stdout

    def kubectl(self, *arguments: str, feed: str | None = None, within: float = 240) -> str:
        return self.run("kubectl", *arguments, feed=feed, within=within)

    def helm(self, *arguments: str, within: float = 240) -> str:
        return self.run("helm", *arguments, within=within)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *objects: Object) -> str:
        return self.kubectl("apply", "-f", "-", feed="\n---\n".join(json.dumps(obj) for obj in objects))

    def refused(self, *arguments: str, feed: str | None = None) -> str:
        """What kubectl says when it must not succeed."""
        try:
            output = self.kubectl(*arguments, feed=feed)
        except CommandFailed as failed:
            return str(failed)
        raise AssertionError(f"this should have been refused: {output}")

    def rolled_out(self, namespace: str, *workloads: str, within: int = 120) -> None:
        for workload in workloads:
            self.kubectl("-n", namespace, "rollout", "status", workload, f"--timeout={within}s")

    def logs(self, namespace: str, of: str, *arguments: str) -> str:
        return self.kubectl("-n", namespace, "logs", of, *arguments)


def eventually(ask: Callable[[], T], *, within: float = 60, every: float = 0.5) -> T:
    """The first true answer; an AssertionError of the question is asked again until the time is up."""
    deadline = time.monotonic() + within
    while True:
        try:
            answer = ask()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        else:
            if answer or time.monotonic() > deadline:
                assert answer, f"not within {within} s"
                return answer
        time.sleep(every)


def start_node(say: Callable[[str], None]) -> NodeCluster:
    """Images built, node up, images loaded, one volume for whoever claims it."""
    began = time.monotonic()
    if (RUN / "pids").exists() and not ENVIRONMENT.get("METAGATE_E2E_KEEP"):
        _recipe("down")
    archives = subprocess.run(
        [str(HERE / "prerequisites")], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()
    say(f"images and packages {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    if not (RUN / "pids").exists():
        _recipe("up")
    say(f"node up {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    _recipe("load", *archives)
    say(f"images loaded {time.monotonic() - began:.0f} s")
    cluster = NodeCluster((str(RECIPE), "exec"), NODE)
    volume(cluster, "trial")
    return cluster


def volume(cluster: NodeCluster, name: str) -> None:
    """What a storage class would provide: nothing provides volumes on this node."""
    directory = RUN / "volumes" / name
    directory.mkdir(parents=True, exist_ok=True)
    os.chown(directory, 65532, 65532)
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": str(directory)},
    }
    cluster.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec})


def inside_node(*command: str) -> list[str]:
    """The command that runs another one in the network of the node."""
    return [str(RECIPE), "exec", *command]


@contextmanager
def enforcing_policies(cluster: NodeCluster) -> Iterator[None]:
    """NetworkPolicies are enforced for as long as the block runs, for every pod of the node."""
    log = RUN / "kube-router.log"
    with log.open("w") as output, subprocess.Popen(
        inside_node("kube-router", f"--kubeconfig={RUN / 'kubeconfig'}", "--hostname-override=node1", "--run-firewall=true", "--run-router=false",
                    "--run-service-proxy=false", "--service-cluster-ip-range=10.96.0.0/16", "--health-port=0"),
        env=NODE, stdout=output, stderr=subprocess.STDOUT,
    ) as enforcer:  # fmt: skip
        try:
            yield
            assert enforcer.poll() is None, log.read_text()[-2_000:]
        finally:
            enforcer.terminate()
    cluster.run("sh", "-ec", "iptables-save | grep -vE 'KUBE-(ROUTER|POD-FW|NWPLCY)' | iptables-restore")


def stop_node() -> None:
    if not ENVIRONMENT.get("METAGATE_E2E_KEEP"):
        _recipe("down")


def _recipe(*arguments: str) -> None:
    subprocess.run([str(RECIPE), *arguments], check=True, env=NODE, stdout=subprocess.DEVNULL, timeout=900)
