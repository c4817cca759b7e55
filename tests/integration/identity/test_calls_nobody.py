"""The served gate is watched from outside while it is asked in every way: it opens sockets to PostgreSQL only (INV-024)."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from tests.databases import Database
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture
from tests.integration.api.processes import started, wait_for
from tests.integration.identity.conftest import Corpus

# Every connect() and name look-up of the process and of the workers it starts, as the interpreter announces them.
# uvloop calls the kernel without telling the interpreter, so this run does without it.
WATCHED = """
import asyncio, sys, types
sys.modules["uvloop"] = types.ModuleType("uvloop")
sys.modules["uvloop"].new_event_loop = asyncio.new_event_loop
def watch(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"}:
        with open(%r, "a") as log:
            log.write(event + " " + repr(arguments[1:] if event == "socket.connect" else arguments) + "\\n")
sys.addaudithook(watch)
"""


@pytest.fixture
def watch(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A log of what is called, and the environment that makes a Python process write it."""
    log = tmp_path / "calls"
    log.touch()
    (tmp_path / "sitecustomize.py").write_text(WATCHED % str(log))
    return log, {"PYTHONPATH": str(tmp_path)}


async def ask(port: int, indexer: PrincipalFixture, corpus: Corpus) -> dict[int, int]:
    """Bootstraps by key, by each good token, by junk, and nobody: how often each status."""
    result: dict[int, int] = {}
    whole = [token for token in corpus.attacks.values() if token.isascii() and token == token.strip() != b""]
    junk = [token for token in whole if token.decode().isprintable() and len(token) < 8_000][:80]
    shown = [
        indexer.by_key,
        {"x-api-key": "mgk_junk"},
        {},
        *({"authorization": f"Bearer {token}"} for token in corpus.good.values()),
        *({"authorization": f"Bearer {token.decode()}"} for token in junk),
    ]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
        for headers in shown:
            answer = await client.post("/v1/bootstrap", json={"component_key": "indexer_1"}, headers=headers)
            result[answer.status_code] = result.get(answer.status_code, 0) + 1
        for path in ("/", "/.well-known/metagate.json", "/v1/topology", "/v1/startups"):
            await client.get(path, headers=indexer.by_key)
        await client.post("/v1/introspect", data={"token": corpus.good["HS256"]}, headers=indexer.by_key)
    return result


@pytest.mark.invariant("INV-024", "INV-023")
async def test_by_the_interpreters_word(
    gate: GateFixture, indexer: PrincipalFixture, corpus: Corpus, database: Database, watch: tuple[Path, dict[str, str]]
) -> None:
    """Keys, tokens of four algorithms and junk, with two workers: no connect() and no look-up but of the database."""
    log, environment = watch
    with started(database, **environment, JWT_SECRET=corpus.secret, METAGATE_WORKERS="2") as (process, port):
        wait_for(port, process, "/readyz")
        before = log.read_text()
        assert before, "the guard sees what it should see: the database was connected to"
        result = await ask(port, indexer, corpus)
        assert result[200] >= len(corpus.good)
        assert result[401] >= 50
    allowed = database_places(database)
    called = {line for line in log.read_text().splitlines() if not any(place in line for place in allowed)}
    assert called == set()


def database_places(database: Database) -> set[str]:
    """How a call to the database looks: the name of its socket, or its port."""
    url = httpx.URL(database.api.replace("postgresql://", "http://"))
    port = str(url.params.get("port") or url.port or 5432)
    return {f".s.PGSQL.{port}", port}


@pytest.mark.invariant("INV-024")
@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here; the interpreter's word was taken above")
async def test_by_the_kernels_word(
    gate: GateFixture, indexer: PrincipalFixture, corpus: Corpus, database: Database, tmp_path: Path
) -> None:
    """The same seen by strace, for what does not go through the interpreter: uvloop's own connect() included."""
    log = tmp_path / "strace"
    with started(database, JWT_SECRET=corpus.secret) as (process, port):
        wait_for(port, process, "/readyz")
        command = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-e", "signal=none"]
        tracer = subprocess.Popen([*command, "-o", str(log), "-p", str(process.pid)], stderr=subprocess.DEVNULL)
        try:
            await asyncio.sleep(0.5)
            if tracer.poll() is not None:
                pytest.skip("tracing is not permitted here")
            # The gate loses its connections and opens new ones, so that there is something to see.
            await gate.ask(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND usename = 'metagate_api'",
                database.name,
            )
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                for _ in range(100):
                    if (await client.get("/v1/startups", headers=indexer.by_key)).status_code == 200:
                        break
                    await asyncio.sleep(0.05)
            result = await ask(port, indexer, corpus)
            assert result[200] >= len(corpus.good)
        finally:
            tracer.terminate()
            tracer.wait(10)
    calls = [line for line in log.read_text().splitlines() if "connect(" in line or "sa_family=AF_INET" in line]
    assert calls, "the tracer saw the database being connected to"
    allowed = database_places(database)
    assert [line for line in calls if not any(place in line for place in allowed)] == []
