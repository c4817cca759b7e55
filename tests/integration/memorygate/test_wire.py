"""The OpenAPI document against the gate: whatever fits the schema, and much that does not, gets a documented answer."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.memorygate.conftest import LedgerDatabase, Peer, accepted, new_id, process_on, rows

from legivellum.gate.composition import application
from legivellum.gate.serving import bound
from legivellum.http.limits import Limits
from legivellum.http.protocol import guarded
from legivellum.receipts.receipt import Draft
from memorygate.gate import GATE
from memorygate.ledger import MemoryGateDatabase

TENANT = uuid4()
ME = json.dumps(
    {
        "tenant": str(TENANT),
        "name": "alice",
        "type": "principal",
        "scope": "Namespace",
        "rights": [],
        "suspended": False,
    }
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def base_url(ledger: MemoryGateDatabase) -> AsyncIterator[str]:
    process = process_on(ledger, deadline_ms=10_000, rate_per_second=0)
    listening = bound("127.0.0.1", 0)
    config = uvicorn.Config(
        application(GATE, process).asgi,
        http=guarded(Limits(body_bytes=524_288)),
        ws="none",
        log_config=None,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve([listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    await task


@pytest.mark.slow
async def test_schemathesis_finds_nothing(base_url: str):
    """Generated and corner-case requests to every operation but the endless one: every answer documented, none a 5xx."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run", f"{base_url}/openapi.json", "--url", base_url, "-H", f"X-Me: {ME}",
        "--exclude-path", "/receipts/stream",
        "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        "--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--request-timeout", "10",
        "--generation-database", "none", "--no-color", "--suppress-health-check", "all",
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-8_000:]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.invariant("INV-043", "INV-048")
async def test_a_receipt_with_one_field_made_of_anything_is_stored_whole_or_not_at_all(
    base_url: str, ledger_database: LedgerDatabase
):
    """Each field in turn replaced by arbitrary JSON: 201 and readable, or a 4xx that names the field, and then nothing is stored."""

    def ask() -> None:
        with httpx.Client(base_url=base_url, headers={"X-Me": ME}) as client:

            @settings(max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(name=st.sampled_from([*Draft.model_fields, "stored_at", "archived_at", "read_at"]), value=JSON)
            def check(name: str, value: object) -> None:
                body = accepted(task_id=new_id(), principal_ai="alice")
                receipt_id = body["receipt_id"]
                body[name] = value
                answer = client.post("/receipts", json=body)
                assert answer.status_code in {200, 201, 400, 403, 409, 422}, answer.text
                if answer.status_code in {200, 201}:
                    assert client.get(f"/receipts/{answer.json()['receipt_id']}").status_code == 200
                    return
                if answer.status_code == 422:
                    assert name in answer.json()["detail"]
                    assert answer.json()["code"] == "INVALID_RECEIPT"
                if name != "receipt_id":
                    assert client.get(f"/receipts/{receipt_id}").status_code == 404

            check()

    await asyncio.to_thread(ask)
    assert await rows(ledger_database.auditor, "SELECT * FROM memorygate.drifted(1)") == []


@pytest.mark.invariant("EXT-18")
async def test_a_log_or_metric_that_fails_does_not_turn_a_stored_receipt_into_an_error(
    ledger: MemoryGateDatabase, monkeypatch: pytest.MonkeyPatch
):
    """The receipt is answered with 201 although what is told about it afterwards raises."""
    process = process_on(ledger, deadline_ms=10_000, access_log="all")

    class Broken:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("nothing is told today")

    for broken in (
        "memorygate.metrics.RECEIPTS",
        "memorygate.metrics.METRICS.requests",
        "legivellum.http.access_log._log",
    ):
        monkeypatch.setattr(broken, Broken())
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(application(GATE, process).asgi), base_url="http://x"
    ) as client:
        answer = await client.post(
            "/receipts", json=accepted(task_id="logged", principal_ai="alice"), headers={"X-Me": ME}
        )
        assert answer.status_code == 201, answer.text


async def test_a_batch_costs_as_many_tokens_as_it_has_items(ledger: MemoryGateDatabase):
    """Ten tokens are one batch of ten, or ten receipts: then 429; and a batch of one costs what one receipt costs."""
    process = process_on(ledger, deadline_ms=10_000, rate_per_second=0.001, rate_burst=10)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(application(GATE, process).asgi), base_url="http://x"
    ) as client:

        def batch(items: int, name: str) -> Awaitable[httpx.Response]:
            receipts = [accepted(task_id=f"{name}{n}", principal_ai=name) for n in range(items)]
            return Peer(client, TENANT, name).post({"receipts": receipts}, "/receipts/batch")

        assert (await batch(10, "ada")).status_code == 200
        answer = await batch(1, "ada")
        assert (answer.status_code, answer.json()["code"]) == (429, "RATE_LIMITED")
        assert int(answer.headers["retry-after"]) >= 1

        assert [(await batch(1, "bob")).status_code for _ in range(11)] == [200] * 10 + [429]

        assert (await batch(4, "eve")).status_code == 200
        refused = accepted(task_id="none of it is stored", principal_ai="eve")
        answer = await Peer(client, TENANT, "eve").post({"receipts": [refused] * 7}, "/receipts/batch")
        assert answer.status_code == 429

        assert (await batch(25, "max")).status_code == 200, "a batch that is larger than the bucket costs a full one"
