"""`metagate dev`: what is saved is served, what is broken changes nothing, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from tests.databases import embedded_postgres
from tests.integration.dev.running import DeclaredFolder, Dev, binding, manifest, principal, resource
from tests.unit.cli.running import metagate

from legivellum.identity.api_keys import mint

pytestmark = pytest.mark.timeout(120)
Living = tuple[Dev, DeclaredFolder]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dev") / "data"


@pytest.fixture(scope="module")
def living(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    """One running instance for the tests that leave the world as they found it."""
    world = DeclaredFolder(tmp_path_factory.mktemp("world") / "resources")
    dev = Dev(world.folder, data)
    try:
        dev.ready()
        yield dev, world
    finally:
        if dev.process.poll() is None:
            dev.stop()


def test_an_edited_file_is_served_at_once(living: Living) -> None:
    """Ten edits, each served within half a second (the slowest one included)."""
    dev, world = living
    taken = []
    for number in range(10):
        region = f"r{number}"
        world.write("manifest.yaml", manifest(region))
        taken.append(dev.until(lambda region=region: dev.region(world.key) == region))
    world.write("manifest.yaml", manifest("eu"))
    dev.until(lambda: dev.region(world.key) == "eu")
    assert statistics.median(taken) < 0.5
    assert max(taken) < 1.0


@pytest.mark.invariant("INV-031")
def test_a_broken_file_keeps_the_last_good(living: Living) -> None:
    """Half a file, a refused spec, garbage: the last good snapshot stays, file and line are said, others go on."""
    dev, world = living
    before = dev.bootstrap(world.key).json()["packet_etag"]
    whole = manifest("eu")
    world.write("manifest.yaml", whole[: len(whole) // 2])
    dev.until(lambda: any(line["where"].startswith("manifest.yaml:") for line in dev.events("file.broken")))
    world.write("people/bob.yaml", principal("bob", mint()))
    dev.until(lambda: any(line["name"] == "bob" for line in dev.events("verdict")))
    assert dev.bootstrap(world.key).json()["packet_etag"] == before
    world.write(
        "manifest.yaml",
        resource("Manifest", "world", {"services": {"a": {"type": "t", "metadata": {"l": [{"Deploy": 1}]}}}}),
    )
    dev.until(lambda: any(not line["ready"] for line in dev.events("verdict")))
    item = next(line for line in dev.events("verdict") if not line["ready"])
    assert (item["name"], item["served"], item["where"]) == ("world", 1, "manifest.yaml:1") or item[
        "served"
    ] is not None
    assert "spec.services.a.metadata" in item["message"]
    assert dev.bootstrap(world.key).json()["packet_etag"] == before
    world.write("manifest.yaml", manifest("us"))
    dev.until(lambda: dev.region(world.key) == "us")
    world.write("manifest.yaml", manifest("eu"))
    (world.folder / "people/bob.yaml").unlink()
    dev.until(lambda: dev.region(world.key) == "eu")


@pytest.mark.invariant("INV-041", "INV-004")
def test_a_deleted_binding_is_a_revocation(living: Living) -> None:
    """Its file gone, the principal gets 403 NO_BINDING; the file back, it boots again. A deleted Principal is 401."""
    dev, world = living
    (world.folder / "bindings.yaml").unlink()
    dev.until(lambda: dev.bootstrap(world.key).status_code == 403)
    assert dev.bootstrap(world.key).json()["code"] == "NO_BINDING"
    world.write("bindings.yaml", binding("ada"))
    dev.until(lambda: dev.bootstrap(world.key).status_code == 200)
    person = (world.folder / "people/ada.yaml").read_text()
    (world.folder / "people/ada.yaml").unlink()
    dev.until(lambda: dev.bootstrap(world.key).status_code in {401, 403})
    world.write("people/ada.yaml", person)
    dev.until(lambda: dev.bootstrap(world.key).status_code == 200)


def test_a_directory_that_vanishes_changes_nothing(living: Living) -> None:
    """The directory away (unmounted, renamed): said once, everything stays served; back again, edits count again."""
    dev, world = living
    away = world.folder.with_name("away")
    world.folder.rename(away)
    dev.until(lambda: bool(dev.events("directory.unavailable")))
    assert dev.bootstrap(world.key).status_code == 200
    gone = httpx.delete(f"{dev.url}/v1/admin/profiles/worker", headers={"X-API-Key": world.admin.key})
    assert (gone.status_code, gone.headers["content-type"]) == (503, "application/problem+json")
    away.rename(world.folder)
    world.write("manifest.yaml", manifest("back"))
    dev.until(lambda: dev.region(world.key) == "back", 4)
    world.write("manifest.yaml", manifest("eu"))
    dev.until(lambda: dev.region(world.key) == "eu")


@pytest.mark.invariant("INV-038")
def test_admin_writes_become_files(living: Living) -> None:
    """POST writes a declared file through the same validation, DELETE removes it (D-12, D-53)."""
    dev, world = living
    headers = {"X-API-Key": world.admin.key}
    body = {
        "apiVersion": "metagate.legivellum.io/v1alpha1",
        "kind": "Profile",
        "metadata": {"name": "made"},
        "spec": {"capabilities": {"write": True}},
    }
    made = httpx.post(f"{dev.url}/v1/admin/profiles", json=body, headers=headers)
    assert made.status_code == 201, made.text
    path = world.folder / "profiles" / "default" / "made.yaml"
    assert "write: true" in path.read_text()
    dev.until(lambda: httpx.get(f"{dev.url}/v1/admin/profiles/made", headers=headers).status_code == 200)
    assert httpx.post(f"{dev.url}/v1/admin/profiles", json=body, headers=headers).status_code == 200
    broken = {**body, "spec": {"capabilities": {"tasks": []}}}
    refused = httpx.post(f"{dev.url}/v1/admin/profiles", json=broken, headers=headers)
    assert refused.status_code == 422
    assert "spec.capabilities.tasks" in refused.text
    assert "write: true" in path.read_text()
    assert httpx.delete(f"{dev.url}/v1/admin/profiles/made", headers=headers).status_code == 204
    assert not path.exists()
    dev.until(lambda: httpx.get(f"{dev.url}/v1/admin/profiles/made", headers=headers).status_code == 404)


def test_no_file_ends_it(living: Living, tmp_path: Path) -> None:
    """F1, F6, D-72: odd numbers, a List in a linked folder and a stray file are read, followed, noted; what is served
    stays, and a file that is removed beside them is a deletion.
    """
    dev, world = living
    odd = {f"k{place}": text for place, text in enumerate(("0x_", "0b_", "08", "1e400", "0_x1F", "9" * 5000))}
    profile = resource("Profile", "odd", {"capabilities": {"a": 1}})
    hidden = world.folder / "..1" / "team-a"
    hidden.mkdir(parents=True)
    lines = "".join(f"      {name}: {text}\n" for name, text in odd.items())
    item = "- apiVersion: metagate.legivellum.io/v1alpha1\n  kind: Profile\n  metadata: {name: linked}\n"
    text = f"apiVersion: v1\nkind: List\nitems:\n{item}  spec:\n    policy:\n{lines}"
    (hidden / "list.yaml").write_text(text)
    (world.folder / "team-a").symlink_to("..1/team-a")
    (world.folder / "values.yaml").write_text("mask: 0x_\n")
    world.write("odd.yaml", profile)
    headers = {"X-API-Key": world.admin.key}

    def status(name: str) -> int:
        return httpx.get(f"{dev.url}/v1/admin/profiles/{name}", headers=headers).status_code

    dev.until(lambda: status("linked") == status("odd") == 200)
    (world.folder / "odd.yaml").unlink()
    dev.until(lambda: status("odd") == 404)
    assert status("linked") == 200
    assert dev.region(world.key) == "eu"
    assert [line["where"] for line in dev.events("file.ignored")] == ["values.yaml:1"]
    for path in (world.folder / "team-a", world.folder / "values.yaml"):
        path.unlink()
    dev.until(lambda: status("linked") == 404)


@pytest.mark.invariant("INV-038")
def test_nothing_is_written_outside_of_the_directory(living: Living, tmp_path: Path) -> None:
    """L11: where the place of an object is behind a link out of the directory, POST is refused and says so."""
    dev, world = living
    (world.folder / "manifests").symlink_to(tmp_path)
    body = {
        "apiVersion": "metagate.legivellum.io/v1alpha1",
        "kind": "Manifest",
        "metadata": {"name": "made"},
        "spec": {"deploymentKey": "made", "version": 1},
    }
    headers = {"X-API-Key": world.admin.key}
    refused = httpx.post(f"{dev.url}/v1/admin/manifests", json=body, headers=headers)
    (world.folder / "manifests").unlink()
    assert refused.status_code == 422, refused.text
    assert "leads out of the directory" in refused.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.invariant("INV-003")
def test_an_issuer_in_a_file(living: Living) -> None:
    """A TokenIssuer with inline keys: its tokens are believed within a second, and no longer once its file is gone."""
    dev, world = living
    private = ECKey.generate_key("P-256", {"kid": "k1", "alg": "ES256", "use": "sig"})
    spec = {
        "issuer": "https://idp.example.com",
        "audiences": ["metagate"],
        "algorithms": ["ES256"],
        "jwks": {"source": "Inline", "inline": {"keys": [private.as_dict(private=False)]}},
        "namespaces": ["default"],
    }
    world.write("issuer.yaml", resource("TokenIssuer", "idp", spec))
    subject = {"issuer": spec["issuer"], "subject": "eve@example.com"}
    world.write("people/eve.yaml", resource("Principal", "eve", {"type": "component", "subjects": [subject]}))
    world.write("eve.yaml", binding("eve"))
    now = int(time.time())
    claims = {"iss": spec["issuer"], "sub": "eve@example.com", "aud": "metagate", "iat": now, "exp": now + 300}
    token = jwt.encode({"alg": "ES256", "kid": "k1"}, claims, private)

    def status() -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.post(f"{dev.url}/v1/bootstrap", json={"component_key": "any"}, headers=headers).status_code

    dev.until(lambda: status() == 200)
    (world.folder / "issuer.yaml").unlink()
    dev.until(lambda: status() == 401)
    (world.folder / "people/eve.yaml").unlink()
    (world.folder / "eve.yaml").unlink()


def test_a_bomb_of_invalid_files(living: Living) -> None:
    """F33: a thousand invalid objects, a huge manifest and a YAML bomb beside one valid change, which is served at
    once.
    """
    dev, world = living
    bad = "---\n".join(resource("Profile", f"bad{n}", {"capabilities": {"tasks": n}}) for n in range(1000))
    huge = resource(
        "Manifest", "huge", {"deploymentKey": "h", "environment": {f"k{n}": "x" * 1000 for n in range(1000)}}
    )
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 12)
    )
    for name, text in (("bad.yaml", bad), ("huge.yaml", huge), ("bomb.yaml", bomb)):
        world.write(f"bombs/{name}", text)
    world.write("manifest.yaml", manifest("valid"))
    dev.until(lambda: dev.region(world.key) == "valid", 5)
    dev.until(
        lambda: len({line["name"] for line in dev.events("verdict") if line["name"].startswith("bad")}) == 1000, 10
    )
    assert any(line["where"].startswith("bombs/bomb.yaml") for line in dev.events("file.broken"))
    output = [line for line in dev.events("verdict") if line["name"] == "huge"]
    assert [line["ready"] for line in output] == [False]
    for name in ("bad", "huge", "bomb"):
        (world.folder / f"bombs/{name}.yaml").unlink()
    world.write("manifest.yaml", manifest("eu"))
    dev.until(lambda: dev.region(world.key) == "eu", 5)


def test_a_second_instance_is_refused_by_name(living: Living, data: Path) -> None:
    """Another instance on the same data directory ends with one line that names it; the first goes on."""
    dev, world = living
    second = Dev(world.folder, data)
    assert second.ended() == 3
    assert [line for line in second.lines if str(data) in line and str(dev.process.pid) in line], second.lines
    assert not any("Traceback" in line for line in second.lines)
    assert dev.bootstrap(world.key).status_code == 200


def test_a_port_in_use_is_one_line(living: Living, tmp_path: Path) -> None:
    """No traceback, no half-started database left behind."""
    _, world = living
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other = Dev(world.folder, tmp_path / "data", port=taken.getsockname()[1])
        assert other.ended(60) == 3
    assert other.lines[-1].startswith("metagate: ")
    assert "port" in other.lines[-1]
    assert not any("Traceback" in line for line in other.lines)
    assert _postmaster(tmp_path / "data") is None


def test_stopping_killing_and_coming_back(tmp_path: Path) -> None:
    """SIGTERM ends it cleanly; after kill -9 no database is left running; data and identities survive both."""
    world, data = DeclaredFolder(tmp_path / "resources"), tmp_path / "data"
    first = Dev(world.folder, data).ready()
    etag = first.bootstrap(world.key).json()["packet_etag"]
    startup = first.bootstrap(world.key).json()["startup"]["startup_id"]
    assert first.stop(signal.SIGTERM) == 0
    assert _postmaster(data) is None

    second = Dev(world.folder, data).ready()
    assert second.bootstrap(world.key).json()["packet_etag"] == etag
    assert not second.events("published"), "the same world again is no new revision"
    server = _postmaster(data)
    assert server is not None
    second.stop(signal.SIGKILL)
    second.until(lambda: _postmaster(data) is None, 20)

    world.write("manifest.yaml", manifest("after"))
    third = Dev(world.folder, data).ready()
    try:
        assert third.region(world.key) == "after"
        observations = httpx.get(f"{third.url}/v1/startup/{startup}", headers={"X-API-Key": world.key.key})
        assert (observations.status_code, observations.json()["status"]) == (200, "OPEN")
    finally:
        assert third.stop(signal.SIGINT) == 0


def test_a_database_that_ends_by_itself(tmp_path: Path) -> None:
    """The server killed: one line says so, the process ends, and the next start recovers everything."""
    world, data = DeclaredFolder(tmp_path / "resources"), tmp_path / "data"
    first = Dev(world.folder, data).ready()
    etag = first.bootstrap(world.key).json()["packet_etag"]
    server = _postmaster(data)
    assert server is not None
    os.kill(server, signal.SIGKILL)
    assert first.ended() == 3
    assert "PostgreSQL ended by itself" in first.lines[-1]
    second = Dev(world.folder, data).ready()
    assert second.bootstrap(world.key).json()["packet_etag"] == etag
    assert second.stop() == 0


@pytest.mark.invariant("INV-003")
def test_a_database_of_ones_own_and_a_token(tmp_path: Path) -> None:
    """`--database-url` as the seeds write it; a key and an HS256 token of the same principal get the same packet."""
    world = DeclaredFolder(tmp_path / "resources")
    secret = "a-secret-of-more-than-thirty-two-bytes"
    world.write(
        "people/ada.yaml", principal("ada", world.key, subjects=[{"issuer": "metagate", "subject": "ada@example.com"}])
    )
    (tmp_path / "pg").mkdir(mode=0o755)
    with embedded_postgres(tmp_path / "pg") as server:
        url = server.dsn(tcp=True).replace("postgresql://", "postgresql+asyncpg://")
        dev = Dev(world.folder, tmp_path / "data", "--database-url", url, JWT_SECRET=secret).ready()
        token = metagate("token", "create", "ada@example.com", JWT_SECRET=secret).stdout.strip()
        by_token = httpx.post(
            f"{dev.url}/v1/bootstrap", json={"component_key": "any"}, headers={"Authorization": f"Bearer {token}"}
        )
        assert by_token.status_code == 200, by_token.text
        assert by_token.json()["packet_etag"] == dev.bootstrap(world.key).json()["packet_etag"]
        assert (tmp_path / "data" / "roles.json").stat().st_mode & 0o777 == 0o600
        newer = Dev(world.folder, tmp_path / "other", "--database-url", url).ready()
        world.write("manifest.yaml", manifest("fenced"))
        assert dev.ended() == 3
        assert "another writer took over" in dev.lines[-1]
        assert newer.stop() == 0


def _postmaster(data: Path) -> int | None:
    """The process id of the server on this data directory, if it lives."""
    try:
        pid = int((data / "pgdata" / "postmaster.pid").read_text().split("\n", 1)[0])
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid
