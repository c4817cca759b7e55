"""Apply-to-served: from saving a file to the first Welcome Packet that shows it, with 1,000 Bindings declared.

`metagate dev` runs as people run it, in a process of its own, on a durable database. One Binding's file is replaced,
and a client asks in a loop until the packet differs; the time is taken from before the write to the answer. Two kinds
of change: one that concerns one principal (a Binding's override), and one that concerns all of them (the Manifest).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from legivellum.identity.api_keys import MintedKey, mint

BINDINGS = 1_000
CHANGES = 60
EVERYBODY = 10
HEAD = "apiVersion: metagate.legivellum.io/v1alpha1\n"


def document(kind: str, name: str, spec: dict[str, Any]) -> str:
    return f"{HEAD}kind: {kind}\nmetadata: {{name: {name}}}\nspec: {json.dumps(spec)}\n"


def manifest(region: str) -> str:
    return document("Manifest", "world", {"deploymentKey": "bench", "environment": {"region": region}})


def binding(name: str, mark: str | None = None) -> str:
    return document(
        "PrincipalBinding",
        name,
        {
            "principalRef": {"name": name},
            "profileRef": {"name": "worker"},
            "manifestRef": {"name": "world"},
            "components": ["*"],
            **({"overrides": {"environment": {"mark": mark}}} if mark else {}),
        },
    )


def declare(folder: Path, key: MintedKey) -> None:
    """A thousand principals with a file for each of their bindings; one of them has a key."""
    (folder / "bindings").mkdir(parents=True)
    (folder / "profile.yaml").write_text(document("Profile", "worker", {"capabilities": {"read": True}}))
    (folder / "manifest.yaml").write_text(manifest("eu"))
    people = []
    for number in range(BINDINGS):
        keys = [{"id": key.id, "sha256": key.sha256}] if number == 0 else []
        people.append(document("Principal", f"p{number}", {"type": "component", "apiKeys": keys}))
        (folder / "bindings" / f"p{number}.yaml").write_text(binding(f"p{number}"))
    (folder / "principals.yaml").write_text("---\n".join(people))


@asynccontextmanager
async def dev(resources: Path, data: Path, *more: str) -> AsyncIterator[str]:
    """A running `metagate dev`, with `more` options; its URL."""
    command = [sys.executable, "-m", "metagate_cli.main", "dev", "--resources", str(resources), "--data-dir", str(data)]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--port",
        "0",
        *more,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        limit=1 << 20,
        env={name: value for name, value in os.environ.items() if not name.startswith("METAGATE_")},  # noqa: TID251
    )
    assert process.stderr is not None
    stderr = process.stderr
    try:
        async with asyncio.timeout(120):
            while line := await stderr.readline():
                if '"serving"' in line.decode():
                    break
        url = str(json.loads(line)["url"])
        reading = asyncio.create_task(_drain(stderr))
        yield url
        reading.cancel()
    finally:
        process.terminate()
        await process.wait()


async def _drain(said: asyncio.StreamReader) -> None:
    while await said.readline():
        pass


async def served(client: httpx.AsyncClient, path: Path, text: str, name: str, value: str) -> float:
    """Milliseconds from writing `text` to the answer whose environment has `name: value`."""
    started = time.perf_counter()
    path.write_text(text)
    while True:
        answer = await client.post("/v1/bootstrap", json={"component_key": "any"})
        assert answer.status_code in {200, 503}, answer.text  # 503: too slow this once, which the time shows
        if answer.status_code == 200 and answer.json()["environment"].get(name) == value:
            return (time.perf_counter() - started) * 1000
        await asyncio.sleep(0.002)  # a client that asked without a break would take the processor from what it measures


async def main(changes: int = CHANGES) -> dict[str, float]:
    """Milliseconds: `apply_p50_ms`, `apply_p99_ms` of one Binding; `apply_all_p50_ms`, `apply_all_max_ms` of the shared
    Manifest.
    """
    folder = Path(tempfile.mkdtemp(prefix="metagate-apply-"))
    key = mint()
    try:
        declare(folder / "resources", key)
        started = time.perf_counter()
        async with dev(folder / "resources", folder / "data") as url:
            first = time.perf_counter() - started
            async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": key.key}, timeout=5) as client:
                item = [
                    await served(client, folder / "resources/bindings/p0.yaml", binding("p0", f"m{n}"), "mark", f"m{n}")
                    for n in range(changes)
                ]
                principals = [
                    await served(client, folder / "resources/manifest.yaml", manifest(f"r{n}"), "region", f"r{n}")
                    for n in range(EVERYBODY)
                ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "apply_bindings": BINDINGS,
        "apply_changes": changes,
        "apply_start_seconds": round(first, 2),
        "apply_p50_ms": round(statistics.median(item), 1),
        "apply_p99_ms": round(statistics.quantiles(item, n=100, method="inclusive")[98], 1),
        "apply_max_ms": round(max(item), 1),
        "apply_all_p50_ms": round(statistics.median(principals), 1),
        "apply_all_max_ms": round(max(principals), 1),
    }


if __name__ == "__main__":
    for name, value in asyncio.run(main()).items():
        print(f"{name:20} {value}")
