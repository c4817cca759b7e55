"""`make bench-alternatives`: what a platform team would use instead, on the same machine, doing the same work.

The work is: read the configuration, leave a durable record. Three services are asked in turn over 64 connections that
stay open, so that whatever else the machine does hits all of them:

- MetaGate, by API key, with the Idempotency-Key that its client sends;
- kube-apiserver with etcd, fsync on (the real ones of tests/cluster): GET a ConfigMap that holds the same packet, then
  POST an Event. TLS, as it has no other door; the caller is of `system:masters`, whom no RBAC or flow control slows;
- FastAPI with SQLAlchemy as their tutorials recommend (`plain.py`), on the same PostgreSQL;

and pgbench with MetaGate's statement as the measure of the machine.
"""

import argparse
import asyncio
import base64
import json
import os
import shutil
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import asyncpg
import bootstraps
import console
import load
import machine
import setting
import uvloop
import yaml
from tests.cluster.control_plane import Cluster, start, stop

from metagate_crds.canonical_json import digest

RESULTS = Path(__file__).resolve().parent / "results" / "alternatives.json"
CONNECTIONS = 64
CONFIG = "/api/v1/namespaces/default/configmaps/worker"
EVENTS = "/api/v1/namespaces/default/events"


# ── kube-apiserver ───────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def kubernetes() -> Iterator[Cluster]:
    environment = {**os.environ, "CLUSTER_FSYNC": "yes"}  # noqa: TID251
    directory = Path(tempfile.mkdtemp(prefix="metagate-bench-"))
    try:
        cluster = start(directory, environment=environment)
        cluster.kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "worker", "namespace": "default"},
                "data": {"packet.json": setting.BODY.decode()},
            }
        )
        yield cluster
    finally:
        stop(directory, environment)
        shutil.rmtree(directory, ignore_errors=True)


class RequestPair(load.LoadConnection):
    """GET, then POST; what is counted is the pair, by the answer to the second."""

    def __init__(self, token: str, *rest: Any) -> None:
        head = f"Host: bench\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        self.get = f"GET {CONFIG} HTTP/1.1\r\n{head}\r\n".encode()
        self.post = f"POST {EVENTS} HTTP/1.1\r\n{head}Content-Length: %d\r\n\r\n%s"
        super().__init__(self.get, *rest)
        self.reading = True

    def ask(self) -> None:
        self.reading = True
        self.sent = time.perf_counter()
        self.transport.write(self.get)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not complete(self.buffer):
            return
        status, self.buffer = self.buffer[:12], b""
        if self.reading:
            assert status.endswith(b"200"), status
            self.reading = False
            body = event()
            self.transport.write((self.post % (len(body), body)).encode())
        else:
            super().data_received(status + b"\r\n\r\n")  # counts it and asks again


def complete(answer: bytes) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    at = head.lower().find(load.LENGTH)
    if at < 0:
        assert b"chunked" in head.lower(), head
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(head[at + len(load.LENGTH) :].partition(b"\r")[0])


def event() -> str:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"worker.{os.urandom(8).hex()}", "namespace": "default"},
            "involvedObject": {"apiVersion": "v1", "kind": "ConfigMap", "name": "worker", "namespace": "default"},
            "reason": "Booted",
            "message": "indexer_1 booted with sha256:" + "0" * 64,
            "type": "Normal",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": "indexer_1"},
        }
    )


def pairs(cluster: Cluster, seconds: float) -> load.Tally:
    config = yaml.safe_load(cluster.kubectl.kubeconfig.read_text())
    token = config["users"][0]["user"]["token"]
    context = ssl.create_default_context()
    authority = config["clusters"][0]["cluster"]
    if "certificate-authority" in authority:
        context.load_verify_locations(authority["certificate-authority"])
    else:
        context.load_verify_locations(cadata=base64.b64decode(authority["certificate-authority-data"]).decode())
    port = int(cluster.server.rpartition(":")[2])

    async def drive() -> load.Tally:
        loop = asyncio.get_running_loop()
        tally = load.Tally(seconds=seconds)
        start_at = time.perf_counter() + 1.5  # 64 handshakes are part of the warm-up
        done = [loop.create_future() for _ in range(CONNECTIONS)]
        for item in done:
            made = RequestPair(token, tally, start_at + seconds, start_at, item)
            await loop.create_connection(lambda made=made: made, "127.0.0.1", port, ssl=context)
        await asyncio.gather(*done)
        return tally

    tally = uvloop.run(drive())
    assert set(tally.statuses) == {201}, tally.statuses
    tally.statuses = {200: tally.statuses[201]}
    return tally


