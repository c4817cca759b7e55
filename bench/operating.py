"""How fast a change in a cluster is served, and what that costs: `make bench-operator`, on a real kube-apiserver.

10,000 Bindings of 1,000 Principals with 50 Profiles and 50 Manifests; a PostgreSQL; the operator as a process under its
own service account. "Served" is the moment the database holds it, asked every few milliseconds on a connection of its
own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import asyncpg

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.cluster.control_plane import start, stop
from tests.databases import Database, Server
from tests.operator.conftest import prepare
from tests.operator.machinery import Operator, Tenancy, resource

from metagate_crds.kinds import API_VERSION, KINDS
from metagate_operator.cluster.kubernetes_client import (
    KubernetesClient,
    KubernetesRefused,
    collection_path,
    object_path,
)

NAMESPACE = "bench"


class OperatorBench:
    """One cluster, one database, one operator, and what was measured."""

    def __init__(
        self, kubernetes: KubernetesClient, tenancy: Tenancy, database: asyncpg.Connection, sizes: argparse.Namespace
    ) -> None:
        self.kubernetes = kubernetes
        self.tenancy = tenancy
        self.database = database
        self.sizes = sizes
        self.found: dict[str, Any] = {}

    def note(self, name: str, value: Any, unit: str = "", bound: str = "") -> None:
        self.found[name] = value
        shown = f"{value:,.1f}" if isinstance(value, float) else f"{value}"
        print(f"{name:<58} {shown:>12} {unit:<4} {bound}", flush=True)

    async def create(self, objects: Iterable[dict[str, Any]], *, at_once: int = 32) -> None:
        gate = asyncio.Semaphore(at_once)

        async def one(body: dict[str, Any]) -> None:
            async with gate:
                await self.kubernetes.call("POST", collection_path(KINDS[body["kind"]], NAMESPACE), body=body)

        await asyncio.gather(*(one(body) for body in objects))

    async def change(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """What `kubectl apply` does to an object that is there: one patch."""
        await self.kubernetes.call(
            "PATCH",
            object_path(kind, NAMESPACE, name),
            body={"spec": spec},
            content_type="application/merge-patch+json",
        )

    async def scalar(self, query: str, *arguments: object) -> Any:
        return await self.database.fetchval(query, *arguments)

    async def until(self, check: Callable[[], Any], *, seconds: float, every: float = 0.002) -> float:
        """How long until it is true, in milliseconds."""
        began = time.perf_counter()
        while not await check():
            if time.perf_counter() - began > seconds:
                raise TimeoutError(f"not within {seconds} s")
            await asyncio.sleep(every)
        return (time.perf_counter() - began) * 1000

    # ── the world ───────────────────────────────────────────────────────────────────────────────────────────────────

    def world(self) -> list[dict[str, Any]]:
        sizes = self.sizes
        objects = [resource("Profile", NAMESPACE, f"profile{n}", profile(n)) for n in range(sizes.profiles)]
        objects += [resource("Manifest", NAMESPACE, f"manifest{n}", manifest(n, 1)) for n in range(sizes.manifests)]
        objects += [
            resource("Principal", NAMESPACE, f"principal{n}", {"type": "component"}) for n in range(sizes.principals)
        ]
        objects += [
            resource("PrincipalBinding", NAMESPACE, f"binding{n}", self.binding(n)) for n in range(sizes.bindings)
        ]
        return objects

    def binding(self, number: int, **more: Any) -> dict[str, Any]:
        """Active for the first binding of each principal (D-21); the others are declared and inactive, and compiled all
        the same.
        """
        sizes = self.sizes
        return {
            "principalRef": {"name": f"principal{number % sizes.principals}"},
            "profileRef": {"name": f"profile{number % sizes.profiles}"},
            "manifestRef": {"name": "manifest0"},  # the one that all of them use
            "components": ["*"],
            "active": number < sizes.principals,
            **more,
        }

    # ── the measurements ────────────────────────────────────────────────────────────────────────────────────────────

    async def one_at_a_time(self, changes: int, label: str, bound: str) -> None:
        """A Binding gets another override; served when its row has another digest."""
        times = []
        query = "SELECT digest FROM metagate.binding WHERE principal_key = $1"
        for number in range(changes):
            name = f"binding{number % self.sizes.principals}"
            principal = f"principal{number % self.sizes.principals}"
            before = await self.scalar(query, principal)

            async def served(before: str = before, principal: str = principal) -> bool:
                return bool(await self.scalar(query, principal) != before)

            spec = {"overrides": {"environment": {"round": f"{label}{time.time_ns()}"}}}
            began = time.perf_counter()
            await self.change("PrincipalBinding", name, spec)
            await self.until(served, seconds=30)
            times.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.02)
        times.sort()
        self.note(f"{label}: median", statistics.median(times), "ms")
        self.note(f"{label}: p99 of {changes}", times[max(0, int(len(times) * 0.99) - 1)], "ms", bound)

    async def statuses_behind(self) -> int:
        token, behind = "", 0
        while True:
            query = {"limit": 500, **({"continue": token} if token else {})}
            page = await self.kubernetes.call("GET", collection_path(KINDS["PrincipalBinding"], NAMESPACE), query=query)
            behind += sum(
                item["status"].get("observedGeneration", -1) < item["metadata"]["generation"] for item in page["items"]
            )
            token = page["metadata"].get("continue") or ""
            if not token:
                return behind


def profile(number: int) -> dict[str, Any]:
    return {
        "capabilities": {f"c{n}": {"level": number, "about": "x" * 40} for n in range(10)},
        "startup": {"slaSeconds": 60},
    }


def manifest(number: int, version: int) -> dict[str, Any]:
    services = {
        f"s{n}": {"type": "service", "endpoint": f"http://s{n}:80{n:02}", "metadata": {"shard": number}}
        for n in range(10)
    }
    return {
        "deploymentKey": f"d{number}",
        "version": version,
        "environment": {"version": version},
        "services": services,
    }


async def measure(sizes: argparse.Namespace) -> dict[str, Any]:
    environment = dict(os.environ)  # noqa: TID251 - which cluster and database to use
    directory = Path(tempfile.mkdtemp(prefix="metagate-bench-"))
    server = Server.start()
    cluster = start(directory, environment=environment)
    operator: Operator | None = None
    bench: OperatorBench | None = None
    try:
        prepare(cluster)
        await server.make_template()
        made: Database = await server.make()
        cluster.kubectl.run("create", "namespace", NAMESPACE)
        kubernetes = await KubernetesClient.connect(str(cluster.kubectl.kubeconfig))
        database = await asyncpg.connect(made.superuser)
        bench = OperatorBench(kubernetes, Tenancy(cluster, made, NAMESPACE), database, sizes)
        began = time.perf_counter()
        await bench.create(bench.world())
        bench.note("objects created", sizes.profiles + sizes.manifests + sizes.principals + sizes.bindings)
        bench.note("creating them", time.perf_counter() - began, "s")
        operator = await run(bench)
    finally:
        if operator is not None:
            operator.close()
        if bench is not None:
            await bench.kubernetes.close()
            await bench.database.close()
        stop(directory, environment)
        shutil.rmtree(directory, ignore_errors=True)
        server.stop()
    return bench.found if bench is not None else {}


async def run(bench: OperatorBench) -> Operator:
    sizes = bench.sizes
    began = time.perf_counter()
    operator = Operator(bench.tenancy, METAGATE_RESYNC_SECONDS="100000")
    peak = asyncio.create_task(peak_of(operator))

    async def published() -> bool:
        return bool(await bench.scalar("SELECT count(*) FROM metagate.revision"))

    await bench.until(published, seconds=180, every=0.05)
    bench.note("cold start to published", time.perf_counter() - began, "s", "< 30 s")

    async def status_written() -> bool:
        return await asyncio.to_thread(operator.metric, "metagate_status_waiting") == 0

    async def settled() -> bool:
        return bool(await status_written() and await bench.statuses_behind() == 0)

    await asyncio.sleep(2)
    during = asyncio.create_task(
        bench.one_at_a_time(sizes.changes // 2, "one Binding, while statuses are written", "< 500 ms")
    )
    await during
    waiting = await asyncio.to_thread(operator.metric, "metagate_status_waiting")
    bench.note("statuses still waiting then", int(waiting))
    await bench.until(settled, seconds=900, every=2)
    bench.note("every object says that it is served, after the start", time.perf_counter() - began, "s")
    written = await asyncio.to_thread(operator.metric, "metagate_status_writes_total")
    seconds = await asyncio.to_thread(operator.metric, "metagate_status_write_seconds_sum")
    bench.note("status writes", int(written))
    bench.note("one status write at the API server", 1000 * seconds / max(written, 1), "ms")
    await bench.one_at_a_time(sizes.changes, "one Binding, in quiet", "< 500 ms")
    await fan_out(bench)
    await bench.until(settled, seconds=900, every=2)
    await asyncio.sleep(3)
    bench.note("RSS at its peak", float(peak_now(peak, operator)), "MB", "< 400 MB")
    bench.note("RSS settled", operator.rss_megabytes, "MB", "< 250 MB")
    before = operator.cpu_seconds
    await asyncio.sleep(20)
    bench.note("CPU while nothing happens", (operator.cpu_seconds - before) / 20 * 100, "%", "near 0")
    peak.cancel()
    operator.close()
    return await resync(bench)


async def fan_out(bench: OperatorBench) -> None:
    """The Manifest that every Binding uses changes, and all that are active are served anew."""
    old = await bench.scalar("SELECT array_agg(DISTINCT digest) FROM metagate.binding")
    began = time.perf_counter()
    await bench.change("Manifest", "manifest0", manifest(0, 2))

    async def all_served() -> bool:
        return not await bench.scalar(
            "SELECT 1 FROM metagate.binding WHERE manifest = 'manifest0' AND digest = ANY($1) LIMIT 1", old
        )

    await bench.until(all_served, seconds=60, every=0.01)
    bench.note(
        f"one Manifest of {bench.sizes.bindings} Bindings: all served",
        (time.perf_counter() - began) * 1000,
        "ms",
        "< 2 s",
    )


async def resync(bench: OperatorBench) -> Operator:
    """Started again with a short period: what a pass that finds nothing costs, and that it writes nothing."""
    revision = await bench.scalar("SELECT max(revision) FROM metagate.revision")
    operator = Operator(bench.tenancy, METAGATE_RESYNC_SECONDS="15")

    async def passes(count: int) -> bool:
        return await asyncio.to_thread(operator.metric, "metagate_passes_total") >= count

    await bench.until(lambda: passes(2), seconds=180, every=0.1)
    before = operator.cpu_seconds
    await bench.until(lambda: passes(3), seconds=180, every=0.1)
    bench.note("CPU of the operator for one resync", operator.cpu_seconds - before, "s")
    bench.note(
        "a resync that finds nothing new",
        await asyncio.to_thread(operator.metric, "metagate_pass_seconds"),
        "s",
        "< 10 s",
    )
    bench.note(
        "revisions it minted", await bench.scalar("SELECT max(revision) FROM metagate.revision") - revision, "", "0"
    )
    bench.note(
        "status writes it made", int(await asyncio.to_thread(operator.metric, "metagate_status_writes_total")), "", "0"
    )
    return operator


async def peak_of(operator: Operator) -> None:
    operator.peak = 0.0  # type: ignore[attr-defined]
    while True:
        try:
            operator.peak = max(operator.peak, operator.rss_megabytes)  # type: ignore[attr-defined]
        except (OSError, StopIteration):
            return
        await asyncio.sleep(0.1)


def peak_now(task: asyncio.Task[None], operator: Operator) -> float:
    del task
    return float(operator.peak)  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bindings", type=int, default=10_000)
    parser.add_argument("--principals", type=int, default=1_000)
    parser.add_argument("--profiles", type=int, default=50)
    parser.add_argument("--manifests", type=int, default=50)
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--json", type=Path)
    sizes = parser.parse_args()
    completed = asyncio.run(measure(sizes))
    if sizes.json is not None:
        sizes.json.write_text(json.dumps(completed, indent=2))


if __name__ == "__main__":
    main()


__all__ = ["API_VERSION", "KubernetesRefused"]
