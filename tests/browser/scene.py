"""What the console is looked at with: the quickstart's world, grown, after an hour in which things happened."""

import asyncio
import json
import random
import shutil
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg
import httpx
from joserfc.jwk import ECKey
from tests.integration.dev.running import Dev, resource

from legivellum.identity.api_keys import MintedKey, mint
from metagate_postgres.server import EmbeddedPostgres

T = TypeVar("T")

EXAMPLES = Path(__file__).parents[2] / "examples" / "quickstart"
HOSTILE = "<img src=x onerror=alert(1)><svg onload=alert(2)>'\"</script> \u202etxt.exe\x1b[31m"
SERVICES = {
    "search": ["memorygate", "documents"], "mail": ["memorygate", "mailrelay"], "billing": ["memorygate", "ledger", "payments"],
    "web": ["sessions", "documents", "assets"], "batch": ["asyncgate", "documents", "payments"],
}  # fmt: skip


@dataclass
class Scene:
    """`url` of the gate, keys of an admin, of a cluster-wide observer and of somebody who boots, and what there is to see."""

    dev: Dev
    url: str
    admin: str
    ruler: str
    worker: str
    explained: str
    """A startup whose packet has an override."""
    hostile: str
    """A startup that reported what nobody should."""

    resources: Path = Path()

    def refuse(self, name: str) -> Path:
        """Declare a Profile that cannot be served."""
        path = self.resources / f"{name}.yaml"
        path.write_text(resource("Profile", name, {"startup": {"slaSeconds": -1}}), encoding="utf-8")
        return path

    def fail(self, error: str) -> str:
        startup = self.boot("failing")
        answer = httpx.post(
            f"{self.url}/v1/startup/failed",
            json={"startup_id": startup, "error": error},
            headers={"X-API-Key": self.worker},
        )
        assert answer.status_code == 200, answer.text
        return startup

    def boot(self, component: str) -> str:
        answer = httpx.post(
            f"{self.url}/v1/bootstrap", json={"component_key": component}, headers={"X-API-Key": self.worker}
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["startup"]["startup_id"])


@contextmanager
def played(folder: Path) -> Iterator[Scene]:
    resources, keys = folder / "resources", {name: mint() for name in ("admin", "ruler", "shop-web", "indexer")}
    shutil.copytree(EXAMPLES, resources, ignore=shutil.ignore_patterns("principals", "README.md"))
    _declare(resources, keys)
    (folder / "pg").mkdir(mode=0o755)
    with EmbeddedPostgres(folder / "pg") as server:
        dsn = server.dsn(tcp=True)
        dev = Dev(resources, folder / "data", "--database-url", dsn, METAGATE_DEADLINE_MS="5000")
        try:
            dev.ready()
            scene = Scene(dev, dev.url, keys["admin"].key, keys["ruler"].key, keys["shop-web"].key, "", "")
            scene.resources = resources
            _live(scene, keys, resources, dsn)
            yield scene
        finally:
            if dev.process.poll() is None:
                assert dev.stop() == 0


def _declare(resources: Path, keys: dict[str, MintedKey]) -> None:
    def write(name: str, text: str) -> None:
        path = resources / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def key(name: str) -> list[dict[str, str]]:
        return [{"id": keys[name].id, "sha256": keys[name].sha256}]

    write("principals/admin.yaml", resource("Principal", "admin", {"type": "admin", "apiKeys": key("admin")}))
    ruler = {"type": "observer", "scope": "Cluster", "apiKeys": key("ruler")}
    write("principals/ruler.yaml", resource("Principal", "on-call", ruler, "metagate-system"))
    write("principals/indexer.yaml", resource("Principal", "indexer", {"type": "component", "apiKeys": key("indexer")}))
    write("principals/concierge.yaml", resource("Principal", "concierge", {"type": "component"}))
    jwk = ECKey.generate_key("P-256", {"kid": "2026-11", "use": "sig"}).as_dict(private=False)
    issuer = {
        "issuer": "https://idp.example.com", "audiences": ["metagate"], "algorithms": ["ES256"], "namespaces": ["default"],
        "subjectPattern": "*@{namespace}.example.com", "jwks": {"source": "Inline", "inline": {"keys": [jwk]}},
    }  # fmt: skip
    write("issuer.yaml", resource("TokenIssuer", "idp", issuer))
    write(
        "profiles/shop.yaml",
        resource("Profile", "shop", {"capabilities": {"serve": True}, "startup": {"slaSeconds": 60}}),
    )
    for name, services in SERVICES.items():
        spec = {
            "deploymentKey": f"shop-{name}", "version": 7, "environment": {"region": "eu-central", "banner": HOSTILE},
            "services": {service: {"type": service, "endpoint": f"http://{service}:8000"} for service in services},
        }  # fmt: skip
        write(f"shop/{name}-world.yaml", resource("Manifest", f"shop-{name}", spec))
        for at in range(3 if name in {"web", "batch"} else 1):
            principal = f"shop-{name}" if not at else f"shop-{name}-{at}"
            more = {"apiKeys": key(principal)} if principal in keys else {}
            write(f"shop/{principal}.yaml", resource("Principal", principal, {"type": "component", **more}))
            bound = {
                "principalRef": {"name": principal}, "profileRef": {"name": "shop"}, "manifestRef": {"name": f"shop-{name}"},
                "components": ["*"], "overrides": {"environment": {"tier": "gold"}, "capabilities": {"refund": at == 0}},
            }  # fmt: skip
            write(f"shop/{principal}-binding.yaml", resource("PrincipalBinding", principal, bound))


def _live(scene: Scene, keys: dict[str, MintedKey], resources: Path, dsn: str) -> None:
    def report(what: str, startup: str, **more: object) -> None:
        answer = httpx.post(
            f"{scene.url}/v1/startup/{what}", json={"startup_id": startup, **more}, headers={"X-API-Key": scene.worker}
        )
        assert answer.status_code == 200, answer.text

    scene.explained = scene.boot("web_1")
    report("ready", scene.explained, build_version="7.4.1", health={"cache": "warm"})
    scene.hostile = scene.boot("hostile")
    run_apart(_rename_component(dsn, scene.hostile, "<b>bold</b>\u202egnp.exe"))
    report("failed", scene.hostile, error=HOSTILE, details={"disk": "full", HOSTILE: [HOSTILE]})
    region = (resources / "manifest.yaml").read_text()
    (resources / "manifest.yaml").write_text(region.replace("eu-central", "eu-north"))
    run_apart(_remember(dsn, scene.explained))


async def _rename_component(dsn: str, startup_id: str, component: str) -> None:
    """No component may boot under such a name any more; sessions of an earlier release may have it."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "UPDATE metagate.startup SET component_key = $1 WHERE startup_id = $2", component, UUID(startup_id)
    )
    await connection.close()


async def _remember(dsn: str, pattern: str) -> None:
    """An hour of sessions, written as they would have been: nobody waits an hour for a picture."""
    random.seed(9)
    connection = await asyncpg.connect(dsn)
    now, rows = datetime.now(UTC), []
    [like] = await connection.fetch("SELECT * FROM metagate.startup WHERE startup_id = $1", UUID(pattern))
    people = ["shop-search", "shop-mail", "shop-billing", "shop-web-1", "shop-web-2", "shop-batch", "indexer"]
    for minute in range(59, 1, -1):
        burst = 22 if 30 <= minute <= 33 else 0
        for _ in range(random.randint(1, 6) + burst):
            opened = now - timedelta(minutes=minute, seconds=random.uniform(0, 55))
            choice = random.choice(people)
            fails = (choice == "shop-mail" and minute > 40) or (choice == "shop-batch" and 20 < minute < 26)
            stuck = choice == "shop-billing" and minute < 9
            status = "FAILED" if fails else "OPEN" if stuck else "READY"
            ended = None if stuck else opened + timedelta(seconds=random.uniform(0.4, 9))
            report = {"error": "smtp://mailrelay:587: connection refused"} if fails else {"build_version": "7.4.1"}
            rows.append(
                (like["tenant"], session_id_at(opened), uuid4(), opened, opened + timedelta(seconds=60), ended, like["compiled_at"],
                 like["revision"], False if ended else None, status, choice, f"{choice.replace('-', '_')}_main", like["digest"],
                 None if stuck else json.dumps(report))
            )  # fmt: skip
    await connection.executemany(
        "INSERT INTO metagate.startup (tenant, startup_id, packet_id, opened_at, deadline_at, acknowledged_at, compiled_at, "
        "revision, late, status, principal_key, component_key, digest, report) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        rows,
    )
    await connection.close()


def run_apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """Its result. In a thread of its own: where Playwright was started, a loop is running already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def session_id_at(moment: datetime) -> UUID:
    """A UUIDv7 of that moment."""
    value = int(moment.timestamp() * 1_000) << 80 | uuid4().int & (1 << 80) - 1
    return UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)
