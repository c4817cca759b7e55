"""Runs helm over the chart and hands back what it renders."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "metagate"
ENVIRONMENT = os.environ  # noqa: TID251 - which helm, and its PATH
RELEASE, NAMESPACE = "mg", "metagate-system"
NAME = "mg-metagate"

Object = dict[str, Any]

EXTERNAL: Mapping[str, Any] = {
    "trial": {"enabled": False},
    "external": {
        "enabled": True,
        "host": "pg-rw.databases",
        "caSecret": "pg-ca",
        "owner": {"existingSecret": "pg-owner"},
        "publisher": {"existingSecret": "pg-publisher"},
        "api": {"existingSecret": "pg-api"},
    },
}

MATRIX: Mapping[str, Mapping[str, Any]] = {
    "defaults": {},
    "external database": {"database": EXTERNAL},
    "external database behind a pooler": {
        "database": {**EXTERNAL, "external": {**EXTERNAL["external"], "poolerHost": "pooler", "poolerPort": 6432}}
    },
    "nothing optional": {
        "admission": {"enabled": False},
        "tokenIssuer": {"create": False},
        "networkPolicy": {"enabled": False},
        "crds": {"hook": False},
        "tests": {"enabled": False},
        "api": {"maxUnavailable": 0, "drainSeconds": 0},
        "database": {"trial": {"persistent": False}},
    },
    "everything optional": {
        "fullnameOverride": "bootstrap-authority",
        "commonLabels": {"team": "platform"},
        "imagePullSecrets": ["registry"],
        "image": {"repository": "registry.example.com/metagate", "tag": "1.2.3", "pullPolicy": "Always"},
        "operator": {
            "replicas": 2,
            "debug": True,
            "extraEnv": [{"name": "METAGATE_BRAKE_SHARE", "value": "0.5"}],
            "priorityClassName": "system-cluster-critical",
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "control-plane", "operator": "Exists", "effect": "NoSchedule"}],
            "podLabels": {"sidecar": "no"},
            "podAnnotations": {"example.com/a": "b"},
            "serviceAccountAnnotations": {"example.com/role": "c"},
        },
        "admission": {
            "failurePolicy": "Fail",
            "certificates": {"mode": "cert-manager"},
            "namespaceSelector": {"matchLabels": {"tenants": "yes"}},
        },
        "api": {
            "workers": 2,
            "tls": {"secretName": "api-tls"},
            "signing": {"secretName": "packet-signing"},
            "tracing": {"endpoint": "http://collector.observability:4318"},
            "service": {"type": "LoadBalancer", "port": 443, "annotations": {"example.com/lb": "internal"}},
            "autoscaling": {"enabled": True},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
            ],
        },
        "console": {"enabled": True, "secretName": "console-cookies", "sessionMinutes": 60},
        "ledger": {"url": "https://memorygate.ledger:8443/base"},
        "hs256": {"secretName": "hs256", "audience": "metagate", "namespaces": ["team-a", "team-b"]},
        "networkPolicy": {
            "issuers": [{"to": [{"ipBlock": {"cidr": "192.0.2.10/32"}}], "port": 443}],
            "apiServer": [{"ipBlock": {"cidr": "198.51.100.1/32"}}],
            "apiServerPorts": [6443],
            "tracing": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}}],
        },
        "monitoring": {
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": True},
            "dashboard": {"enabled": True},
        },
        "database": {"trial": {"storageClassName": "fast", "size": "10Gi", "keepData": False}},
    },
    "watching two namespaces": {"operator": {"namespaces": ["team-a", "team-b"]}},
    "one cell of several": {
        "operator": {"namespaceSelector": {"cell": "a", "example.com/env": "prod"}},
        "tokenIssuer": {"create": False},
    },
    "certificates brought along": {
        "admission": {"certificates": {"mode": "secret", "secretName": "webhook-tls", "caBundle": "PEM"}}
    },
    "a service monitor": {"monitoring": {"serviceMonitor": {"enabled": True}}},
}


class RenderingRefused(Exception):  # noqa: N818
    """Helm did not render; the message is what it said."""


def find_helm() -> str | None:
    """The one that the test cluster was built with, else the one in PATH."""
    return find_tool("helm")


def find_tool(name: str) -> str | None:
    cache = ENVIRONMENT.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    home = Path(ENVIRONMENT.get("CLUSTER_HOME") or Path(cache) / "legivellum-cluster")
    built = sorted(home.glob(f"v*/{name}"))
    return str(built[-1]) if built else shutil.which(name)


@dataclass(frozen=True)
class Chart:
    helm: str
    _rendered: dict[str, list[Object]] = field(default_factory=dict)

    def run(self, *arguments: str) -> str:
        with tempfile.TemporaryDirectory() as home:
            done = subprocess.run(
                [self.helm, *arguments],
                check=False,
                capture_output=True,
                text=True,
                env={"PATH": ENVIRONMENT["PATH"], "HOME": home, "KUBECONFIG": "/dev/null"},
            )
        if done.returncode:
            raise RenderingRefused(done.stderr + done.stdout)
        return done.stdout

    def render(self, values: Mapping[str, Any] | None = None, *arguments: str) -> list[Object]:
        key = repr((values, arguments))
        if key not in self._rendered:
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                yaml.safe_dump(plain(values or {}), file)
                file.flush()
                text = self.run(
                    "template", RELEASE, str(CHART), "-n", NAMESPACE, "--include-crds", "-f", file.name, *arguments
                )
            self._rendered[key] = [document for document in yaml.safe_load_all(text) if document]
        return self._rendered[key]


def plain(value: Any) -> Any:
    return {key: plain(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    return {obj["metadata"]["name"]: obj for obj in objects if obj["kind"] == kind}


def pods(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """(name of the owner, the pod's metadata, its spec) of everything that makes pods."""
    for obj in objects:
        name = f"{obj['kind']}/{obj['metadata']['name']}"
        if obj["kind"] == "Pod":
            yield name, obj["metadata"], obj["spec"]
        elif "template" in (obj.get("spec") or {}):
            yield name, obj["spec"]["template"]["metadata"], obj["spec"]["template"]["spec"]


def containers(spec: Object) -> list[Object]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def environment(container: Object) -> dict[str, Any]:
    """Values by name; a reference to a Secret as (secret, key)."""
    result: dict[str, Any] = {}
    for item in container.get("env", []):
        reference = item.get("valueFrom", {}).get("secretKeyRef")
        result[item["name"]] = (reference["name"], reference["key"]) if reference else item.get("value")
    return result
