"""Tokens of a real API server boot against a served gate: offline, through a rotation of its keys, and no other ones."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.cluster.control_plane import Cluster, eventually, is_free
from tests.integration.api.gate_fixture import settings_for
from tests.integration.api.processes import started, wait_for
from tests.operator.machinery import Operator, Tenancy

from legivellum.identity.caller import AuthFailure, FailureReason
from legivellum.identity.tokens import TokenVerifier, Verified
from metagate_api.server import serving
from metagate_store.reader import Reader

pytestmark = pytest.mark.cluster
ENVIRONMENT = dict(os.environ)  # noqa: TID251 - handed on, not read
POD_IMAGE = "registry.k8s.io/pause:3.10"


class Mesh:
    """A tenant's service account that may boot, and the gate it boots at."""

    def __init__(self, tenancy: Tenancy, url: str) -> None:
        self.tenancy, self.url = tenancy, url
        self.client = httpx.AsyncClient(base_url=url, timeout=10, trust_env=False)

    def token(
        self, account: str = "indexer", *, namespace: str | None = None, audience: str = "metagate", **more: str
    ) -> str:
        options = [f"--{name.replace('_', '-')}={value}" for name, value in more.items()]
        done = self.tenancy.kubectl.run(
            "create", "token", account, "-n", namespace or self.tenancy.namespace, f"--audience={audience}", *options
        )
        return done.stdout.strip()

    async def boot(self, token: str) -> tuple[int, Any]:
        answer = await self.client.post(
            "/v1/bootstrap", json={"component_key": "indexer_1"}, headers={"authorization": f"Bearer {token}"}
        )
        return answer.status_code, answer.json()

    async def boots(self, token: str, status: int = 200, code: str | None = None, seconds: float = 25) -> Any:
        """The answer, once it is this one."""
        deadline = time.monotonic() + seconds
        while True:
            result, body = await self.boot(token)
            if (result, body.get("code")) == (status, code):
                return body
            assert time.monotonic() < deadline, (result, body)
            await asyncio.sleep(0.1)

    def suspend(self, suspended: bool) -> None:
        patch = json.dumps({"spec": {"suspended": suspended}})
        self.tenancy.kubectl.run(
            "patch", "principal", "indexer", "-n", self.tenancy.namespace, "--type=merge", "-p", patch
        )

    async def verifier(self) -> TokenVerifier:
        """A verifier that believes what the database holds now."""
        reader = await Reader.connect(self.tenancy.database.api, size=1)
        try:
            made = TokenVerifier(audiences=("metagate",))
            made.apply(await reader.credentials(0))
            return made
        finally:
            await reader.close()


@pytest_asyncio.fixture(loop_scope="session")
async def mesh(tenancy: Tenancy) -> AsyncIterator[Mesh]:
    """The operator runs as the cluster's administrator, whose credential survives the rotation of signing keys."""
    kubectl = tenancy.kubectl
    for name in ("indexer", "nobody"):
        kubectl.run("create", "serviceaccount", name, "-n", tenancy.namespace)
    issuer = tenancy.resource("TokenIssuer", "cluster", {"audiences": ["metagate"], "jwks": {"source": "Cluster"}})
    principal, *rest = tenancy.world()
    principal["spec"]["subjects"] = [{"serviceAccount": {"name": "indexer"}}]
    kubectl.apply(issuer, principal, *rest)
    with Operator.running(tenancy, kubeconfig=str(kubectl.kubeconfig)):
        async with serving(settings_for(tenancy.database, jwt_secret=None)) as url:
            made = Mesh(tenancy, url)
            await made.boots(made.token())
            yield made
            await made.client.aclose()


def claims_of(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    result: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return result


@contextlib.contextmanager
def api_server_frozen(cluster: Cluster) -> Iterator[None]:
    """The API server does not answer anything for the time of the block."""
    pid = api_server(cluster)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def api_server(cluster: Cluster) -> int | None:
    """Its process; None when it ended."""
    if cluster.run_directory is None:
        pytest.skip("an API server that was there before is neither stopped nor restarted")
    for pid in map(int, (cluster.run_directory / "pids").read_text().split()):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].endswith(b"kube-apiserver"):
                return pid
    return None


async def refusals(mesh: Mesh, tokens: dict[str, tuple[str, int, str]]) -> dict[str, tuple[int, str]]:
    wrong = {}
    for name, (token, status, code) in tokens.items():
        result, body = await mesh.boot(token)
        if (result, body.get("code")) != (status, code):
            wrong[name] = (result, body.get("code", ""))
    return wrong


@pytest.mark.invariant("INV-003", "INV-004", "INV-024", "INV-025")
async def test_tokens_of_the_cluster_boot_and_no_others(mesh: Mesh) -> None:
    """A token for this audience boots; one for another audience, of another account or namespace, or of a suspended
    Principal does not; and all of it is the same while the API server answers nobody.
    """
    good, fresh = mesh.token(), mesh.token()
    bad = {
        "another audience": (mesh.token(audience="memorygate"), 401, "CREDENTIAL_INVALID"),
        "the API server's audience": (
            mesh.token(audience="https://kubernetes.default.svc.cluster.local"),
            401,
            "CREDENTIAL_INVALID",
        ),
        "an account that nobody declared": (mesh.token("nobody"), 403, "PRINCIPAL_UNKNOWN"),
        "the same name in another namespace": (mesh.token("default", namespace="default"), 403, "PRINCIPAL_UNKNOWN"),
        "longer than the issuer allows": (mesh.token(duration="2h"), 401, "CREDENTIAL_INVALID"),
    }
    sessions = (await mesh.tenancy.rows("SELECT count(*) AS n FROM metagate.startup"))[0]["n"]
    assert await refusals(mesh, bad) == {}
    assert (await mesh.tenancy.rows("SELECT count(*) AS n FROM metagate.startup"))[0]["n"] == sessions
    with api_server_frozen(mesh.tenancy.cluster):
        assert (await mesh.boot(good))[0] == 200
        assert (await mesh.boot(fresh))[0] == 200  # never seen before: verified without asking anybody
        assert await refusals(mesh, bad) == {}
    mesh.suspend(True)
    await mesh.boots(good, 403, "PRINCIPAL_SUSPENDED")
    with api_server_frozen(mesh.tenancy.cluster):
        assert (await mesh.boot(fresh))[0] == 403
    mesh.suspend(False)
    await mesh.boots(good)


async def test_a_real_token_expires_and_names_its_pod(mesh: Mesh) -> None:
    """A pod-bound token leaves its pod on the startup row; past its exp and the leeway a real token is refused."""
    namespace = mesh.tenancy.namespace
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "indexer-0", "namespace": namespace},
        "spec": {"serviceAccountName": "indexer", "containers": [{"name": "c", "image": POD_IMAGE}]},
    }
    mesh.tenancy.kubectl.apply(pod)
    uid = mesh.tenancy.kubectl.get("pod", "indexer-0", "-n", namespace)["metadata"]["uid"]
    token = mesh.token(bound_object_kind="Pod", bound_object_name="indexer-0", bound_object_uid=uid, duration="10m")
    status, body = await mesh.boot(token)
    assert status == 200, body
    [row] = await mesh.tenancy.rows(
        "SELECT pod_uid, pod_name FROM metagate.startup WHERE startup_id = $1", body["startup"]["startup_id"]
    )
    assert row == {"pod_uid": uid, "pod_name": "indexer-0"}
    verifier = await mesh.verifier()
    expires = claims_of(token)["exp"]
    for seconds, believed in ((-10, True), (29, True), (31, False)):
        token_claims = verifier.verify(token.encode(), expires + seconds)
        assert isinstance(token_claims, Verified) is believed
        assert believed or (isinstance(token_claims, AuthFailure) and token_claims.reason is FailureReason.EXPIRED)


async def test_a_real_token_is_refused_when_its_time_is_over(mesh: Mesh, tmp_path: Path) -> None:
    """At a served gate whose clock is eleven minutes ahead a token of ten minutes is 401 and one of fifty boots.

    No API server gives tokens for less than ten minutes, so it is the gate that travels.
    """
    short, long = mesh.token(duration="10m"), mesh.token(duration="50m")
    (tmp_path / "sitecustomize.py").write_text("import time\nnow = time.time\ntime.time = lambda: now() + 660\n")
    with started(mesh.tenancy.database, PYTHONPATH=str(tmp_path)) as (process, port):
        wait_for(port, process, "/readyz")
        travelled = Mesh(mesh.tenancy, f"http://127.0.0.1:{port}")
        assert (await mesh.boot(short))[0] == 200
        status, body = await travelled.boot(short)
        assert (status, body["code"]) == (401, "CREDENTIAL_EXPIRED")
        assert (await travelled.boot(long))[0] == 200
        await travelled.client.aclose()


