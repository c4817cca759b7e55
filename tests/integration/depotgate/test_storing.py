"""Row, blob and receipt of an artifact are one commit (DP-02, DP-03, DP-06, DP-07, DP-12)."""

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.integration.asyncgate.conftest import append, receipt_body
from tests.integration.depotgate.conftest import LOCATION, DepotDatabase, upload_of
from tests.integration.memorygate.conftest import new_id, rows

from depotgate.artifact import Artifact, Pointer, Upload
from depotgate.database import DepotGateDatabase
from depotgate.outcomes import StoreResult

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def store(depot: DepotGateDatabase, *uploads: Upload) -> list[StoreResult]:
    return await depot.store(uploads, location=LOCATION)


async def stored(depot: DepotGateDatabase, upload: Upload) -> Artifact:
    [result] = await store(depot, upload)
    assert result.name == "STORED", result
    assert result.artifact is not None
    return result.artifact


async def receipts(depot_database: DepotDatabase, tenant: UUID) -> list[dict[str, Any]]:
    query = "SELECT body FROM memorygate.receipt WHERE tenant = $1 ORDER BY stored_at, receipt_id"
    return [json.loads(body) for (body,) in await rows(depot_database.superuser, query, tenant)]


@pytest.mark.invariant("INV-094")
async def test_a_deposit_is_a_row_a_blob_and_a_receipt(depot_database: DepotDatabase, depot: DepotGateDatabase) -> None:
    tenant = uuid4()
    upload = upload_of(tenant, b"letters", name="a.txt")
    artifact = await stored(depot, upload)
    [receipt] = await receipts(depot_database, tenant)
    assert (receipt["kind"], receipt["phase"], receipt["emitter"]) == ("artifact", "stored", "svc:depotgate")
    assert receipt["artifact_pointer"] == str(artifact.pointer) == f"depot:{artifact.artifact_id}:{upload.sha256}"
    assert receipt["artifact_checksum"] == f"sha256:{upload.sha256}"
    assert (receipt["artifact_size_bytes"], receipt["artifact_mime"]) == (7, "text/plain")
    assert receipt["artifact_location"] == LOCATION
    assert receipt["body"] == {
        "blob": upload.key, "depositor": "alice", "lease_number": None, "name": "a.txt", "role": "input", "task_id": None
    }  # fmt: skip
    assert receipt["receipt_id"] == artifact.receipt_id
    assert (receipt["principal_ai"], receipt["task_id"]) == ("alice", artifact.receipt_id)
    assert await rows(depot_database.superuser, "SELECT FROM memorygate.obligation WHERE tenant = $1", tenant) == []
    assert await depot.artifact(tenant, artifact.pointer) == artifact
    assert await depot.artifact(uuid4(), artifact.pointer) is None
    assert await depot.artifact(tenant, Pointer(artifact.artifact_id, "0" * 64)) is None


async def test_equal_bytes_are_kept_once_in_a_tenant_and_never_shared_across(depot: DepotGateDatabase) -> None:
    ours, theirs = uuid4(), uuid4()
    first, second = await store(depot, upload_of(ours, b"same"), upload_of(ours, b"same"))
    third = await stored(depot, upload_of(ours, b"same"))
    assert first.artifact is not None
    assert second.artifact is not None
    assert len({first.artifact.artifact_id, second.artifact.artifact_id, third.artifact_id}) == 3
    assert first.artifact.key == second.artifact.key == third.key
    foreign = await stored(depot, upload_of(theirs, b"same"))
    assert foreign.key != third.key


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({}, "REPLAYED"),
        ({"content": b"other"}, "ARTIFACT_CONFLICT"),
        ({"media_type": "text/html"}, "ARTIFACT_CONFLICT"),
        ({"role": "supporting"}, "ARTIFACT_CONFLICT"),
        ({"task_id": "another"}, "ARTIFACT_CONFLICT"),
        ({"depositor": "bob"}, "ARTIFACT_CONFLICT"),
        ({"name": "other.txt"}, "REPLAYED"),
    ],
)
async def test_an_artifact_id_is_one_content(
    depot_database: DepotDatabase, depot: DepotGateDatabase, change: dict[str, Any], outcome: str
) -> None:
    tenant = uuid4()
    values = {"content": b"bytes", "artifact_id": new_id(), "task_id": "job"}
    before = await stored(depot, upload_of(tenant, **values))
    [again] = await store(depot, upload_of(tenant, **{**values, **change}))
    assert again.name == outcome
    assert again.artifact == (before if outcome == "REPLAYED" else None)
    assert len(await receipts(depot_database, tenant)) == 1
    assert len(await rows(depot_database.superuser, "SELECT FROM depotgate.blob WHERE tenant = $1", tenant)) == 1


async def test_racers_on_one_artifact_id_have_one_content(depot: DepotGateDatabase) -> None:
    """Promise 3, also within one statement."""
    tenant, artifact_id = uuid4(), new_id()
    uploads = [upload_of(tenant, b"ab"[place % 2 :][:1], artifact_id=artifact_id) for place in range(30)]
    batches = await asyncio.gather(*(store(depot, *uploads[place : place + 3]) for place in range(0, 30, 3)))
    results = [result for batch in batches for result in batch]
    names = [result.name for result in results]
    assert (names.count("STORED"), names.count("REPLAYED"), names.count("ARTIFACT_CONFLICT")) == (1, 14, 15)
    assert len({result.artifact.sha256 for result in results if result.artifact is not None}) == 1


