"""The sample gate: what the kit gives to a gate that is nothing but its subject."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.databases import Database
from tests.integration.dev.running import DeclaredFolder, Dev, principal
from tests.integration.memorygate.conftest import PASSWORD, LedgerDatabase, _as, rows
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal, LedgerProcess, free_port, ledger_fixture, ready
from tests.sample_gate.gate import EMITTER, GATE, Settings
from tests.sample_gate.notes import WRITER

from legivellum.gate.composition import serving
from legivellum.identity.api_keys import mint

ROOT = Path(__file__).parents[3]
ALICE = LedgerPrincipal(uuid4(), "alice")
EVE = LedgerPrincipal(ALICE.tenant, "eve", suspended=True)
STRANGER = LedgerPrincipal(uuid4(), "alice")


@pytest_asyncio.fixture(loop_scope="session")
async def database(fresh_database: Database) -> Database:
    await GATE.migrate(fresh_database.owner, passwords={WRITER: PASSWORD})
    return fresh_database


@pytest_asyncio.fixture(loop_scope="session")
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """The gate on a socket, real callers; no process of the ledger runs anywhere."""
    settings = Settings(
        database_url=SecretStr(_as(database.owner, WRITER)),
        identity_database_url=SecretStr(database.identity),
        port=free_port(),
    )
    ledger = LedgerDatabase(database, _as(database.owner, WRITER), "")
    async with ledger_fixture(ledger, ALICE, EVE, STRANGER), serving(GATE, settings) as url:
        await ready(url)
        async with httpx.AsyncClient(base_url=url, timeout=10) as client:
            yield client


async def store(client: httpx.AsyncClient, note_id: str, text: str = "hello") -> httpx.Response:
    return await client.post("/notes", json={"note_id": note_id, "text": text}, headers=ALICE.headers)


async def receipts(database: Database) -> list[tuple[object, ...]]:
    query = "SELECT receipt_id, body::jsonb ->> 'emitter', kind, phase, task_id FROM memorygate.receipt"
    return await rows(database.superuser, query)


async def test_a_note_and_its_receipt_are_one_commit(client: httpx.AsyncClient, database: Database):
    """201 means that both are there; the note is read back and another tenant does not see it."""
    stored = await store(client, "n1")
    assert stored.status_code == 201, stored.text
    assert await receipts(database) == [(stored.json()["receipt_id"], EMITTER, "artifact", "stored", "n1")]
    read = await client.get("/notes/n1", headers=ALICE.headers)
    assert (read.status_code, read.json()) == (200, stored.json())
    assert (await client.get("/notes/n1", headers=STRANGER.headers)).status_code == 404


async def test_of_many_writers_one_stores(client: httpx.AsyncClient, database: Database):
    """Twenty requests for one name: one 201, the others 409, and one receipt."""
    answers = await asyncio.gather(*(store(client, "same", f"text {n}") for n in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"NOTE_EXISTS"}
    assert len(await receipts(database)) == 1


async def test_without_a_receipt_there_is_no_note(client: httpx.AsyncClient, database: Database):
    """A receipt that the ledger refuses, or a transaction that is rolled back, leaves neither."""
    connection = await asyncpg.connect(_as(database.owner, WRITER))
    query = "SELECT samplegate.store($1, $2, 'alice', 'text', $3, $4)"
    body = '{"not": "a receipt"}'
    try:
        assert await connection.fetchval(query, ALICE.tenant, "refused", "id", body) == "INVALID_RECEIPT"
        good = await _canonical(ALICE.tenant, "undone")
        transaction = connection.transaction()
        await transaction.start()
        assert await connection.fetchval(query, ALICE.tenant, "undone", "id", good) == "STORED"
        await transaction.rollback()
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetchval("SELECT count(*) FROM samplegate.note")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetchval("SELECT memorygate.emit_depotgate(ARRAY[$1], NULL)", good)
    finally:
        await connection.close()
    assert await rows(database.superuser, "SELECT note_id FROM samplegate.note") == []
    assert await receipts(database) == []


async def _canonical(tenant: UUID, note_id: str) -> str:
    from tests.sample_gate.gate import _receipt
    from tests.sample_gate.notes import Note
    from ulid import ULID

    return _receipt(str(tenant), Note(note_id, "alice", "text", str(ULID()))).form.decode()


async def test_what_every_gate_answers_is_there(client: httpx.AsyncClient):
    """Root, health, readiness, metrics and OpenAPI; HEAD wherever GET is, without a body."""
    assert (await client.get("/")).json()["doctrine"] == GATE.doctrine
    assert (await client.get("/health")).json()["service"] == "samplegate"
    assert (await client.get("/readyz")).json() == {
        "status": "ok", "database": "up", "identity": "up", "schema_version": 1,
    }  # fmt: skip
    await store(client, "counted")
    metrics = (await client.get("/metrics")).text
    assert 'samplegate_http_requests_total{route="/notes",status="201"}' in metrics
    assert "samplegate_database_up 1.0" in metrics
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"/notes", "/notes/{note_id}", "/health", "/metrics"} <= paths.keys()
    for path in ("/", "/health", "/livez", "/readyz", "/metrics", "/openapi.json", "/notes/counted"):
        head = await client.head(path, headers=ALICE.headers)
        assert (head.status_code, head.content) == (200, b""), path


@pytest.mark.invariant("INV-095")
async def test_it_can_be_interviewed(client: httpx.AsyncClient, database: Database):
    """The kit asks the gate's one function for the caller's tenant; nothing is written, and only GET is answered."""
    await store(client, "counted")
    tables = ("samplegate.note", "memorygate.receipt", "memorygate.tally", "memorygate.obligation")
    query = " UNION ALL ".join(
        f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {name} AS t" for name in tables
    )
    before = await rows(database.superuser, query)
    told = (await client.get("/v1/interview", headers=ALICE.headers)).json()
    assert datetime.fromisoformat(told.pop("as_of")).utcoffset() == timedelta()
    assert told == {
        "gate": "samplegate", "version": "0.1", "tenant_id": str(ALICE.tenant), "counts": {"notes": 1}, "oldest": {},
        "notes": [],
    }  # fmt: skip
    assert (await client.get("/v1/interview", headers=STRANGER.headers)).json()["counts"] == {"notes": 0}
    assert (await client.get("/v1/interview", headers=EVE.headers)).json()["code"] == "PRINCIPAL_SUSPENDED"
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = await client.request(method, "/v1/interview", headers=ALICE.headers, json={})
        assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert await rows(database.superuser, query) == before


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "/notes/n", None, (401, "CREDENTIAL_MISSING")),
        ("GET", "/nothing", None, (404, "NOT_FOUND")),
        ("DELETE", "/notes", None, (405, "METHOD_NOT_ALLOWED")),
        ("POST", "/notes", '{"note_id": "n"}', (422, "INVALID_REQUEST")),
        ("POST", "/notes", '{"note_id": "n", "text"', (400, "MALFORMED_JSON")),
        ("POST", "/notes", '{"note_id": "n", "text": "a", "more": 1}', (422, "INVALID_REQUEST")),
        ("GET", "/notes/n?limit=3", None, (422, "INVALID_REQUEST")),
    ],
)
async def test_refusals_are_problems(
    client: httpx.AsyncClient, method: str, path: str, body: str | None, expected: tuple[int, str]
):
    """Each has its code, and the gate's own codes stand in its OpenAPI document."""
    headers = {} if expected[0] == 401 else {**ALICE.headers, "Content-Type": "application/json"}
    answer = await client.request(method, path, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == expected
    assert answer.headers["content-type"] == "application/problem+json"
    document = (await client.get("/openapi.json")).json()
    assert {"NOTE_EXISTS", expected[1]} <= set(document["components"]["schemas"]["Code"]["enum"])


async def test_a_suspended_principal_is_refused(client: httpx.AsyncClient):
    answer = await client.get("/notes/n", headers=EVE.headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "PRINCIPAL_SUSPENDED")


async def test_its_own_command_migrates_and_serves_with_two_workers(fresh_database: Database, tmp_path: Path):
    """`migrate` twice, then `serve`: the ledger's schema comes first, both workers answer, SIGTERM ends it with 0."""
    command = [sys.executable, "-m", "tests.sample_gate"]
    environment = {"SAMPLEGATE_DATABASE_URL": fresh_database.owner, "SAMPLEGATE_WRITER_PASSWORD": PASSWORD}
    for expected in (b"schema version 1, applied: 0001_notes", b"schema version 1, applied: nothing"):
        migrating = await asyncio.create_subprocess_exec(
            *command, "migrate", env=environment, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await migrating.communicate()
        assert (migrating.returncode, output.strip()) == (0, expected)
    port = free_port()
    serving = LedgerProcess(
        [*command, "serve"],
        {
            "SAMPLEGATE_DATABASE_URL": _as(fresh_database.owner, WRITER),
            "SAMPLEGATE_IDENTITY_DATABASE_URL": fresh_database.identity,
            "SAMPLEGATE_PORT": str(port),
            "SAMPLEGATE_WORKERS": "2",
        },
        tmp_path / "log",
    )
    await serving.start()
    try:
        await ready(f"http://127.0.0.1:{port}")
        for _ in range(20):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                assert (await client.get("/livez")).status_code == 200
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            counted = (await client.get("/metrics")).text
        match = re.search(r'samplegate_http_requests_total\{route="/livez",status="200"\} ([\d.]+)', counted)
        assert match is not None
        assert float(match[1]) == 20
    finally:
        assert serving.running is not None
        serving.running.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(serving.running.wait(), 20) == 0


@pytest.mark.parametrize(
    ("key", "code", "line"),
    [
        ("tls.key", 1, "SAMPLEGATE_TLS_CERT and SAMPLEGATE_TLS_KEY are not a certificate and its key in PEM"),
        ("missing.key", 3, "No such file or directory"),
        (None, 1, "SAMPLEGATE_TLS_CERT and SAMPLEGATE_TLS_KEY belong together"),
    ],
)
async def test_a_certificate_that_cannot_be_served_ends_the_command(
    tmp_path: Path, key: str | None, code: int, line: str
):
    """Before a worker begins, which would be started again for ever; in one line that names the settings."""
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_text("nonsense")
    environment = {"SAMPLEGATE_WORKERS": "2", "SAMPLEGATE_PORT": "0", "SAMPLEGATE_TLS_CERT": str(tmp_path / "tls.crt")}
    if key is not None:
        environment["SAMPLEGATE_TLS_KEY"] = str(tmp_path / key)
    command = [sys.executable, "-m", "tests.sample_gate", "serve"]
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    serving = await asyncio.create_subprocess_exec(*command, env=environment, cwd=ROOT, **pipes)
    _, said = await asyncio.wait_for(serving.communicate(), 30)
    assert (serving.returncode, line in said.decode()) == (code, True), said.decode()
    assert "Traceback" not in said.decode()


@pytest.mark.timeout(120)
async def test_it_runs_in_dev_beside_metagate_and_the_ledger(tmp_path: Path):
    """`--with memorygate,module:ATTRIBUTE`: a note is stored with a declared key and its receipt is read at the ledger."""
    world = DeclaredFolder(tmp_path / "resources")
    key = mint()
    world.write("people/ann.yaml", principal("ann", key, type="principal"))
    memorygate, sample = free_port(), free_port()
    dev = Dev(
        world.folder, tmp_path / "data", "--with", "memorygate,tests.sample_gate.gate:GATE",
        MEMORYGATE_PORT=str(memorygate), SAMPLEGATE_PORT=str(sample),
    )  # fmt: skip
    try:
        await asyncio.to_thread(dev.ready)
        served = {line["gate"]: line["url"] for line in dev.events("serving_gate")}
        assert served == {
            "memorygate": f"http://127.0.0.1:{memorygate}", "samplegate": f"http://127.0.0.1:{sample}",
        }  # fmt: skip
        headers = {"X-API-Key": key.key}
        async with httpx.AsyncClient(timeout=10) as client:
            stored = await client.post(
                f"{served['samplegate']}/notes", json={"note_id": "n", "text": "hello"}, headers=headers
            )
            assert stored.status_code == 201, stored.text
            receipt = await client.get(
                f"{served['memorygate']}/receipts/{stored.json()['receipt_id']}", headers=headers
            )
        assert (receipt.status_code, receipt.json()["emitter"]) == (200, EMITTER)
    finally:
        assert await asyncio.to_thread(dev.stop) == 0


def test_gates_are_small():
    """The sample gate, Python and SQL, is below 300 lines; the Python of the ledger is below 2,000, its console's 1,100."""

    def lines(folder: Path, *endings: str) -> int:
        return sum(len(path.read_text().splitlines()) for path in folder.rglob("*") if path.suffix in endings)

    assert lines(ROOT / "tests" / "sample_gate", ".py", ".sql") < 300
    ledger = ROOT / "gates" / "memorygate"
    console = lines(ledger / "console", ".py") + len((ledger / "console_queries.py").read_text().splitlines())
    assert console < 1_100
    assert lines(ledger, ".py") - console < 2_000
