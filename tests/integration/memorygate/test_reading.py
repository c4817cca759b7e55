"""Inbox, task, chain, summary: what they show, in which order, in pages."""

import asyncio
import random
from datetime import datetime

import pytest
from tests.integration.memorygate.conftest import Peer, RunningLedger, accepted, complete, new_id


async def walk(peer: Peer, path: str, **params):
    """Every item of a list, page by page."""
    items, cursor = [], None
    while True:
        answer = await peer.get(path, **params, **({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        page = answer.json()
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return items


@pytest.mark.invariant("INV-052", "INV-054")
async def test_a_task_shows_all_its_receipts_in_the_ledgers_order(gate: RunningLedger):
    """n sent, n shown, by stored_at then id, whatever the emitters' clocks say; an unknown task is an empty list."""
    alice = gate.peer()
    years = random.sample(range(2000, 2040), 30)
    sent = []
    for n, year in enumerate(years):
        body = accepted(task_id="t", obligation_id=f"o{n}", principal_ai="alice", created_at=f"{year}-01-01T00:00:00Z")
        assert (await alice.post(body)).status_code == 201
        sent.append(body["receipt_id"])
    shown = await walk(alice, "/receipts/task/t", limit=7)
    assert [item["receipt_id"] for item in shown] == sent
    keys = [(item["stored_at"], item["receipt_id"]) for item in shown]
    assert keys == sorted(keys)
    assert await walk(alice, "/receipts/task/unheard-of") == []


@pytest.mark.invariant("INV-054")
async def test_the_order_is_stable_under_concurrent_writers(gate: RunningLedger):
    """Pages read while others write: what was read stays a prefix of what is read later."""
    alice = gate.peer()

    async def write(n: int) -> None:
        await alice.accepted(task_id="t", obligation_id=f"o{n}")

    writers = asyncio.gather(*(write(n) for n in range(120)))
    observations: list[str] = []
    while not writers.done():
        now = [item["receipt_id"] for item in await walk(alice, "/receipts/task/t", limit=25)]
        assert now[: len(observations)] == observations
        observations = now
        await asyncio.sleep(0)
    await writers
    final = [item["receipt_id"] for item in await walk(alice, "/receipts/task/t", limit=500)]
    assert final[: len(observations)] == observations
    assert len(final) == 120


@pytest.mark.invariant("INV-053")
async def test_the_chain_is_found_from_any_of_its_links(gate: RunningLedger):
    """Five links, each the cause of the next: every anchor shows all five in order."""
    alice = gate.peer()
    ids = [new_id() for _ in range(5)]
    for n, receipt_id in enumerate(ids):
        cause = {"caused_by_receipt_id": ids[n - 1]} if n else {}
        await alice.accepted(receipt_id=receipt_id, task_id=f"t{n}", **cause)
    for anchor in ids:
        chain = (await alice.get(f"/receipts/chain/{anchor}")).json()
        assert [item["receipt_id"] for item in chain["items"]] == ids
        assert (chain["dangling"], chain["cycles"], chain["truncated"]) == ([], [], False)


@pytest.mark.invariant("INV-053")
async def test_cycles_and_missing_causes_end_with_a_marker(gate: RunningLedger):
    """A receipt that causes itself, two that cause each other, one whose cause is unknown: marked, and none hangs."""
    alice = gate.peer()
    own, first, second, missing, lost = (new_id() for _ in range(5))
    await alice.accepted(receipt_id=own, task_id="own", caused_by_receipt_id=own)
    await alice.accepted(receipt_id=first, task_id="a", caused_by_receipt_id=second)
    await alice.accepted(receipt_id=second, task_id="b", caused_by_receipt_id=first)
    await alice.accepted(receipt_id=lost, task_id="c", caused_by_receipt_id=missing)
    chain = (await alice.get(f"/receipts/chain/{own}")).json()
    assert (len(chain["items"]), chain["cycles"]) == (1, [own])
    for anchor in (first, second):
        chain = (await alice.get(f"/receipts/chain/{anchor}")).json()
        assert (len(chain["items"]), chain["cycles"]) == (2, [min(first, second)])
    chain = (await alice.get(f"/receipts/chain/{lost}")).json()
    assert (len(chain["items"]), chain["dangling"]) == (1, [missing])
    assert (await alice.get(f"/receipts/chain/{missing}")).status_code == 404


@pytest.mark.invariant("INV-053")
async def test_a_long_chain_is_cut_and_says_so(gate: RunningLedger):
    """A thousand and more effects of one cause: bounded, and marked as truncated."""
    alice = gate.peer()
    cause = new_id()
    batch = [accepted(receipt_id=cause, task_id="root", principal_ai="alice")]
    batch += [accepted(task_id=f"t{n}", principal_ai="alice", caused_by_receipt_id=cause) for n in range(1_100)]
    for at in range(0, len(batch), 200):
        assert (await alice.post({"receipts": batch[at : at + 200]}, "/receipts/batch")).status_code == 200
    chain = (await alice.get(f"/receipts/chain/{cause}")).json()
    assert chain["truncated"] is True
    assert len(chain["items"]) == 1_000
    assert cause in {item["receipt_id"] for item in chain["items"]}


async def test_the_inbox_pages_and_filters(gate: RunningLedger):
    """Pages of a stable order; by task, by owner and by kind; startups only when asked for (D-34)."""
    delegate, worker = gate.peer("planner", "delegate"), gate.peer("worker", "worker")
    batch = [
        accepted(task_id=f"t{n % 5}", obligation_id=f"o{n:03}", principal_ai=f"p{n % 2}", recipient_ai="worker")
        for n in range(130)
    ]
    await delegate.post({"receipts": batch}, "/receipts/batch")
    everything = [item["obligation_id"] for item in await walk(worker, "/inbox", limit=20)]
    assert everything == [f"o{n:03}" for n in range(130)]
    assert len(await walk(worker, "/inbox", task_id="t3")) == 26
    assert len(await walk(worker, "/inbox", principal_ai="p1", limit=10)) == 65
    assert await walk(worker, "/inbox", kind="startup") == []
    node = (await walk(worker, "/inbox", limit=1))[0]
    assert node["receipt"]["receipt_id"] == node["opened_by"] == node["custody_by"]


async def test_queries_are_strict(gate: RunningLedger):
    """Unknown, repeated, blank or foreign parameters and cursors are 422; none is ignored."""
    alice = gate.peer()
    cursor = None
    for n in range(3):
        await alice.accepted(task_id=f"t{n}")
    cursor = (await alice.get("/inbox", limit=1)).json()["next_cursor"]
    assert cursor
    for path in (
        "/inbox?limit=0", "/inbox?limit=501", "/inbox?limit=x", "/inbox?kind=lifecycle", "/inbox?nope=1", "/inbox?task_id=",
        "/inbox?limit=1&limit=2", "/inbox?cursor=AAAA", f"/receipts/task/t?cursor={cursor}", "/v1/summary?tenant=me", "/inbox?%zz",
    ):  # fmt: skip
        answer = await alice.get(path)
        assert answer.status_code == 422, (path, answer.text)
    assert (await gate.peer("bob").get("/inbox", cursor=cursor)).json()["code"] == "INVALID_CURSOR"


@pytest.mark.invariant("INV-095")
async def test_the_interview_tells_any_principal_what_waits(gate: RunningLedger):
    """The tenant's open and overdue obligations, the oldest of them, what ended how, and that nobody verified yet."""
    alice, witness = gate.peer(), gate.witness()
    opened = (await alice.accepted(task_id="late", metadata={"deadline_at": "2020-01-01T00:00:00Z"})).json()
    await alice.accepted(task_id="later")
    await alice.accepted(task_id="done")
    await alice.complete(task_id="done", status="success")
    await witness.post(accepted(kind="startup", task_id="s", principal_ai="c"))
    answer = await gate.peer("bob", "component").get("/v1/interview")
    told = answer.json()
    assert datetime.fromisoformat(told.pop("as_of")) >= datetime.fromisoformat(opened["stored_at"])
    assert told == {
        "gate": "memorygate",
        "version": (await gate.client.get("/")).json()["version"],
        "tenant_id": str(gate.tenant),
        "counts": {
            "receipts": 5, "obligations_open": 2, "obligations_overdue": 1, "obligations_succeeded": 1,
            "obligations_failed": 0, "obligations_canceled": 0, "startups_open": 1, "startups_ready": 0, "startups_failed": 0,
        },
        "oldest": {"obligations_open": opened["stored_at"]},
        "notes": ["The chains were never verified: `memorygate verify`."],
    }  # fmt: skip
    stranger = gate.stranger()
    assert (await stranger.get("/v1/interview")).json()["counts"]["receipts"] == 0
    refused = await stranger.get(f"/v1/interview?tenant={gate.tenant}")
    assert (refused.status_code, refused.json()["code"]) == (403, "TENANT_MISMATCH")


async def test_the_summary_counts_by_state(gate: RunningLedger):
    """Open, ended in each way, startups beside, the oldest open and the latest."""
    alice, witness = gate.peer(), gate.witness()
    times = []
    for n, status in enumerate(["success", "failure", "canceled", None, None]):
        times.append((await alice.accepted(task_id=f"t{n}")).json()["stored_at"])
        if status:
            await alice.complete(task_id=f"t{n}", status=status)
    for n in range(3):
        await witness.post(accepted(kind="startup", task_id=f"s{n}", principal_ai="c"))
    latest = await witness.post(complete(kind="startup", task_id="s0", principal_ai="c"))
    summary = (await alice.get("/v1/summary")).json()
    assert summary["obligations"] == {"open": 2, "success": 1, "failure": 1, "canceled": 1}
    assert summary["startups"] == {"open": 2, "success": 1, "failure": 0}
    assert summary["receipts"] == 12
    assert summary["oldest_open_at"] == times[3]
    assert summary["latest_stored_at"] == latest.json()["stored_at"]
