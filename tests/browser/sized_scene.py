"""Worlds of a chosen size: 3 principals in which hardly anything happened, and 200 in ten Manifests after a bad hour."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
from tests.browser.scene import run_apart, session_id_at
from tests.integration.dev.running import Dev, resource

from legivellum.identity.api_keys import MintedKey, mint
from metagate_postgres.server import EmbeddedPostgres

MANIFESTS = {
    "checkout": ["ledger", "payments", "sessions", "mailrelay"],
    "catalogue": ["documents", "search-index", "assets"],
    "search": ["search-index", "documents", "memorygate"],
    "recommendations": ["vector-store", "search-index", "memorygate"],
    "support-agents": ["memorygate", "asyncgate", "mailrelay", "documents", "vector-store"],
    "billing": ["ledger", "payments", "mailrelay"],
    "warehouse": ["stock", "documents", "asyncgate"],
    "delivery-planning": ["stock", "maps", "asyncgate"],
    "reporting": ["ledger", "stock", "object-store"],
    "ingest-pipeline-for-partner-catalogues": ["object-store", "documents", "asyncgate", "memorygate"],
}  # fmt: skip
SIZES = (34, 28, 24, 22, 20, 18, 16, 14, 12, 8)
"""Principals of each Manifest; with the admin, two without a Binding and one that is suspended they are 200."""


@dataclass
class SizedScene:
    dev: Dev
    url: str
    admin: str
    failed: str
    """A startup that failed as many others did; "" where none did."""


@contextmanager
def small_scene(folder: Path) -> Iterator[SizedScene]:
    """Three principals: an admin, one that booted, one that never did."""
    keys = {"admin": mint(), "indexer": mint()}
    resources = {
        "admin": [resource("Principal", "admin", _principal(keys["admin"], type="admin"))],
        "world": [resource("Profile", "worker", {}), _manifest("library", ["memorygate"])],
        "indexer": [resource("Principal", "indexer", _principal(keys["indexer"])), _binding("indexer", "library")],
        "reader": [resource("Principal", "reader", _principal()), _binding("reader", "library")],
    }
    with _running(folder, resources, keys["admin"]) as (scene, _):
        startup = _boot(scene, keys["indexer"])
        httpx.post(
            f"{scene.url}/v1/startup/ready",
            json={"startup_id": startup, "build_version": "1.0.0", "health": "warm"},
            headers={"X-API-Key": keys["indexer"].key},
        ).raise_for_status()
        yield scene


@contextmanager
def large_scene(folder: Path) -> Iterator[SizedScene]:
    """200 principals in ten Manifests; one service is away, one publish broke a Manifest, some pods hang."""
    keys = {"admin": mint(), "pattern": mint()}
    resources = {
        "admin": [resource("Principal", "admin", _principal(keys["admin"], type="admin"))],
        "others": [
            resource("Principal", "auditor", {"type": "observer"}),
            resource("Principal", "retired-importer", {"type": "component", "suspended": True}),
            resource("Profile", "worker", {"capabilities": {"read": True}}),
            resource("Profile", "writer", {"capabilities": {"read": True, "write": True}}),
        ],
    }
    names: list[tuple[str, str]] = []
    for (manifest, services), size in zip(MANIFESTS.items(), SIZES, strict=True):
        documents = [_manifest(manifest, services)]
        for at in range(size):
            name = f"{manifest[:24].rstrip('-')}-{at + 1:02}"
            key = keys["pattern"] if not names else None
            documents += [
                resource("Principal", name, _principal(key)),
                _binding(name, manifest, "writer" if at % 3 == 0 else "worker"),
            ]
            names.append((name, manifest))
        resources[manifest] = documents
    # its Manifest is missing: it has no packet
    resources["lost"] = [resource("Principal", "returns-01", _principal()), _binding("returns-01", "returns")]
    with _running(folder, resources, keys["admin"]) as (scene, dsn):
        pattern = _boot(scene, keys["pattern"])
        scene.failed = run_apart(_remember(dsn, pattern, names))
        yield scene


def _principal(key: MintedKey | None = None, **more: Any) -> dict[str, Any]:
    keys = {} if key is None else {"apiKeys": [{"id": key.id, "sha256": key.sha256}]}
    return {"type": "component", **keys, **more}


def _manifest(name: str, services: list[str]) -> str:
    described = {service: {"type": service, "endpoint": f"http://{service}:8000"} for service in services}
    return resource(
        "Manifest", name, {"deploymentKey": name, "environment": {"region": "eu-central"}, "services": described}
    )


def _binding(name: str, manifest: str, profile: str = "worker") -> str:
    spec = {
        "principalRef": {"name": name}, "profileRef": {"name": profile}, "manifestRef": {"name": manifest}, "components": ["*"],
    }  # fmt: skip
    return resource("PrincipalBinding", name, spec)


@contextmanager
def _running(folder: Path, resources: dict[str, list[str]], admin: MintedKey) -> Iterator[tuple[SizedScene, str]]:
    (folder / "resources").mkdir()
    for name, documents in resources.items():
        (folder / "resources" / f"{name}.yaml").write_text("---\n".join(documents), encoding="utf-8")
    (folder / "pg").mkdir(mode=0o755)
    with EmbeddedPostgres(folder / "pg") as server:
        dsn = server.dsn(tcp=True)
        dev = Dev(folder / "resources", folder / "data", "--database-url", dsn, METAGATE_DEADLINE_MS="5000")
        try:
            dev.ready()
            yield SizedScene(dev, dev.url, admin.key, ""), dsn
        finally:
            if dev.process.poll() is None:
                assert dev.stop() == 0


def _boot(scene: SizedScene, key: MintedKey) -> str:
    answer = httpx.post(f"{scene.url}/v1/bootstrap", json={"component_key": "main"}, headers={"X-API-Key": key.key})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["startup"]["startup_id"])


async def _remember(dsn: str, pattern: str, names: list[tuple[str, str]]) -> str:
    """Sessions of the last hour, written as they would have been; a startup that failed as others did."""
    random.seed(4)
    connection = await asyncpg.connect(dsn)
    [like] = await connection.fetch("SELECT * FROM metagate.startup WHERE startup_id = $1", UUID(pattern))
    digests = {
        row["principal_key"]: row["digest"]
        for row in await connection.fetch("SELECT principal_key, digest FROM metagate.binding")
    }
    now, rows, failed = datetime.now(UTC), [], ""

    def add(name: str, minutes: float, status: str, error: str | None = None, pod: int = 0, deadline: int = 120) -> str:
        opened = now - timedelta(minutes=minutes)
        ended = None if status == "OPEN" else opened + timedelta(seconds=random.uniform(0.4, 9))
        report = {"error": error} if error else {"build_version": "7.4.1"}
        startup = session_id_at(opened)
        rows.append(
            (like["tenant"], startup, uuid4(), opened, opened + timedelta(seconds=deadline), ended, like["compiled_at"],
             like["revision"], False if ended else None, status, name, "main", digests[name],
             None if ended is None else json.dumps(report), str(uuid4()), f"{name}-{pod:x}c9f-{random.randrange(36**5):05x}")
        )  # fmt: skip
        return str(startup)

    for at, (name, manifest) in enumerate(names):
        if at % 29 == 7:
            continue  # never booted
        for pod in range(1 + at % 3):
            add(name, random.uniform(12, 58), "READY", pod=pod)
        if manifest == "billing" and at % 3 != 2:
            failed = add(name, random.uniform(2, 9), "FAILED", "payments:8000: connection refused")
        elif manifest == "checkout" and at % 9 == 0:
            add(name, random.uniform(2, 9), "FAILED", "payments:8000: connection refused")
        elif manifest == "delivery-planning" and at % 4 == 1:
            add(name, random.uniform(4, 9), "OPEN")
        elif at % 41 == 3:
            add(name, 0.1, "OPEN", deadline=7_200)
    await connection.executemany(
        "INSERT INTO metagate.startup (tenant, startup_id, packet_id, opened_at, deadline_at, acknowledged_at, compiled_at, "
        "revision, late, status, principal_key, component_key, digest, report, pod_uid, pod_name) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        rows,
    )
    await connection.close()
    return failed