async def test_a_recreated_namespace_inherits_nothing(mesh: Mesh) -> None:
    """A token of the namespace's predecessor is refused although account, names and signature are the same (D-46)."""
    tenancy, kubectl = mesh.tenancy, mesh.tenancy.kubectl
    old = mesh.token()
    assert (await mesh.boot(old))[0] == 200
    kubectl.run("delete", "namespace", tenancy.namespace, "--timeout=90s", timeout=100)
    await mesh.boots(old, 403, "PRINCIPAL_UNKNOWN")
    kubectl.run("create", "namespace", tenancy.namespace)
    kubectl.run("create", "serviceaccount", "indexer", "-n", tenancy.namespace)
    principal, *rest = tenancy.world()
    principal["spec"]["subjects"] = [{"serviceAccount": {"name": "indexer"}}]
    kubectl.apply(principal, *rest)
    await mesh.boots(mesh.token())
    status, body = await mesh.boot(old)
    assert (status, body["code"]) == (401, "CREDENTIAL_INVALID")
    assert "before its namespace" in body["detail"]


@pytest.mark.slow
async def test_rotation_overlaps_and_the_old_key_retires(mesh: Mesh) -> None:
    """The API server restarts with a second signing key: old and new tokens boot; once the old key retires, its do not."""
    cluster = mesh.tenancy.cluster
    old = mesh.token()
    before = api_server(cluster)
    run = cluster.run_directory
    assert run is not None
    arguments = Path(f"/proc/{before}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    subprocess.run(["openssl", "genrsa", "-out", str(run / "pki/sa2.key"), "2048"], check=True, capture_output=True)
    subprocess.run(
        ["openssl", "rsa", "-in", str(run / "pki/sa2.key"), "-pubout", "-out", str(run / "pki/sa2.pub")],
        check=True,
        capture_output=True,
    )
    at = arguments.index("--service-account-signing-key-file")
    both = [*arguments[: at + 1], "pki/sa2.key", *arguments[at + 2 :], "--service-account-key-file", "pki/sa2.pub"]
    at = arguments.index("--service-account-key-file")
    second = [*both[:at], *both[at + 2 :]]
    try:
        restart(cluster, both)
        new = eventually(mesh.token, timeout=30)
        await mesh.boots(new)
        assert (await mesh.boot(old))[0] == 200
        restart(cluster, second)
        kid = json.loads(base64.urlsafe_b64decode(old.split(".")[0] + "=="))["kid"]
        await missed(mesh, kid)
        await mesh.boots(old, 401, "CREDENTIAL_INVALID", seconds=45)
        assert (await mesh.boot(new))[0] == 200
    finally:
        restart(cluster, arguments)


async def missed(mesh: Mesh, kid: str) -> None:
    """As if the key had been missed twice in more than ten minutes: the policy's own times have their own tests."""
    changed = await mesh.tenancy.rows(
        "UPDATE metagate.issuer_key SET misses = 2, last_seen = now() - interval '11 minutes' WHERE kid = $1 "
        "RETURNING 1 AS n",
        kid,
    )
    assert changed == [{"n": 1}]


def restart(cluster: Cluster, arguments: list[str]) -> None:
    """The API server with these arguments instead of the one that runs.

    A killed process looks ended (a zombie) as soon as its first thread is; its port is taken until the last of its
    threads is gone. The next API server waits for nobody: it ends when it cannot listen.
    """
    run = cluster.run_directory
    assert run is not None
    before = api_server(cluster)
    if before is not None:
        os.kill(before, signal.SIGKILL)  # asked politely it waits a minute for its watchers
        port = int(cluster.server.rpartition(":")[2])
        eventually(lambda: ended(before) and is_free(port), timeout=30)
    started = spawned(run, arguments)
    with contextlib.suppress(AssertionError):
        eventually(lambda: answers(cluster) or ended(started), timeout=60)
    assert answers(cluster), f"the API server does not start: {(run / 'kube-apiserver.log').read_text()[-3000:]}"


def spawned(run: Path, arguments: list[str]) -> int:
    log = os.open(run / "kube-apiserver.log", os.O_WRONLY | os.O_APPEND)
    streams = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    # Not subprocess: like every process of the cluster it outlives this test and is ended by `cluster down`.
    command = ["env", "-C", str(run), *arguments]
    started = os.posix_spawnp("env", command, ENVIRONMENT, file_actions=streams, setsid=True)
    os.close(log)
    living = [pid for pid in (run / "pids").read_text().split() if not ended(int(pid))]
    (run / "pids").write_text("\n".join([*living, str(started)]) + "\n")
    return started


def answers(cluster: Cluster) -> bool:
    return cluster.kubectl.run("get", "--raw", "/readyz", check=False).returncode == 0


def ended(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
