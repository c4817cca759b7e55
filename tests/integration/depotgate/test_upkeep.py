"""rebuild, verify, sweep and retire: what is done to rows and store beside the gate (DP-12, DP-14)."""

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.integration.asyncgate.conftest import append, receipt_body
from tests.integration.depotgate.conftest import LOCATION, DepotDatabase, upload_of
from tests.integration.memorygate.conftest import new_id, rows
from typer.testing import CliRunner

from depotgate import main
from depotgate.artifact import Artifact
from depotgate.database import DepotGateDatabase
from depotgate.file_blobs import FileBlobs
from depotgate.rebuilding import rebuild
from depotgate.retiring import retirable, retire
from depotgate.store_upkeep import BlobDefect, defects, leftovers

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOW = timedelta(0)
OLD = 2 * 86_400


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs.open(str(tmp_path / "blobs"))


async def deposited(
    depot: DepotGateDatabase, blobs: FileBlobs, tenant: UUID, content: bytes, **fields: Any
) -> Artifact:
    upload = upload_of(tenant, content, **fields)
    await blobs.put(upload.key, content)
    [stored] = await depot.store([upload], location=LOCATION)
    assert stored.artifact is not None, stored
    return stored.artifact


async def emit(depot_database: DepotDatabase, tenant: UUID, **fields: Any) -> None:
    body = receipt_body(tenant, "alice", **{"principal_ai": "alice", "recipient_ai": "alice", **fields})
    assert await append(
        depot_database.tasks.ledger.writer, [body], "custodian" if fields["phase"] == "complete" else "open-for-others"
    ) == ["STORED"]


async def names(depot_database: DepotDatabase, tenant: UUID, older_than: timedelta = NOW) -> set[str]:
    """The artifacts of the tenant that may go."""
    chosen = await retirable(depot_database.tasks.ledger.auditor, older_than)
    return {pointer.artifact_id for of, pointer in chosen if of == tenant}


@pytest.mark.invariant("INV-120")
async def test_rows_are_rebuilt_from_receipts(
    depot_database: DepotDatabase, depot: DepotGateDatabase, blobs: FileBlobs
) -> None:
    tenant = uuid4()
    same = [await deposited(depot, blobs, tenant, b"same", task_id="job", name=f"{number}") for number in range(3)]
    await deposited(depot, blobs, tenant, b"other", media_type="text/html")
    await depot.retire([(tenant, same[0])], by="ops")
    gone = await deposited(depot, blobs, tenant, b"gone")
    await depot.retire([(tenant, gone)], by="ops")
    await deposited(depot, blobs, tenant, b"gone")
    tables = [
        "SELECT * FROM depotgate.artifact ORDER BY tenant, artifact_id",
        "SELECT * FROM depotgate.blob ORDER BY tenant, sha256",
    ]
    before = [await rows(depot_database.superuser, query) for query in tables]
    report = await rebuild(depot_database.superuser)
    assert [await rows(depot_database.superuser, query) for query in tables] == before
    assert (report.kept, report.retired) >= (4, 2)


async def test_verify_names_what_is_missing_or_wrong(
    depot: DepotGateDatabase, tmp_path: Path, blobs: FileBlobs
) -> None:
    tenant = uuid4()
    whole, flipped, short, missing = [await deposited(depot, blobs, tenant, os.urandom(99)) for _ in range(4)]
    root = tmp_path / "blobs"
    for artifact, change in ((flipped, lambda old: bytes([old[0] ^ 1]) + old[1:]), (short, lambda old: old[:-1])):
        path = root / str(artifact.key)
        path.write_bytes(change(path.read_bytes()))
    (root / str(missing.key)).unlink()
    ours = [
        item
        async for item in defects(depot, blobs)
        if (item.blob if isinstance(item, BlobDefect) else item).tenant == tenant
    ]
    found = {item.blob.artifact_ids: item.problem for item in ours if isinstance(item, BlobDefect)}
    assert found == {(flipped.artifact_id,): "digest", (short.artifact_id,): "size", (missing.artifact_id,): "missing"}
    assert [item.artifact_ids for item in ours if not isinstance(item, BlobDefect)] == [(whole.artifact_id,)]


async def test_sweep_finds_old_blobs_without_a_row_and_no_others(
    depot: DepotGateDatabase, tmp_path: Path, blobs: FileBlobs
) -> None:
    tenant = uuid4()
    kept = await deposited(depot, blobs, tenant, b"kept")
    young, old = f"{tenant}/{new_id()}", f"{tenant}/{new_id()}"
    for key in (young, old):
        await blobs.put(key, b"left")
    writer = await blobs.writer(f"{tenant}/{new_id()}")
    await writer.write(b"half")
    for path in (tmp_path / "blobs").rglob("*"):
        if path.is_file():
            # By this process's clock, which is not the kernel's on every day that the suite is played on.
            os.utime(path, (time.time() - (0 if str(path).endswith(young) else OLD),) * 2)
    found = {blob.key async for blob in leftovers(depot, blobs)}
    assert old in found
    assert young not in found
    assert str(kept.key) not in found
    assert len(found) == 2
    for key in found:
        await blobs.remove(key)
    assert [blob async for blob in leftovers(depot, blobs)] == []


