"""What people change in files is exactly what components see change: through the files, the database and HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from tests.integration.dev.running import DeclaredFolder, Dev, binding, manifest, principal, resource

from legivellum.identity.api_keys import mint

pytestmark = pytest.mark.timeout(120)
Living = tuple[Dev, DeclaredFolder]

PROFILE: dict[str, Any] = {
    "capabilities": {"read": True},
    "policy": {"quota": 1},
    "startup": {"slaSeconds": 5},
    "secretRefs": [{"name": "db", "kind": "Env", "ref": "DB_PASSWORD", "required": True}],
}
MANIFEST: dict[str, Any] = {
    "deploymentKey": "d",
    "environment": {"region": "eu"},
    "services": {"mail": {"type": "relay", "endpoint": "smtp://mail:587"}},
    "memoryMap": {"shared": {"backend": "memorygate"}},
    "polling": {"inbox": {"endpoint": "http://memorygate:8001/inbox", "interval": "5s"}},
    "schemas": {"receipt": {"ref": "urn:legivellum:receipt:1.1"}},
}
CHANGES: list[tuple[str, str, str, Any]] = [
    ("profile", "capabilities", "capabilities", {"read": False}),
    ("profile", "policy", "policy", {"quota": 2}),
    ("profile", "secretRefs", "required_env", [{"name": "db", "kind": "File", "ref": "/run/db", "required": False}]),
    ("manifest", "environment", "environment", {"region": "us"}),
    ("manifest", "services", "services", {"mail": {"type": "relay", "endpoint": "smtp://mail:25"}}),
    ("manifest", "memoryMap", "memory_map", {"shared": {"backend": "other"}}),
    ("manifest", "polling", "polling", {"inbox": {"endpoint": "http://other:8001/inbox", "interval": "5s"}}),
    ("manifest", "schemas", "schemas", {"receipt": {"ref": "urn:legivellum:receipt:2"}}),
]


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    folder = tmp_path_factory.mktemp("world")
    world = DeclaredFolder(folder / "resources")
    world.write("profile.yaml", resource("Profile", "worker", PROFILE))
    world.write("manifest.yaml", resource("Manifest", "world", MANIFEST))
    dev = Dev(world.folder, folder / "data")
    try:
        dev.ready()
        yield dev, world
    finally:
        if dev.process.poll() is None:
            dev.stop()


def sections(packet: dict[str, Any]) -> dict[str, Any]:
    """A packet without what is each answer's own."""
    own = {"packet_id", "packet_etag", "issued_at", "startup", "snapshot"}
    return {name: value for name, value in packet.items() if name not in own}


