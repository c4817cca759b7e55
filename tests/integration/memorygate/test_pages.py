"""Pages end at a number of items or bytes; the views that look across tasks, over time and at many obligations at once."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from tests.integration.memorygate.conftest import (
    LedgerDatabase,
    Peer,
    RunningLedger,
    accepted,
    complete,
    new_id,
    process_on,
    rows,
)

from legivellum.gate.composition import application
from memorygate.gate import GATE
from memorygate.ledger import MemoryGateDatabase

MIB = 1024 * 1024
LARGE = "x" * (100 * 1024 - 2)


async def store(peer: Peer, receipts: list[dict[str, Any]], *, at_once: int = 200) -> None:
    for start in range(0, len(receipts), at_once):
        answer = await peer.post({"receipts": receipts[start : start + at_once]}, "/receipts/batch")
        assert {item["status"] for item in answer.json()["items"]} == {201}, answer.text


async def pages(peer: Peer, path: str, **params: Any) -> list[list[dict[str, Any]]]:
    """The items of every page; no answer is larger than 4 MiB (D-66)."""
    result: list[list[dict[str, Any]]] = []
    cursor: str | None = None
    while True:
        answer = await peer.get(path, **params, **({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        assert len(answer.content) < 4 * MIB
        result.append(answer.json()["items"])
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return result


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/receipts/task/t", "receipt_id"),
        ("/receipts/root/t", "receipt_id"),
        ("/receipts/chain/{cause}", "receipt_id"),
        ("/v1/receipts", "receipt_id"),
        ("/inbox", "opened_by"),
    ],
)
async def test_a_page_ends_at_a_mebibyte_of_receipts(gate: RunningLedger, path: str, key: str):
    """Thirty receipts of 100 KiB: ten at a time whatever the limit, none lost, none twice; one alone always fits."""
    alice = gate.peer()
    cause = new_id()
    receipts = [
        accepted(
            receipt_id=cause if number == 0 else new_id(), task_id="t", obligation_id=f"o{number}", principal_ai="alice",
            task_body=LARGE, caused_by_receipt_id=None if number == 0 else cause,
        )
        for number in range(30)
    ]  # fmt: skip
    await store(alice, receipts, at_once=3)
    path = path.format(cause=cause)
    result = await pages(alice, path, limit=500)
    assert [len(page) for page in result] == [10, 10, 10]
    assert sorted(item[key] for page in result for item in page) == sorted(
        receipt["receipt_id"] for receipt in receipts
    )
    assert [len(page) for page in await pages(alice, path, limit=7)] == [7, 7, 7, 7, 2]


@pytest.mark.invariant("INV-053")
async def test_a_chain_pages_with_limit_and_cursor(gate: RunningLedger):
    """Every page has the same markers, the order is the ledger's, and another list's cursor is 422."""
    alice = gate.peer()
    ids = [new_id() for _ in range(25)]
    missing = new_id()
    await store(
        alice,
        [
            accepted(receipt_id=item, task_id=f"t{n}", principal_ai="alice", caused_by_receipt_id=([missing, *ids])[n])
            for n, item in enumerate(ids)
        ],
    )
    result = await pages(alice, f"/receipts/chain/{ids[12]}", limit=10)
    assert [[item["receipt_id"] for item in page] for page in result] == [ids[:10], ids[10:20], ids[20:]]
    first = (await alice.get(f"/receipts/chain/{ids[12]}", limit=10)).json()
    assert (first["dangling"], first["cycles"], first["truncated"]) == ([missing], [], False)
    other = await alice.get(f"/receipts/chain/{ids[0]}", cursor=first["next_cursor"])
    assert (other.status_code, other.json()["code"]) == (422, "INVALID_CURSOR")
    assert [len(page) for page in await pages(alice, f"/receipts/chain/{ids[12]}")] == [25]
    for limit in ("0", "501", "x"):
        assert (await alice.get(f"/receipts/chain/{ids[0]}", limit=limit)).status_code == 422


async def test_a_root_shows_its_whole_tree_in_the_order_of_its_chain(gate: RunningLedger):
    """Of every task of the tree, whichever of them is named; another tenant and an unknown task have none."""
    alice = gate.peer()
    tree = {"child": "root", "grandchild": "child", "sibling": "root"}
    for _ in range(3):
        for task in ("root", *tree):
            answer = await alice.accepted(task_id=task, obligation_id=new_id(), parent_task_id=tree.get(task))
            assert answer.status_code == 201
    await alice.accepted(task_id="elsewhere")
    for named in ("root", "grandchild"):
        items = [item for page in await pages(alice, f"/receipts/root/{named}", limit=5) for item in page]
        assert [item["position"] for item in items] == list(range(1, 13))
        assert {item["root_task_id"] for item in items} == {"root"}
    assert (await alice.get("/receipts/root/unknown")).json() == {"items": [], "next_cursor": None}
    assert (await gate.stranger().get("/receipts/root/root")).json()["items"] == []


async def test_receipts_since_a_time_come_in_the_order_of_the_stream(gate: RunningLedger):
    """All of them without `since`; with it what was stored then or later, page by page, and only the tenant's."""
    alice, stranger = gate.peer(), gate.stranger()
    stored = []
    for number in range(30):
        stored.append((await alice.accepted(task_id=f"t{number}")).json())
        if number % 10 == 0:
            await stranger.accepted(task_id=f"t{number}")
    ids = [item["receipt_id"] for item in stored]

    async def listed(**params: Any) -> list[str]:
        return [item["receipt_id"] for page in await pages(alice, "/v1/receipts", limit=7, **params) for item in page]

    assert await listed() == ids
    assert await listed(since=stored[20]["stored_at"]) == ids[20:]
    # The same moment in another zone is the same moment; a time to come has nothing.
    at = datetime.fromisoformat(stored[10]["stored_at"]).astimezone(UTC)
    assert await listed(since=(at + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S.%f+02:00")) == ids[10:]
    assert await listed(since="2999-01-01T00:00:00Z") == []
    assert await listed(since="1970-01-01T00:00:00Z") == ids
    for bad in ("yesterday", "2027-01-01", "2027-01-01T00:00:00", "2027-02-30T00:00:00Z", "0001-01-01T00:00:00+14:00"):
        answer = await alice.get("/v1/receipts", since=bad)
        assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST"), bad
    first = (await alice.get("/v1/receipts", limit=3)).json()["next_cursor"]
    assert (await stranger.get("/v1/receipts", cursor=first)).status_code == 422


async def test_where_a_time_begins_is_found_in_a_long_stream(gate: RunningLedger, ledger_database: LedgerDatabase):
    """Two days of history, told to the table by its owner: `since` finds its place, also where times and transactions cross."""
    alice = gate.peer()
    for number in range(6):
        await alice.accepted(task_id=f"t{number}")
    # Transactions far apart, each hours after the one before, the third a minute earlier than the second.
    for number, minutes in enumerate((0, 600, 599, 1200, 1800, 2400)):
        await rows(
            ledger_database.superuser,
            "UPDATE memorygate.receipt SET written_by = $3::text::xid8, stored_at = $4 WHERE tenant = $1 AND task_id = $2 RETURNING 1",
            gate.tenant, f"t{number}", str(3 + number * 7), datetime(2027, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes),
        )  # fmt: skip

    async def listed(minutes: int) -> list[str]:
        since = (datetime(2027, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return [item["task_id"] for page in await pages(alice, "/v1/receipts", since=since, limit=2) for item in page]

    assert await listed(0) == ["t0", "t1", "t2", "t3", "t4", "t5"]
    assert await listed(599) == ["t1", "t2", "t3", "t4", "t5"]
    assert await listed(600) == ["t1", "t3", "t4", "t5"]
    assert await listed(1201) == ["t4", "t5"]
    assert await listed(2400) == ["t5"]


async def test_many_obligations_are_looked_up_at_once(gate: RunningLedger):
    """Open, moved, closed and unknown ones in the order of the question; another tenant's are unknown."""
    alice, bob = gate.peer(), gate.peer("bob", "worker")
    opened = (await alice.accepted(task_id="t", obligation_id="open")).json()["receipt_id"]
    await alice.accepted(task_id="t", obligation_id="moved")
    await alice.escalate("bob", task_id="t", obligation_id="moved")
    await alice.accepted(task_id="t", obligation_id="closed")
    ended = (
        await alice.post(complete(task_id="t", obligation_id="closed", principal_ai="alice", status="failure"))
    ).json()

    async def look(peer: Peer, *names: str) -> list[dict[str, Any]]:
        answer = await peer.post({"obligation_ids": list(names)}, "/v1/obligations/lookup")
        assert answer.status_code == 200, answer.text
        return list(answer.json()["items"])

    items = await look(bob, "closed", "open", "unknown", "moved", "open")
    assert [(item["obligation_id"], item["state"], item["custodian"]) for item in items] == [
        ("closed", "failure", "alice"), ("open", "open", "alice"), ("unknown", None, None), ("moved", "open", "bob"),
        ("open", "open", "alice"),
    ]  # fmt: skip
    assert items[1] == {
        "obligation_id": "open", "state": "open", "custodian": "alice", "principal_ai": "alice", "task_id": "t",
        "root_task_id": "t", "opened_by": opened, "closed_by": None,
    }  # fmt: skip
    assert items[0]["closed_by"] == ended["receipt_id"]
    assert [item["state"] for item in await look(gate.stranger(), "open")] == [None]
    for bad in ({}, [], {"obligation_ids": []}, {"obligation_ids": ["x"] * 257}, {"obligation_ids": [7]},
                {"obligation_ids": ["a\nb"]}, {"obligation_ids": [""]}, {"obligation_ids": ["x"], "more": 1}):  # fmt: skip
        answer = await alice.post(bad, "/v1/obligations/lookup")
        assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST"), bad
    assert (await alice.get("/v1/obligations/lookup")).status_code == 405


async def test_a_lookup_costs_as_many_tokens_as_it_has_names(ledger: MemoryGateDatabase):
    """D-68: ten tokens are one look-up of ten names or ten of one, for each principal by itself."""
    process = process_on(ledger, deadline_ms=10_000, rate_per_second=0.001, rate_burst=10)
    transport = httpx.ASGITransport(application(GATE, process).asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        tenant = uuid4()

        async def statuses(name: str, *lookups: int) -> list[int]:
            peer = Peer(client, tenant, name)
            return [
                (
                    await peer.post({"obligation_ids": [f"o{n}" for n in range(names)]}, "/v1/obligations/lookup")
                ).status_code
                for names in lookups
            ]

        assert await statuses("ada", 10, 1) == [200, 429]
        assert await statuses("bob", *[1] * 11) == [200] * 10 + [429]
        assert await statuses("eve", 4, 7, 5, 1) == [200, 429, 200, 429], "a refused one costs the request itself"
        assert await statuses("max", 256, 1) == [200, 429], "one that is larger than the bucket costs a full one"
        answer = await Peer(client, tenant, "max").post({"obligation_ids": ["o"]}, "/v1/obligations/lookup")
        assert answer.json()["code"] == "RATE_LIMITED"
        assert int(answer.headers["retry-after"]) >= 1


FORGED_CURSORS = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2027-01-01T00:00:00+01:00", "2027-01-01"]


@pytest.mark.invariant("INV-055")
@pytest.mark.parametrize("moment", FORGED_CURSORS)
async def test_a_forged_cursor_is_refused_and_no_outage(gate: RunningLedger, moment: str):
    """Times beyond what the database knows, in every list: 422, never 500 or 503."""
    import base64

    alice = gate.peer()
    cause = (await alice.accepted(task_id="t")).json()["receipt_id"]
    lists = {
        "/receipts/task/t": f"task/{gate.tenant}/t",
        "/receipts/root/t": f"root/{gate.tenant}/t",
        f"/receipts/chain/{cause}": f"chain/{gate.tenant}/{cause}",
        "/inbox": f"inbox/{gate.tenant}/alice/obligation",
    }
    for path, name in lists.items():
        cursor = base64.urlsafe_b64encode(json.dumps([name, moment, "x"]).encode()).decode().rstrip("=")
        assert (await alice.get(path, cursor=cursor)).status_code == 422, path
    for path, name, position in (
        ("/receipts/root/t", f"root/{gate.tenant}/t", ["1"]),
        ("/v1/receipts", f"receipts/{gate.tenant}", [str(2**64), "0"]),
        ("/v1/receipts", f"receipts/{gate.tenant}", ["1", str(2**60)]),
    ):
        cursor = base64.urlsafe_b64encode(json.dumps([name, *position]).encode()).decode().rstrip("=")
        assert (await alice.get(path, cursor=cursor)).status_code == 422, path


@pytest.mark.invariant("INV-056")
@pytest.mark.parametrize("path", ["/receipts/root/t", "/v1/receipts"])
async def test_another_tenant_is_for_cluster_wide_readers(gate: RunningLedger, path: str):
    """`?tenant=` as everywhere (D-51)."""
    await gate.peer().accepted(task_id="t")
    assert (await gate.peer(tenant=uuid4()).get(path, tenant=str(gate.tenant))).status_code == 403
    observer = gate.peer("watch", "observer", scope="Cluster", tenant=uuid4())
    assert len((await observer.get(path, tenant=str(gate.tenant))).json()["items"]) == 1


@pytest.mark.parametrize("below", [0, 1, 2], ids=["of the root itself", "half below it", "all below it"])
async def test_a_page_of_a_large_tree_reads_no_more_than_the_page(fresh_ledger: LedgerDatabase, below: int):
    """From the middle of 20,000 receipts beside as many of another tree, before PostgreSQL knows anything about them."""
    tenant, start = uuid4(), datetime(2027, 1, 1, tzinfo=UTC)
    await rows(
        fresh_ledger.superuser,
        """
        INSERT INTO memorygate.receipt (tenant, receipt_id, stored_at, kind, phase, task_id, root_task_id, position, obligation_id,
                                        body, digest, previous, chain)
        SELECT $1, left(memorygate.ulid_floor($2), 10) || tree || lpad(n::text, 13, '0'), $2 + n * interval '1 second', 'obligation', 'accepted',
               CASE WHEN n % 2 < $3 THEN 'task-' || n % 100 ELSE tree END, tree, n, 'o', '{}', hash, hash, hash
        FROM generate_series(1, 20000) AS n, (VALUES ('ONE'), ('TWO')) AS trees(tree), sha256('') AS hash
        """,
        tenant, start, below,
    )  # fmt: skip
    await rows(
        fresh_ledger.superuser, "INSERT INTO memorygate.task VALUES ($1, 'ONE', 'ONE', 20000, sha256(''))", tenant
    )
    page = "memorygate.tree_page($1, 'ONE', $2, 100, 1048576)"
    after = start + timedelta(seconds=10_000)
    items = await rows(fresh_ledger.writer, f"SELECT position, more FROM {page}", tenant, after)
    assert items == [(number, True) for number in range(10_001, 10_101)]
    connection = await asyncpg.connect(fresh_ledger.writer)
    try:
        await connection.fetch(f"SELECT * FROM {page}", tenant, after)  # its plan is made, and the catalogue is read
        plan = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM {page}", tenant, after)
    finally:
        await connection.close()
    [root] = [entry["Plan"] for entry in json.loads(plan)]
    assert root["Shared Hit Blocks"] + root["Shared Read Blocks"] < 200
