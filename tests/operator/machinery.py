"""Processes and people of the operator's suite: `metagate operator`, `metagate admission`, a tenant with a namespace
and a database.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import yaml
from tests.cluster.control_plane import ROOT, Cluster, Kubectl, eventually, free_ports
from tests.databases import Database

from metagate_crds.kinds import API_VERSION, KINDS
from metagate_operator.cluster.admission.webhook import webhook_configuration
from metagate_operator.cluster.rbac import ADMISSION, OPERATOR, WEBHOOK

SYSTEM = "metagate-system"
METAGATE = [sys.executable, "-m", "metagate_cli.main"]
CALENDAR = frozenset({"LD_PRELOAD", "CLOCK_OFFSET"})
"""What moves the clock of a process under `make test-calendar`."""
ALL_KINDS = ",".join(kind.plural for kind in KINDS.values() if kind.namespaced)


def audit_policy() -> str:
    """Record what our service accounts ask for, once each request is answered."""
    users = [f"system:serviceaccount:{SYSTEM}:{name}" for name in (OPERATOR, ADMISSION)]
    rules = [{"level": "Metadata", "users": users, "omitStages": ["RequestReceived"]}, {"level": "None"}]
    return yaml.safe_dump({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules})


def resource(kind: str, namespace: str, name: str, spec: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


@dataclass
class Tenancy:
    """A namespace and a database, and what is usually declared there."""

    cluster: Cluster
    database: Database
    namespace: str
    issuers: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, cluster: Cluster, database: Database) -> Tenancy:
        namespace = f"t-{secrets.token_hex(4)}"
        cluster.kubectl.run("create", "namespace", namespace)
        return cls(cluster, database, namespace)

    @property
    def kubectl(self) -> Kubectl:
        return self.cluster.kubectl

    def resource(self, kind: str, name: str, spec: Any) -> dict[str, Any]:
        if not KINDS[kind].namespaced:
            self.issuers.append(name)
        return resource(kind, self.namespace if KINDS[kind].namespaced else "", name, spec)

    def world(self, name: str = "indexer", **manifest: Any) -> list[dict[str, Any]]:
        """A Principal that may boot: with its Profile, Manifest and Binding."""
        return [
            self.resource("Principal", name, {"type": "component"}),
            self.resource("Profile", "worker", {"capabilities": {"index": True}, "startup": {"slaSeconds": 60}}),
            self.resource(
                "Manifest",
                "prod",
                {"deploymentKey": "default", "version": 1, "environment": {"tier": "prod"}, **manifest},
            ),
            self.binding(name),
        ]

    def binding(self, name: str, *, principal: str | None = None, **spec: Any) -> dict[str, Any]:
        return self.resource(
            "PrincipalBinding",
            name,
            {
                "principalRef": {"name": principal or name},
                "profileRef": {"name": "worker"},
                "manifestRef": {"name": "prod"},
                "components": ["*"],
                "active": True,
                **spec,
            },
        )

    def apply(self, *objects: object) -> None:
        self.kubectl.apply(*objects)

    def wait_ready(self, *what: str, condition: str = "condition=Ready", timeout: str = "20s") -> None:
        self.kubectl.run("wait", "-n", self.namespace, f"--for={condition}", f"--timeout={timeout}", *what)

    def get(self, kind: str, name: str) -> Any:
        return self.kubectl.get("-n", self.namespace, KINDS[kind].plural, name)

    def condition(self, kind: str, name: str, condition: str) -> dict[str, Any]:
        """The condition, once it speaks of the present generation."""

        def found() -> dict[str, Any] | None:
            body = self.get(kind, name)
            status = body.get("status", {})
            if status.get("observedGeneration") != body["metadata"]["generation"]:
                return None
            return next(
                (item for item in status["conditions"] if item["type"] == condition), {"status": "absent", "reason": ""}
            )

        return dict(eventually(found))

    async def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.database.superuser)
        try:
            return [dict(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    async def revision(self) -> int:
        return int(
            (await self.rows("SELECT coalesce(max(revision), 0) AS revision FROM metagate.revision"))[0]["revision"]
        )

    async def packet(self, principal: str = "indexer") -> dict[str, Any] | None:
        """The shared packet that the database holds for a principal."""
        rows = await self.rows(
            "SELECT body FROM metagate.packet JOIN metagate.binding USING (digest) JOIN metagate.tenant USING (tenant) "
            "WHERE principal_key = $1 AND namespace = $2",
            principal,
            self.namespace,
        )
        return json.loads(rows[0]["body"]) if rows else None

    def remove(self) -> None:
        for issuer in self.issuers:
            self.kubectl.run("delete", "tokenissuer", issuer, "--ignore-not-found", "--wait=false", check=False)
        self.kubectl.run("delete", ALL_KINDS, "--all", "-n", self.namespace, "--wait=false", check=False)
        self.kubectl.run("delete", "namespace", self.namespace, "--wait=false", check=False)


class OperatorProcess:
    """A process of ours, its log, and its end."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str]) -> None:
        self.log_path = Path(tempfile.mkstemp(prefix="metagate-process-", suffix=".log")[1])
        with self.log_path.open("wb") as log:
            self.popen = subprocess.Popen(
                [*METAGATE, *arguments], env=dict(environment), stdout=log, stderr=subprocess.STDOUT, cwd=ROOT
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def rss_megabytes(self) -> float:
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    @property
    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def logged(self, event: str) -> bool:
        return f'"{event}"' in self.log

    def wait(self, timeout: float = 20) -> int:
        return self.popen.wait(timeout)

    def terminate(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        self.log_path.unlink(missing_ok=True)


class Operator(OperatorProcess):
    """`metagate operator` under its service account."""

    def __init__(
        self,
        tenancy: Tenancy,
        *arguments: str,
        kubeconfig: str | None = None,
        dsn: str | None = None,
        **environment: str,
    ) -> None:
        self.port = free_port()
        kubeconfig = kubeconfig or str(tenancy.cluster.service_account(SYSTEM, OPERATOR).kubeconfig)
        super().__init__(
            ["operator", "--kubeconfig", kubeconfig, "--host", "127.0.0.1", "--port", str(self.port), *arguments],
            {**plain_environment(), "METAGATE_DATABASE_URL": dsn or tenancy.database.publisher, **environment},
        )

    @classmethod
    @contextlib.contextmanager
    def running(cls, tenancy: Tenancy, *arguments: str, **environment: str) -> Iterator[Operator]:
        process = cls(tenancy, *arguments, **environment)
        try:
            process.until_published()
            yield process
        except BaseException:
            sys.stderr.write(f"\n--- operator\n{process.log[-6000:]}\n")
            raise
        finally:
            process.close()

    def until_published(self) -> None:
        """Until its first full pass is committed."""

        def published() -> bool:
            assert self.popen.poll() is None, f"the operator ended: {self.log[-3000:]}"
            return self.metric("metagate_passes_total") >= 1

        eventually(published, timeout=30)

    def until_passes(self, more: int = 3, *, timeout: float = 30) -> None:
        """Until so many more passes ended, and the statuses that they decided are written. A pass that runs already
        counts: with two or more, at least one began after the call.
        """
        before = self.metric("metagate_passes_total")

        def passed() -> bool:
            return self.metric("metagate_passes_total") >= before + more and self.metric("metagate_status_waiting") == 0

        eventually(passed, timeout=timeout)

    def probe(self, path: str) -> tuple[int, str]:
        return fetch(f"http://127.0.0.1:{self.port}{path}")

    def metric(self, name: str) -> float:
        try:
            _, text = self.probe("/metrics")
        except OSError:
            return -1
        return sum(
            float(line.split()[-1]) for line in text.splitlines() if line.startswith(name) and line[len(name)] in " {"
        )


class Admission(OperatorProcess):
    """`metagate admission`, self-managed, under its service account, called by URL.

    It keeps the clock of the control plane: the API server verifies the certificate that this process makes, and one
    that is valid from a later day on would be refused until then.
    """

    def __init__(self, cluster: Cluster, *arguments: str, port: int | None = None, **environment: str) -> None:
        self.port = port or free_port()
        kubeconfig = str(cluster.service_account(SYSTEM, ADMISSION).kubeconfig)
        super().__init__(
            [
                "admission",
                "--kubeconfig",
                kubeconfig,
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
                "--name",
                "127.0.0.1",
                *arguments,
            ],
            {
                **plain_environment(left_out=CALENDAR),
                "METAGATE_ADMISSION_CHECK_SECONDS": "0.5",
                **environment,
            },
        )

    @classmethod
    @contextlib.contextmanager
    def running(
        cls, cluster: Cluster, *arguments: str, failure_policy: str = "Fail", **environment: str
    ) -> Iterator[Admission]:
        process = cls(cluster, *arguments, **environment)
        webhook = webhook_configuration(
            name=WEBHOOK, failure_policy=failure_policy, url=f"https://127.0.0.1:{process.port}"
        )
        try:
            cluster.kubectl.apply(webhook)
            eventually(lambda: answers(process.port) and trusted(cluster), timeout=20)
            yield process
        except BaseException:
            sys.stderr.write(f"\n--- admission\n{process.log[-6000:]}\n")
            raise
        finally:
            cluster.kubectl.run("delete", "validatingwebhookconfiguration", WEBHOOK, "--ignore-not-found")
            process.close()


def trusted(cluster: Cluster) -> bool:
    """The API server knows our CA and calls us: an invalid object is refused by the webhook."""
    probe = resource("Manifest", "default", "probe", {"deploymentKey": "d", "version": 1, "environment": {"tasks": []}})
    done = cluster.kubectl.run("apply", "--dry-run=server", "-f", "-", stdin=probe, check=False)
    return "is a forbidden key" in done.stderr


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def plain_environment(*, left_out: frozenset[str] = frozenset()) -> dict[str, str]:
    """The environment without what would configure a MetaGate or a kubectl."""
    kept = {"PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", *CALENDAR} - left_out
    return {name: value for name, value in os.environ.items() if name in kept}  # noqa: TID251 - handed on, not read


def free_port() -> int:
    """Below the ports that the kernel gives to outgoing connections: one of those could take it before it is used."""
    return free_ports(1)


def until_second_after(body: Mapping[str, Any]) -> None:
    """Until an object made now is younger than this one: creation times have whole seconds."""
    created = datetime.fromisoformat(body["metadata"]["creationTimestamp"])
    # A scripted API server dates objects by the clock of the tests, a real one by its own.
    own = abs(created - datetime.now(UTC)) < timedelta(hours=1)
    eventually(lambda: (datetime.now(UTC) if own else control_plane_time()) >= created + timedelta(seconds=1))


def control_plane_time() -> datetime:
    """What the API server's clock says: under `make test-calendar` it is behind that of the tests."""
    offset = os.environ.get("CLOCK_OFFSET", "0")  # noqa: TID251 - a setting of the tests
    return datetime.now(UTC) - timedelta(seconds=int(offset))


def now() -> float:
    return time.monotonic()
