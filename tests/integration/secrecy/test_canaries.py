"""Canary secrets in every place where secrets are kept or sent, looked for in every place where things are said."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.canaries import canaries_in, canary, dump
from tests.databases import Database, Server
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture, settings_for
from tests.integration.api.processes import free_port, wait_for
from tests.integration.dev.running import DeclaredFolder, Dev, manifest, resource

from legivellum.identity import api_keys
from legivellum.identity.shared_secret import SharedSecret
from metagate_api.endpoints import ENDPOINTS
from metagate_store.publisher import Publisher

pytestmark = [pytest.mark.timeout(120), pytest.mark.invariant("INV-034")]
METAGATE = [sys.executable, "-m", "metagate_cli.main"]
QUIET = {
    name: value
    for name, value in os.environ.items()  # noqa: TID251 - handed on, not read
    if not name.startswith(("METAGATE_", "JWT_", "DATABASE_URL"))
}


def pem(path: Path) -> str:
    """An Ed25519 key in a file; its secret line."""
    text = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    path.write_text(text)
    return text.splitlines()[1]


async def everything(client: httpx.AsyncClient, headers: dict[str, str], session: str, values: dict[str, str]) -> str:
    """Every route with a credential, asked well and badly; all that was answered, headers included."""
    output = []
    for endpoint in ENDPOINTS:
        for key in ("x", *values.values()):
            names = {"startup_id": session if key == "x" else key, "kind": "profiles", "key": key}
            path = endpoint.path.format(**names, problemata_id=key, instance=key)
            bodies: list[Any] = [None]
            if endpoint.method in {"POST", "PUT"}:
                bodies = [
                    {"component_key": "indexer_1", "startup_id": session, "build_version": "1", "error": "no disk"},
                    {"component_key": {"password": key}, key: key, "startup_id": key, "spec": {"password": key}},
                    {"endpoint": f"http://a/{key}", "version": key, "capabilities": [key], "health": "ok"},
                    [key],
                ]
            for body in bodies:
                answer = await client.request(
                    endpoint.method, path, headers=headers, json=body, params={"cursor": key} if key != "x" else None
                )
                assert answer.status_code != 500, (endpoint.path, answer.text)
                output.append(f"{answer.status_code} {dict(answer.headers)} {answer.text}")
    return "\n".join(output)


async def test_the_served_gate(postgres: Server, tmp_path: Path) -> None:
    """Passwords, keys and tokens of a served gate and its callers are in no answer, log, metric or row."""
    database = await postgres.make()
    secret, log = canary() + canary(), tmp_path / "log"
    port, metrics = free_port(), free_port()
    signing = pem(tmp_path / "signing.pem")
    environment = {
        "DATABASE_URL": database.api,
        "JWT_SECRET": secret,
        "DB_PASSWORD": canary(),  # what the packet's required_env names
        "METAGATE_SIGNING_KEY_FILE": str(tmp_path / "signing.pem"),
        "DEBUG": "true",
        "METAGATE_ACCESS_LOG": "all",
        "METAGATE_PORT": str(port),
        "METAGATE_METRICS_PORT": str(metrics),
        "METAGATE_WORKERS": "2",
        "METAGATE_CREDENTIALS_POLL_MS": "50",
    }
    with log.open("wb") as stream:
        served = subprocess.Popen([*METAGATE, "serve"], env={**QUIET, **environment}, stderr=stream, stdout=stream)
    publisher = await Publisher.open(database.publisher)
    await publisher.load()
    gate = GateFixture(f"http://127.0.0.1:{port}", database, publisher, settings_for(database))
    try:
        wait_for(port, served, "/readyz")
        principal = await gate.principal("admin", type="admin")
        token = SharedSecret(issuer="metagate", secret=secret.encode()).mint(principal.subject, now=time.time())
        values = {
            "the database's password": database.api.split(":")[2].split("@")[0],
            "JWT_SECRET": secret,
            "a variable": environment["DB_PASSWORD"],
            "the signing key": signing,
            "an API key": principal.key,
            "an unknown API key": api_keys.mint().key,
            "a token": token,
            "a token's signature": token.rpartition(".")[2],
            "somebody's password": canary(),
        }
        sent = {name: value for name, value in values.items() if name.startswith(("an ", "a token", "some"))}
        places = {}
        for name, headers in {
            "answers by key": principal.by_key,
            "answers by token": {"authorization": f"Bearer {token}"},
            "answers to an unknown key": {"x-api-key": values["an unknown API key"]},
            "answers to a broken token": {"authorization": f"Bearer {token}x"},
            "answers to two credentials": {"authorization": f"Bearer {token}", "x-api-key": principal.key},
            "answers to a password": {"authorization": "Basic " + values["somebody's password"]},
        }.items():
            session = (await settled_boot(gate, principal)).json()["startup"]["startup_id"]
            places[name] = await everything(gate.client, headers, session, sent if name == "answers by key" else {})
        session = (await settled_boot(gate, principal)).json()["startup"]["startup_id"]
        report = {"startup_id": session, "error": f"cannot log in with {principal.key} nor {token}"}
        details = {"details": {"password": values["somebody's password"]}}
        answer = await gate.client.post("/v1/startup/failed", json={**report, **details}, headers=principal.by_key)
        assert answer.status_code == 200, answer.text
        assert "redacted" in str(dict(await gate.stored(session)))
        places["metrics"] = (await gate.client.get(f"http://127.0.0.1:{metrics}/metrics")).text
        await kicked(gate, database)
        served.send_signal(signal.SIGTERM)
        served.wait(20)
        places["the gate's log"] = log.read_text()
        places["the database"] = dump(database.superuser)
        if postgres.log is not None:
            places["the server's log"] = postgres.log.read_text() or "silent"
        assert '"status": 401' in places["the gate's log"]
        assert canaries_in(values, places) == []
    finally:
        if served.poll() is None:
            served.kill()
            served.wait()
        await gate.close()
        await postgres.drop(database)


async def settled_boot(gate: GateFixture, principal: PrincipalFixture) -> httpx.Response:
    """A bootstrap by whichever worker; one of them may not have seen the principal yet."""
    for _ in range(100):
        answer = await gate.boot(principal)
        if answer.status_code == 200:
            return answer
        time.sleep(0.05)
    raise AssertionError(answer.text)


async def kicked(gate: GateFixture, database: Database) -> None:
    """The database goes away under the gate, so that it has something to complain about."""
    await gate.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND usename = 'metagate_api'",
        database.name,
    )
    await gate.ask(f"ALTER DATABASE {database.name} CONNECTION LIMIT 0")
    await gate.client.get("/v1/topology", headers={"x-api-key": api_keys.mint().key})
    time.sleep(0.5)


@pytest.mark.parametrize("traceback", ["", "1"], ids=["a line", "a traceback"])
def test_what_cannot_start(tmp_path: Path, traceback: str) -> None:
    """A gate that cannot start says why, and a developer gets a traceback; neither shows what is in the settings."""
    values = {"a password": canary(), "a key file": canary()}
    key = tmp_path / "key.pem"
    key.write_text(f"-----BEGIN PRIVATE KEY-----\n{values['a key file']}\n-----END PRIVATE KEY-----\n")
    good = f"postgresql://metagate_api:{values['a password']}@127.0.0.1:1/metagate"
    attempts = {
        "a broken signing key": {"DATABASE_URL": good, "METAGATE_SIGNING_KEY_FILE": str(key)},
        "a broken TLS key": {"DATABASE_URL": good, "METAGATE_TLS_CERT": str(key), "METAGATE_TLS_KEY": str(key)},
        "a number that is none": {"DATABASE_URL": good, "METAGATE_WORKERS": values["a password"]},
    }
    migrations = {
        "nobody there": good,
        "a broken host": f"postgresql://metagate_owner:{values['a password']}@[::/metagate",
        "a broken port": f"postgresql://metagate_owner:{values['a password']}@host:port/metagate",
        "another scheme": f"mysql://metagate:{values['a password']}@127.0.0.1:1/metagate",
    }
    output = {}
    for name, environment in attempts.items():
        output[name] = ended(["serve", "--port", "0"], {**environment, "METAGATE_TRACEBACK": traceback})
    for name, url in migrations.items():
        output[name] = ended(["migrate"], {"DATABASE_URL": url, "METAGATE_TRACEBACK": traceback})
    assert canaries_in(values, output) == []


def ended(arguments: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [*METAGATE, *arguments],
        env={**QUIET, "DEBUG": "true", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def living(tmp_path: Path) -> Iterator[tuple[Dev, DeclaredFolder, dict[str, str]]]:
    values = {"a variable": canary(), "JWT_SECRET": canary() + canary()}
    world = DeclaredFolder(tmp_path / "resources")
    dev = Dev(
        world.folder,
        tmp_path / "data",
        DEBUG="true",
        METAGATE_ACCESS_LOG="all",
        DB_PASSWORD=values["a variable"],
        JWT_SECRET=values["JWT_SECRET"],
    )
    try:
        dev.ready()
        yield dev, world, values
    finally:
        if dev.process.poll() is None:
            dev.stop()


def test_dev_and_what_it_refuses(living: tuple[Dev, DeclaredFolder, dict[str, str]], tmp_path: Path) -> None:
    """Declared secrets, Secrets beside the declared files, and posted ones: refused by path, and said and stored nowhere."""
    dev, world, values = living
    values |= {name: canary() for name in ("declared", "declared deep", "in a Secret", "in half a file", "posted")}
    values |= {
        "a declared token": "gh" + "p_" + canary()[:36],
        "a key": world.key.key,
        "an admin's key": world.admin.key,
    }
    bad = {"environment": {"password": values["declared"], "list": [{"apiKey": values["declared deep"]}]}}
    world.write("bad.yaml", resource("Manifest", "bad", {"deploymentKey": "d", **bad}))
    world.write("token.yaml", resource("Profile", "token", {"capabilities": {"note": values["a declared token"]}}))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    world.write("secret.yaml", json.dumps({**secret, "stringData": {"password": values["in a Secret"]}}))
    world.write("half.yaml", f"kind: Manifest\nspec: {{password: {values['in half a file']}, [")
    world.write("manifest.yaml", manifest("us"))
    dev.until(lambda: dev.region(world.key) == "us", 10)
    dev.until(lambda: {"bad", "token"} <= {line["name"] for line in dev.events("verdict") if not line["ready"]}, 10)
    dev.until(lambda: any(line["where"].startswith("half.yaml") for line in dev.events("file.broken")), 10)
    output = [dev.bootstrap(world.key).text]
    with httpx.Client(base_url=dev.url, headers={"X-API-Key": world.admin.key}, timeout=10) as client:
        posted = json.loads(json.dumps({"apiVersion": "metagate.legivellum.io/v1alpha1", "kind": "Manifest"}))
        posted |= {"metadata": {"name": "posted"}, "spec": {"environment": {"password": values["posted"]}}}
        refused = client.post("/v1/admin/manifests", json=posted)
        assert refused.status_code == 422, refused.text
        output.append(refused.text)
        views = (
            "principals",
            "profiles",
            "manifests",
            "bindings",
            "secret-refs",
            "policy-profiles",
            "problematas",
            "plan-templates",
        )
        paths = ("/v1/topology", "/v1/startups", "/v1/admin/manifests/bad", "/v1/admin/manifests/posted")
        output += [client.get(path).text for path in (*paths, *(f"/v1/admin/{view}" for view in views))]
        metrics = client.get("/metrics").text
    dumped = dump(_owner(tmp_path / "data"))
    server_log = "".join(path.read_text(errors="replace") for path in (tmp_path / "data").rglob("postgres.log"))
    dev.stop()
    assert any("spec.environment.password" in line for line in dev.lines), "the refusal names the path"
    places = {"answers": "\n".join(output), "metrics": metrics, "the database": dumped, "the log": "\n".join(dev.lines)}
    assert canaries_in(values, {**places, "the server's log": server_log or "silent"}) == []


def _owner(data: Path) -> str:
    """The running embedded server, as its superuser."""
    [postmaster] = data.rglob("postmaster.pid")
    lines = postmaster.read_text().splitlines()
    passwords = json.loads(next(data.rglob("passwords.json")).read_text())
    return f"postgresql://postgres:{passwords['postgres']}@127.0.0.1:{lines[3]}/metagate"