@pytest.mark.invariant("INV-011", "INV-018")
@pytest.mark.parametrize(
    ("file", "field", "section", "value"), CHANGES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_each_field_is_one_section(living: Living, file: str, field: str, section: str, value: Any) -> None:
    """A changed field changes its section of the packet and the ETag, nothing else; changed back, the ETag is the old one."""
    dev, world = living
    kind, name, spec = ("Profile", "worker", PROFILE) if file == "profile" else ("Manifest", "world", MANIFEST)
    before = dev.bootstrap(world.key).json()
    world.write(f"{file}.yaml", resource(kind, name, {**spec, field: value}))
    dev.until(lambda: dev.bootstrap(world.key).json()["packet_etag"] != before["packet_etag"])
    after = dev.bootstrap(world.key).json()
    differing = {key for key in sections(after) if sections(after)[key] != sections(before)[key]}
    assert differing == {section}
    world.write(f"{file}.yaml", resource(kind, name, spec))
    dev.until(lambda: dev.bootstrap(world.key).json()["packet_etag"] == before["packet_etag"])


@pytest.mark.invariant("INV-015")
def test_the_deadline_is_the_profiles(living: Living) -> None:
    """Opened plus five seconds, as the Profile says."""
    dev, world = living
    packet = dev.bootstrap(world.key).json()
    issued, deadline = (
        datetime.fromisoformat(text) for text in (packet["issued_at"], packet["startup"]["deadline_at"])
    )
    assert (deadline - issued).total_seconds() == 5


@pytest.mark.invariant("INV-010")
def test_overrides_are_for_one(living: Living) -> None:
    """An override reaches the principal it is for; another one bound to the same Manifest keeps what that says."""
    dev, world = living
    key = mint()
    world.write("people/bob.yaml", principal("bob", key))
    world.write("bob.yaml", binding("bob", overrides={"services": {"mail": {"endpoint": "smtp://bob:25"}}}))
    dev.until(lambda: dev.bootstrap(key).status_code == 200)
    mine, others = dev.bootstrap(key).json(), dev.bootstrap(world.key).json()
    assert mine["services"]["mail"] == {"type": "relay", "endpoint": "smtp://bob:25"}
    assert others["services"]["mail"] == {"type": "relay", "endpoint": "smtp://mail:587"}
    assert mine["memory_map"] == others["memory_map"]
    for name in ("people/bob.yaml", "bob.yaml"):
        (world.folder / name).unlink()


@pytest.mark.invariant("INV-009")
def test_a_second_binding_is_in_conflict(living: Living) -> None:
    """The oldest stays served, the newer one is told who holds the principal; when the oldest goes, the newer takes over."""
    dev, world = living
    before = dev.bootstrap(world.key).json()["packet_etag"]
    second = resource("PrincipalBinding", "second", {
        "principalRef": {"name": "ada"}, "profileRef": {"name": "worker"}, "manifestRef": {"name": "world"},
        "components": ["*"], "overrides": {"environment": {"region": "second"}},
    })  # fmt: skip
    world.write("a-second.yaml", second)
    dev.until(lambda: any(line["name"] == "second" for line in dev.events("verdict")))
    item = next(line for line in dev.events("verdict") if line["name"] == "second")
    assert (item["ready"], item["reason"]) == (False, "BindingConflict")
    assert {dev.bootstrap(world.key).json()["packet_etag"] for _ in range(100)} == {before}
    (world.folder / "bindings.yaml").unlink()
    dev.until(lambda: dev.region(world.key) == "second")
    (world.folder / "a-second.yaml").unlink()
    world.write("bindings.yaml", binding("ada"))
    dev.until(lambda: dev.bootstrap(world.key).json()["packet_etag"] == before)


@pytest.mark.invariant("EXT-06", "INV-017")
def test_an_upgrade_has_no_window(living: Living) -> None:
    """While Manifest and Profile change together, every boot gets 200 and a whole world: the two never mix."""
    dev, world = living
    stop = threading.Event()
    observations: list[tuple[int, str, int]] = []

    def boot() -> None:
        with httpx.Client(base_url=dev.url, headers={"X-API-Key": world.key.key}) as client:
            while not stop.is_set():
                answer = client.post("/v1/bootstrap", json={"component_key": "any"})
                packet = answer.json()
                observations.append(
                    (answer.status_code, packet["environment"].get("region", ""), packet["policy"].get("quota", 0))
                )

    both = (
        resource("Profile", "worker", {**PROFILE, "policy": {"quota": 100 + number}}) + "---\n" + manifest(f"v{number}")
        for number in range(5)
    )
    for name in ("profile.yaml", "manifest.yaml"):
        (world.folder / name).rename(world.folder / f".{name}")
    world.write("both.yaml", next(both))
    dev.until(lambda: dev.bootstrap(world.key).status_code == 200 and dev.region(world.key) == "v0")
    booting = threading.Thread(target=boot)
    booting.start()
    for number, text in enumerate(both, 1):
        world.write("both.yaml", text)
        dev.until(lambda number=number: dev.region(world.key) == f"v{number}")
    stop.set()
    booting.join()
    assert {status for status, _, _ in observations} == {200}
    assert {(region, quota) for _, region, quota in observations} <= {
        (f"v{number}", 100 + number) for number in range(5)
    }
    (world.folder / "both.yaml").unlink()
    for name in ("profile.yaml", "manifest.yaml"):
        (world.folder / f".{name}").rename(world.folder / name)
    dev.until(lambda: dev.bootstrap(world.key).status_code == 200 and dev.region(world.key) == "eu")