async def test_equal_uploads_at_once_end_as_one_blob(depot_database: DepotDatabase, depot: DepotGateDatabase) -> None:
    """Promise 4."""
    tenant = uuid4()
    results = await asyncio.gather(*(store(depot, upload_of(tenant, b"x"), upload_of(tenant, b"y")) for _ in range(20)))
    artifacts = [result.artifact for batch in results for result in batch if result.artifact is not None]
    assert len({artifact.artifact_id for artifact in artifacts}) == 40
    assert len({artifact.key for artifact in artifacts}) == 2
    assert len(await rows(depot_database.superuser, "SELECT FROM depotgate.blob WHERE tenant = $1", tenant)) == 2


async def test_a_task_the_ledger_knows_has_the_receipt_and_another_does_not_settle_its_root(
    depot_database: DepotDatabase, depot: DepotGateDatabase
) -> None:
    """DP-07: the input comes first, then the plan's step, which hangs under its plan all the same."""
    tenant = uuid4()
    early = await stored(depot, upload_of(tenant, b"early", task_id="step"))
    step = {
        "kind": "obligation",
        "phase": "accepted",
        "principal_ai": "alice",
        "recipient_ai": "bob",
        "task_summary": "Go",
    }
    for task, more in (("plan", {}), ("step", {"parent_task_id": "plan"})):
        body = receipt_body(tenant, "alice", task_id=task, obligation_id=task, **step, **more)
        assert await append(depot_database.tasks.ledger.writer, [body]) == ["STORED"]
    late = await stored(depot, upload_of(tenant, b"late", task_id="step"))
    query = "SELECT task_id, root_task_id FROM memorygate.task WHERE tenant = $1"
    roots = dict(await rows(depot_database.superuser, query, tenant))
    assert roots["step"] == "plan"
    filed = {receipt["receipt_id"]: receipt["task_id"] for receipt in await receipts(depot_database, tenant)}
    assert filed[early.receipt_id] == early.receipt_id
    assert filed[late.receipt_id] == "step"
    page = await depot.artifacts(tenant, task_id="step", limit=10)
    assert [item.artifact_id for item in page.items] == [late.artifact_id, early.artifact_id]


async def test_a_cause_is_a_receipt_of_the_task(depot_database: DepotDatabase, depot: DepotGateDatabase) -> None:
    tenant = uuid4()
    body = receipt_body(tenant, "alice", task_id="job", obligation_id="job", kind="obligation", phase="accepted",
                        principal_ai="alice", recipient_ai="bob", task_summary="Go")  # fmt: skip
    await append(depot_database.tasks.ledger.writer, [body])
    cause = json.loads(body)["receipt_id"]
    right, unknown, foreign = await store(
        depot,
        upload_of(tenant, b"1", task_id="job", caused_by_receipt_id=cause),
        upload_of(tenant, b"2", task_id="job", caused_by_receipt_id=new_id()),
        upload_of(tenant, b"3", task_id="other", caused_by_receipt_id=cause),
    )
    assert [right.name, unknown.name, foreign.name] == ["STORED", "CAUSE_UNKNOWN", "CAUSE_UNKNOWN"]
    assert [receipt.get("caused_by_receipt_id") for receipt in await receipts(depot_database, tenant)] == [None, cause]


async def test_pages_are_the_newest_first_and_miss_nothing(depot: DepotGateDatabase) -> None:
    tenant = uuid4()
    made = [(await stored(depot, upload_of(tenant, bytes([place])))).artifact_id for place in range(7)]
    listed, before = [], None
    while True:
        page = await depot.artifacts(tenant, before=before, limit=3)
        listed += [item.artifact_id for item in page.items]
        if (before := page.next_position) is None:
            break
    assert listed == made[::-1]
    assert (await depot.totals(tenant))[:2] == (7, 0)
    assert (await depot.artifacts(tenant, role="plan", limit=3)).items == ()


async def test_retired_is_a_tombstone_with_a_receipt_and_the_last_lets_the_bytes_go(
    depot_database: DepotDatabase, depot: DepotGateDatabase
) -> None:
    tenant = uuid4()
    first, second = [await stored(depot, upload_of(tenant, b"twice", task_id="job")) for _ in range(2)]
    [one] = await depot.retire([(tenant, first)], by="ops")
    assert (one.artifact.state, one.artifact.key, one.freed_key) == ("retired", None, None)
    [two] = await depot.retire([(tenant, second)], by="ops")
    assert two.freed_key == second.key
    [again] = await depot.retire([(tenant, second)], by="ops")
    assert again.freed_key is None
    assert await depot.known_keys([str(second.key)]) == set()
    retired = [receipt for receipt in await receipts(depot_database, tenant) if receipt["phase"] == "retired"]
    assert [receipt["caused_by_receipt_id"] for receipt in retired] == [first.receipt_id, second.receipt_id]
    assert [receipt["artifact_pointer"] for receipt in retired] == [str(first.pointer), str(second.pointer)]
    anew = await stored(depot, upload_of(tenant, b"twice"))
    assert anew.key != second.key


async def test_retirement_beside_equal_deposits_loses_no_blob(
    depot_database: DepotDatabase, depot: DepotGateDatabase
) -> None:
    """Promise 6: whichever comes first, every kept artifact has a blob that nobody was told to remove."""
    tenant = uuid4()
    artifacts = [await stored(depot, upload_of(tenant, b"z"))]
    freed: set[str | None] = set()
    for _ in range(15):
        [result], retired = await asyncio.gather(
            store(depot, upload_of(tenant, b"z")), depot.retire([(tenant, artifacts[-1])], by="ops")
        )
        assert result.artifact is not None
        freed |= {item.freed_key for item in retired}
        artifacts.append(result.artifact)
        kept = await depot.artifact(tenant, artifacts[-1].pointer)
        assert kept is not None
        assert kept.key is not None
        assert kept.key not in freed
        assert await depot.known_keys([kept.key]) == {kept.key}
