"""Custody is given to somebody who exists, by the identity that the process holds; and no input looks like an outage."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.databases import Server
from tests.integration.memorygate.conftest import LedgerDatabase, accepted, complete, escalate, make_ledger, new_id
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal, free_port, ledger_fixture, ready

from legivellum.gate.composition import serving
from memorygate.gate import GATE
from memorygate.settings import Settings

ALICE = LedgerPrincipal(uuid4(), "alice")
BOB = LedgerPrincipal(ALICE.tenant, "bob", "worker")
EVE = LedgerPrincipal(ALICE.tenant, "eve", "worker", suspended=True)
ELSEWHERE = LedgerPrincipal(uuid4(), "elsewhere")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(postgres: Server) -> AsyncIterator[httpx.AsyncClient]:
    """The ledger as its own process serves it, with real principals and keys."""
    database: LedgerDatabase = await make_ledger(postgres)
    async with ledger_fixture(database, ALICE, BOB, EVE, ELSEWHERE):
        settings = Settings(
            database_url=SecretStr(database.writer),
            identity_database_url=SecretStr(database.database.identity),
            port=free_port(),
        )
        async with serving(GATE, settings) as url:
            await ready(url)
            async with httpx.AsyncClient(base_url=url, timeout=10) as client:
                yield client
    await postgres.drop(database.database)


async def post(client: httpx.AsyncClient, principal: LedgerPrincipal, body: dict[str, Any]) -> tuple[int, str | None]:
    answer = await client.post("/receipts", json={"principal_ai": principal.name, **body}, headers=principal.headers)
    return answer.status_code, answer.json().get("code")


REFUSED = (422, "RECIPIENT_UNKNOWN")


@pytest.mark.invariant("INV-051")
@pytest.mark.parametrize("recipient", ["nobody", "elsewhere", "svc:nobody", "svc:", "Alice"])
async def test_custody_is_not_given_to_nobody(served: httpx.AsyncClient, recipient: str):
    """Opening for, or escalating to, a name of no principal of the tenant: 422, alone and in a batch, and nothing stored."""
    task = new_id()
    assert await post(served, ALICE, accepted(task_id=task, recipient_ai=recipient)) == REFUSED
    assert await post(served, ALICE, accepted(task_id=task)) == (201, None)
    assert await post(served, ALICE, escalate(recipient, task_id=task)) == REFUSED
    batch = [
        accepted(task_id=new_id(), principal_ai="alice", recipient_ai=name) for name in ("bob", recipient, "alice")
    ]
    answer = await served.post("/receipts/batch", json={"receipts": batch}, headers=ALICE.headers)
    assert [(item["status"], item.get("code")) for item in answer.json()["items"]] == [
        (201, None),
        REFUSED,
        (201, None),
    ]
    items = (await served.get(f"/receipts/task/{task}", headers=ALICE.headers)).json()["items"]
    assert [item["phase"] for item in items] == ["accepted"]


@pytest.mark.parametrize("recipient", ["bob", "eve", "svc:asyncgate", "svc:interrogate", "svc:depotgate"])
async def test_principals_and_gates_are_known(served: httpx.AsyncClient, recipient: str):
    """Also a suspended principal: it is somebody, and may speak again."""
    task = new_id()
    assert await post(served, ALICE, accepted(task_id=task)) == (201, None)
    assert await post(served, ALICE, escalate(recipient, task_id=task)) == (201, None)


async def test_what_ends_an_obligation_gives_no_custody(served: httpx.AsyncClient):
    """A completion may name anybody: whoever asked may have left meanwhile, and the work must come to its end."""
    task = new_id()
    assert await post(served, ALICE, accepted(task_id=task)) == (201, None)
    assert await post(served, ALICE, complete(task_id=task, recipient_ai="nobody")) == (201, None)


async def test_a_body_that_is_wrong_is_told_first(served: httpx.AsyncClient):
    """D-42: 422 for the body before anything about its recipient, 403 for a foreign emitter before that too."""
    assert await post(served, ALICE, accepted(task_id="", recipient_ai="nobody")) == (422, "INVALID_RECEIPT")
    assert await post(served, ALICE, accepted(task_id="t", emitter="bob", recipient_ai="nobody")) == (
        403, "EMITTER_MISMATCH",
    )  # fmt: skip


QUERIES = [
    "/receipts/%00",
    "/receipts/a%00b",
    "/receipts/task/%00",
    "/receipts/root/a%00",
    "/receipts/chain/%00",
    "/inbox?task_id=%00",
    "/inbox?principal_ai=a%00b",
    "/inbox?principal=%00",
    "/inbox?cursor=%00",
    "/inbox?tenant=%00",
    "/receipts/task/t?cursor=%00",
    "/receipts/task/t?tenant=%00",
    "/v1/receipts?since=%00",
    "/v1/receipts?cursor=%00",
    "/v1/summary?tenant=%00",
    "/receipts/stream?from=%00",
    "/receipts/%ED%A0%80",
    "/receipts/task/%FF",
    "/inbox?task_id=%ED%A0%80",
    "/receipts/" + "x" * 4_000,
    "/receipts/task/" + "%F0%9F%99%82" * 400,
]


@pytest.mark.parametrize("path", QUERIES)
async def test_no_input_is_an_outage(served: httpx.AsyncClient, path: str):
    """NUL and broken text in every parameter never reach the database as an error: 4xx, and the ledger is up."""
    answer = await served.get(path, headers=ALICE.headers)
    assert 400 <= answer.status_code < 500, (path, answer.text)
    assert (await served.get("/readyz")).json()["database"] == "up"


@pytest.mark.parametrize("text", ["\\u0000", "\\ud800", "\\udc00\\ud800"])
@pytest.mark.parametrize(
    "field", ["task_id", "obligation_id", "dedupe_key", "principal_ai", "task_summary", "body", "metadata"]
)
async def test_no_text_in_a_receipt_is_an_outage(served: httpx.AsyncClient, field: str, text: str):
    """What PostgreSQL cannot hold is refused before, wherever it stands; alone, in a batch and in a look-up."""
    value = f'{{"x":"a{text}"}}' if field in {"body", "metadata"} else f'"a{text}"'
    names = {"receipt_id": new_id(), "phase": "accepted", "task_id": "t", "principal_ai": "alice"}
    members = ",".join(f'"{name}":"{item}"' for name, item in names.items() if name != field)
    body = f'{{{members},"{field}":{value}}}'
    headers = {**ALICE.headers, "Content-Type": "application/json"}
    for path, sent in (
        ("/receipts", body),
        ("/receipts/batch", f'{{"receipts":[{body}]}}'),
        ("/v1/obligations/lookup", f'{{"obligation_ids":["a{text}"]}}'),
    ):
        answer = await served.post(path, content=sent, headers=headers)
        assert 400 <= answer.status_code < 500, (path, answer.text)