@pytest.mark.invariant("EXT-26")
async def test_what_a_receipt_names_stays(
    depot_database: DepotDatabase, depot: DepotGateDatabase, blobs: FileBlobs
) -> None:
    """In a body, in inputs, in a task's body, as the outcome's pointer; and a foreign tenant's receipt names nothing here."""
    tenant, stranger = uuid4(), uuid4()
    free, cited, input_, outcome, foreign = [
        await deposited(depot, blobs, tenant, f"{number}".encode()) for number in range(5)
    ]
    await emit(
        depot_database, tenant, phase="accepted", task_id="a", obligation_id="a", body={"see": [f"at {cited.pointer}!"]}
    )
    await emit(
        depot_database,
        tenant,
        phase="accepted",
        task_id="b",
        obligation_id="b",
        metadata={"inputs": [str(input_.pointer)]},
    )
    await emit(
        depot_database, tenant, phase="complete", task_id="b", obligation_id="b", status="success", outcome_kind="artifact_pointer",
        artifact_pointer=str(outcome.pointer), artifact_location=LOCATION, artifact_mime="text/plain", completed_at="2027-01-01T00:00:00Z",
    )  # fmt: skip
    await emit(
        depot_database, stranger, phase="accepted", task_id="a", obligation_id="a", body={"see": str(foreign.pointer)}
    )
    assert await names(depot_database, tenant) == {free.artifact_id, foreign.artifact_id}
    assert await names(depot_database, tenant, timedelta(days=1)) == set()


async def test_what_an_open_task_has_and_what_is_made_stays(
    depot_database: DepotDatabase, depot: DepotGateDatabase, blobs: FileBlobs
) -> None:
    tenant = uuid4()
    for role in ("plan", "output"):
        await deposited(depot, blobs, tenant, role.encode(), role=role)
    supporting = await deposited(depot, blobs, tenant, b"more", role="supporting", task_id="job")
    await emit(depot_database, tenant, phase="accepted", task_id="job", obligation_id="job")
    assert await names(depot_database, tenant) == set()
    await emit(
        depot_database, tenant, phase="complete", task_id="job", obligation_id="job", status="success", outcome_kind="none",
        completed_at="2027-01-01T00:00:00Z",
    )  # fmt: skip
    assert await names(depot_database, tenant) == {supporting.artifact_id}


@pytest.mark.invariant("EXT-26")
async def test_retire_lets_the_bytes_go_after_the_receipt(
    depot_database: DepotDatabase, depot: DepotGateDatabase, tmp_path: Path, blobs: FileBlobs
) -> None:
    tenant = uuid4()
    alone = await deposited(depot, blobs, tenant, b"alone")
    shared = [await deposited(depot, blobs, tenant, b"shared", role=role) for role in ("input", "output")]
    chosen = [item for item in await retirable(depot_database.tasks.ledger.auditor, NOW) if item[0] == tenant]
    gone = await retire(depot, blobs, chosen)
    assert {artifact.artifact_id for _, artifact in gone} == {alone.artifact_id, shared[0].artifact_id}
    assert await blobs.size(str(alone.key)) is None
    assert await blobs.size(str(shared[1].key)) == 6
    assert await retire(depot, blobs, chosen) == []


async def test_the_commands_print_and_do(
    depot_database: DepotDatabase,
    depot: DepotGateDatabase,
    tmp_path: Path,
    blobs: FileBlobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import asyncio

    monkeypatch.setenv("DEPOTGATE_STORE", f"file://{tmp_path}/blobs")
    artifact = await deposited(depot, blobs, uuid4(), b"typed")

    async def typed(*arguments: str) -> tuple[int, str]:
        result = await asyncio.to_thread(
            CliRunner().invoke, main.app, [arguments[0], "--database-url", depot_database.keeper, *arguments[1:]]
        )
        return result.exit_code, result.output

    ledger = ("--ledger-url", depot_database.tasks.ledger.auditor)
    code, text = await typed("retire", *ledger, "--older-than", "0d")
    assert code == 0
    assert str(artifact.pointer) in text
    assert "would be retired with --yes" in text
    assert (await typed("retire", *ledger, "--older-than", "soon"))[0] == 2
    assert (await typed("sweep"))[0] == 0
    (tmp_path / "blobs" / str(artifact.key)).write_bytes(b"tYped")
    code, text = await typed("verify")
    assert code == 1
    assert f"digest: artifact {artifact.artifact_id}" in text
    code, text = await typed("retire", *ledger, "--older-than", "0h", "--yes")
    assert code == 0
    kept = await depot.artifact(artifact_tenant(artifact), artifact.pointer)
    assert kept is not None
    assert kept.state == "retired"


def artifact_tenant(artifact: Artifact) -> UUID:
    return UUID(str(artifact.key).partition("/")[0])
