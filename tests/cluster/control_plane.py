"""A Kubernetes API server for the suite: found, or started from the recipe beside this file, and stopped again."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

RECIPE = Path(__file__).parent / "cluster"
ROOT = Path(__file__).parents[2]
VERSION = next(
    line.split()[1]
    for line in (RECIPE.parent / "kubernetes/go.mod").read_text().splitlines()
    if line.strip().startswith("k8s.io/kubernetes v")
)


class NoCluster(Exception):  # noqa: N818 - it names a state
    """There is no API server here; the message is the one loud line of the run."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """`kubectl` as one user of one cluster."""

    binary: str
    kubeconfig: Path

    def run(
        self, *arguments: str, stdin: object = None, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        text = None if stdin is None else stdin if isinstance(stdin, str) else manifests(stdin)
        done = subprocess.run(
            [self.binary, "--kubeconfig", str(self.kubeconfig), *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}\n{done.stdout.strip()}")
        return done

    def apply(self, *objects: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("apply", "-f", "-", stdin=list(objects), check=check)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.run("get", *arguments, "-o", "json").stdout)


@dataclass(frozen=True, slots=True)
class Cluster:
    """One API server, as its administrator. `run_directory` is None for a cluster that was there before."""

    kubectl: Kubectl
    server: str
    run_directory: Path | None

    @property
    def audit_log(self) -> Path | None:
        log = None if self.run_directory is None else self.run_directory / "audit.log"
        return log if log is not None and log.exists() else None

    def service_account(self, namespace: str, name: str, *, duration: str = "2h") -> Kubectl:
        """`kubectl` as a service account, with a token of its own: its kubeconfig is what the account's pod would be
        able to do.
        """
        token = self.kubectl.run("create", "token", "-n", namespace, name, f"--duration={duration}").stdout.strip()
        return self.with_token(token, name=f"{namespace}-{name}")

    def with_token(self, token: str, *, name: str) -> Kubectl:
        config = yaml.safe_load(self.kubectl.kubeconfig.read_text())
        context = next(
            context["context"] for context in config["contexts"] if context["name"] == config["current-context"]
        )
        context["user"] = name
        config["users"] = [{"name": name, "user": {"token": token}}]
        path = self.kubectl.kubeconfig.parent / f"{name}-{secrets.token_hex(4)}.kubeconfig"
        path.touch(0o600)
        path.write_text(yaml.safe_dump(config))
        return Kubectl(self.kubectl.binary, path)


def manifests(objects: object) -> str:
    return yaml.safe_dump_all(objects if isinstance(objects, list | tuple) else [objects])


def start(run_directory: Path, *, environment: Mapping[str, str], audit_policy: Path | None = None) -> Cluster:
    """The cluster of the environment, or one of our own with its files in `run_directory`.

    Raises:
        NoCluster: there is none to be had; says what would provide one.

    """
    if environment.get("USE_EXISTING_CLUSTER", "").lower() == "true":
        return _existing(Path(environment.get("KUBECONFIG", Path.home() / ".kube/config")))
    _binaries(environment)
    port = free_ports(4)
    settings = {**environment, "CLUSTER_RUN": str(run_directory), "CLUSTER_API_PORT": str(port), **_go(environment)}
    if audit_policy is not None:
        settings["CLUSTER_AUDIT_POLICY"] = str(audit_policy)
    done = subprocess.run(
        [str(RECIPE), "up", "--control-plane"],
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        logs = "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in sorted(run_directory.glob("*.log")))
        stop(run_directory, environment)
        raise AssertionError(f"the control plane did not start:\n{done.stdout}\n{logs}")
    return Cluster(
        Kubectl(str(_bin(environment) / "kubectl"), run_directory / "kubeconfig"),
        f"https://127.0.0.1:{port}",
        run_directory,
    )


def stop(run_directory: Path, environment: Mapping[str, str]) -> None:
    """End what `start` started; leaves nothing behind."""
    subprocess.run(
        [str(RECIPE), "down"], env={**environment, "CLUSTER_RUN": str(run_directory)}, check=False, capture_output=True
    )


def _existing(kubeconfig: Path) -> Cluster:
    binary = shutil.which("kubectl")
    if binary is None:
        raise NoCluster("USE_EXISTING_CLUSTER is set, but there is no kubectl in PATH")
    config = yaml.safe_load(kubeconfig.read_text())
    return Cluster(Kubectl(binary, kubeconfig), config["clusters"][0]["cluster"]["server"], None)


def _bin(environment: Mapping[str, str]) -> Path:
    if assets := environment.get("KUBEBUILDER_ASSETS"):
        return Path(assets)
    cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(environment.get("CLUSTER_HOME") or cache / "legivellum-cluster") / VERSION


def _binaries(environment: Mapping[str, str]) -> None:
    missing = [name for name in ("etcd", "kube-apiserver", "kubectl") if not (_bin(environment) / name).exists()]
    if not missing:
        return
    if "KUBEBUILDER_ASSETS" in environment or not _has_go(environment):
        raise NoCluster(
            f"no {', '.join(missing)} in {_bin(environment)} and no Go to build them: run `make cluster-build`, or set KUBEBUILDER_ASSETS, or USE_EXISTING_CLUSTER=true with KUBECONFIG"
        )
    _build(environment, "--control-plane", NoCluster)


def binary(name: str, environment: Mapping[str, str], *, part: str, missing: type[Exception]) -> Path:
    """A binary of the recipe beside the cluster's: cached, or built now by `cluster build PART`.

    Raises:
        missing: there is none, and no Go to build it, or the build failed.

    """
    path = _bin(environment) / name
    if not path.exists():
        if "KUBEBUILDER_ASSETS" in environment or not _has_go(environment):
            raise missing(f"no {name} in {path.parent} and no Go to build it: run `make cluster-build`")
        _build(environment, part, missing)
    return path


def _has_go(environment: Mapping[str, str]) -> bool:
    return shutil.which("go", path=_go(environment)["PATH"]) is not None


def _build(environment: Mapping[str, str], part: str, missing: type[Exception]) -> None:
    built = subprocess.run(
        [str(RECIPE), "build", part],
        env={**environment, **_go(environment)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if built.returncode != 0:
        raise missing(f"`cluster build {part}` failed: {built.stdout.strip().splitlines()[-1:]}")


def _go(environment: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": f"{environment['PATH']}{os.pathsep}{ROOT / '.venv-go/go/bin'}"}


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now; connections that are only waiting to be forgotten do
    not count, as they do not for the server.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


def free_ports(count: int) -> int:
    """The first of `count` neighbouring ports that nobody listens on."""
    for _ in range(200):
        first = 20000 + secrets.randbelow(10000)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


def eventually(check: Any, *, timeout: float = 20, every: float = 0.05) -> Any:
    """The first true answer of `check`, asked again and again; an assertion error of its own, or "never", after
    `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            answer = check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            answer = None
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{getattr(check, '__name__', 'it')} never became true within {timeout} s")
        time.sleep(every)