# ── FastAPI and SQLAlchemy ───────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def plain(on: setting.BenchServer, booters: list[setting.BenchPrincipal], *, workers: int) -> Iterator[int]:
    asyncio.run(_database(on))
    url = on.postgres.dsn("postgres", database="plain").replace("postgresql://", "postgresql+asyncpg://")
    port = setting.free_port()
    environment = {**os.environ, "DATABASE_URL": url, "PORT": str(port), "WORKERS": str(workers)}  # noqa: TID251
    os.environ["DATABASE_URL"] = url  # noqa: TID251 - read where it is imported
    import plain as service

    people = [(booter.name, booter.sha256) for booter in booters]
    asyncio.run(service.fill(digest(setting.BODY), json.loads(setting.BODY), people))
    program = [sys.executable, str(Path(__file__).resolve().parent / "plain.py")]
    process = subprocess.Popen(
        program,
        env=environment,
        cwd=Path(__file__).resolve().parent,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        setting._until_ready(port, process)  # noqa: SLF001 - the benchmark's own
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


async def _database(on: setting.BenchServer) -> None:
    connection = await asyncpg.connect(on.superuser)
    try:
        await connection.execute("CREATE DATABASE plain")
    finally:
        await connection.close()


# ── side by side ─────────────────────────────────────────────────────────────────────────────────────────────────────


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    tallies: dict[str, list[load.Tally]] = {"MetaGate": [], "kube-apiserver": [], "FastAPI + SQLAlchemy": []}
    reference = []
    with ExitStack() as stack:
        on = stack.enter_context(setting.base())
        booters = asyncio.run(setting.publish(on, 64))
        cluster = stack.enter_context(kubernetes())
        gate = stack.enter_context(setting.served(on, workers=arguments.workers))
        other = stack.enter_context(plain(on, booters, workers=arguments.workers))
        keyed, bare = ([booter.request(keyed=way) for booter in booters] for way in (True, False))
        for number in range(arguments.rounds):
            console.step(f"alternatives: round {number + 1} of {arguments.rounds}")
            for name, port, requests in (("MetaGate", gate, keyed), ("FastAPI + SQLAlchemy", other, bare)):
                tally = load.drive(
                    "127.0.0.1", port, requests, connections=CONNECTIONS, seconds=arguments.seconds, warm=1.0
                )
                assert set(tally.statuses) == {200}, tally.statuses
                tallies[name].append(tally)
            tallies["kube-apiserver"].append(pairs(cluster, arguments.seconds))
            reference.append(
                setting.pgbench(
                    on, booters, connections=CONNECTIONS, seconds=max(1, round(arguments.seconds)), keyed=True
                )
            )
    return {
        "rows": [bootstraps.BootstrapMeasurement(name, result, reference).as_row() for name, result in tallies.items()],
        "times": {
            name: round(
                statistics.median(
                    ours.rate / theirs.rate for ours, theirs in zip(tallies["MetaGate"], result, strict=True)
                ),
                1,
            )
            for name, result in tallies.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    result = {"machine": machine.described(), **vars(arguments), **measured(arguments)}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    console.table(
        f"The same work by others, {CONNECTIONS} connections, {arguments.rounds} rounds of {arguments.seconds} s",
        (*bootstraps.COLUMNS, "MetaGate is × as fast"),
        [[*bootstraps.row(row), result["times"][row["name"]]] for row in result["rows"]],
    )


if __name__ == "__main__":
    main()
