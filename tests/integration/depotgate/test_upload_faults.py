"""What a deposit leaves when the process is killed, the disk is full, or the database is away at the commit; and that its
bytes are on the disk before it is answered (DP-03, DP-08).
"""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio
from tests.faults.debian import install
from tests.faults.test_disk import fill, volume
from tests.integration.asyncgate.gate_fixture import TaskTenant
from tests.integration.depotgate.conftest import DepotDatabase
from tests.integration.depotgate.gate_fixture import Depot, serving_depotgate
from tests.integration.depotgate.gate_processes import depot_process
from tests.integration.memorygate.conftest import new_id, rows

from depotgate.blobs import PIECE_BYTES
from memorygate.verifying import verify as verify_ledger

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tenant(depot_database: DepotDatabase) -> TaskTenant:
    published = TaskTenant(depot_database.tasks)
    await published.publish()
    return published


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("depot") / "blobs"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def survivor(tenant: TaskTenant, depot_database: DepotDatabase, directory: Path) -> AsyncIterator[Depot]:
    """Another process of the gate on the same store and database."""
    async with serving_depotgate(tenant, depot_database, directory) as served:
        yield served


async def stored(depot: Depot, artifact_id: str) -> tuple[int, int]:
    """How many rows and receipts there are of an artifact."""
    [(artifacts,)] = await rows(
        depot.database.superuser, "SELECT count(*) FROM depotgate.artifact WHERE artifact_id = $1", artifact_id
    )
    [(receipts,)] = await rows(
        depot.database.superuser,
        "SELECT count(*) FROM memorygate.receipt WHERE tenant = $1 AND body::json ->> 'artifact_pointer' LIKE $2",
        depot.tenant.uid,
        f"depot:{artifact_id}:%",
    )
    return int(artifacts), int(receipts)


async def known_files(depot: Depot) -> set[str]:
    keys = await rows(depot.database.superuser, "SELECT key FROM depotgate.blob WHERE tenant = $1", depot.tenant.uid)
    return {key for (key,) in keys}


@pytest.mark.invariant("INV-093", "INV-094")
@pytest.mark.parametrize(
    ("point", "was_stored", "left_over"),
    [("before bytes", 0, 0), ("after bytes", 0, 1), ("before commit", 0, 1), ("after commit", 1, 0)],
)
async def test_killed_at_a_step_of_a_deposit(
    survivor: Depot, depot_database: DepotDatabase, directory: Path, point: str, was_stored: int, left_over: int
) -> None:
    """Row and receipt, or neither; the bytes at worst lie in the store for `sweep`; the retry stores it once."""
    artifact_id, content = new_id(), os.urandom(5_000)
    files = set(survivor.files())
    async with depot_process(survivor.tenant, depot_database, directory, point=point) as killed:
        with pytest.raises(httpx.HTTPError):
            await killed.depot.deposit(content, artifact_id=artifact_id, task_id="job")
        assert await killed.ended() == -9
    assert await stored(survivor, artifact_id) == (was_stored, was_stored)
    new_files = set(survivor.files()) - files
    assert len(new_files) == was_stored + left_over
    assert len({f"{path.parent.name}/{path.name}" for path in new_files} & await known_files(survivor)) == was_stored
    answer = await survivor.deposit(content, artifact_id=artifact_id, task_id="job")
    assert answer.status_code == (200 if was_stored else 201), answer.text
    assert await stored(survivor, artifact_id) == (1, 1)
    assert (await survivor.get(f"/artifacts/{answer.json()['pointer']}")).content == content
    assert await known_files(survivor) <= {f"{path.parent.name}/{path.name}" for path in survivor.files()}
    await verify_ledger(depot_database.tasks.ledger.auditor)


@pytest.mark.parametrize("point", ["before unlink", "after unlink"])
async def test_killed_while_it_drops_its_own_copy(
    survivor: Depot, depot_database: DepotDatabase, directory: Path, point: str
) -> None:
    """Equal bytes were there before: both artifacts stay readable, whatever became of the second copy."""
    content, artifact_id = os.urandom(5_000), new_id()
    first = await survivor.kept(content)
    async with depot_process(survivor.tenant, depot_database, directory, point=point) as killed:
        with pytest.raises(httpx.HTTPError):
            await killed.depot.deposit(content, artifact_id=artifact_id)
        assert await killed.ended() == -9
    again = await survivor.deposit(content, artifact_id=artifact_id)
    assert again.status_code == 200
    for pointer in (first["pointer"], again.json()["pointer"]):
        assert (await survivor.get(f"/artifacts/{pointer}")).content == content


async def test_killed_within_a_large_upload(survivor: Depot, depot_database: DepotDatabase, directory: Path) -> None:
    """Promise 7: no row, no receipt, and nothing under a name that a blob could have."""
    artifact_id, files = new_id(), set(survivor.files())

    async def killing() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield bytes(PIECE_BYTES)
            await asyncio.sleep(0.05)
        process.process.kill()
        yield bytes(PIECE_BYTES)

    async with depot_process(survivor.tenant, depot_database, directory) as process:
        with pytest.raises(httpx.HTTPError):
            await process.depot.deposit(killing(), artifact_id=artifact_id)
        await process.ended()
    assert await stored(survivor, artifact_id) == (0, 0)
    assert {path.parent.name for path in set(survivor.files()) - files} <= {".uploads"}


@pytest.mark.parametrize("size", [100, 3 * PIECE_BYTES])
async def test_bytes_and_their_name_are_on_the_disk_before_the_answer(
    tenant: TaskTenant, depot_database: DepotDatabase, tmp_path: Path, size: int
) -> None:
    """As the kernel saw it: fdatasync of the file, its link, fsync of the directory, and only then the answer."""
    if shutil.which("strace") is None and not install("strace"):
        pytest.skip("NOT RUN: there is no strace here, and it cannot be installed")
    trace = tmp_path / "trace"
    calls = "trace=openat,fdatasync,fsync,link,linkat,unlink,unlinkat,mkdir,mkdirat,write,writev,sendto,sendmsg"
    under = ("strace", "-f", "-qq", "-y", "-s", "16", "-e", calls, "-o", str(trace))
    async with depot_process(tenant, depot_database, tmp_path / "blobs", under=under) as traced:
        deposited = await traced.depot.kept(os.urandom(size))
    [key] = [key for key in await known_files(traced.depot) if (tmp_path / "blobs" / key).exists()]
    lines = trace.read_text(errors="replace").splitlines()

    def at(pattern: str) -> int:
        places = [place for place, line in enumerate(lines) if re.search(pattern, line)]
        assert places, pattern
        return places[0]

    upload = key.replace("/", "_")
    folder = re.escape(str(tmp_path / "blobs" / key.partition("/")[0]))
    synced = at(rf"fdatasync\(\d+<[^>]*\.uploads/{upload}>")
    linked = at(rf"link(at)?\(.*{upload}.*{key}.*= 0")
    kept = at(rf"fsync\(\d+<{folder}>")
    answered = at(r'"HTTP/1\.1 201 ')
    assert synced < linked < kept < answered, deposited
    made = at(rf"mkdir(at)?\(.*{folder}\"")
    assert made < at(rf"fsync\(\d+<{re.escape(str(tmp_path / 'blobs'))}>") < answered


async def test_a_full_disk_refuses_and_recovers(tenant: TaskTenant, depot_database: DepotDatabase) -> None:
    with volume(24) as place:
        async with serving_depotgate(tenant, depot_database, place / "base" / "blobs") as depot:
            before = await depot.kept(os.urandom(100_000))
            files = depot.files()
            await asyncio.to_thread(fill, place / "filling")
            for size in (50_000, 4 * PIECE_BYTES):
                artifact_id = new_id()
                answer = await depot.deposit(os.urandom(size), artifact_id=artifact_id)
                assert (answer.status_code, answer.json()["code"]) == (503, "STORE_FULL")
                assert "retry-after" in answer.headers
                assert await stored(depot, artifact_id) == (0, 0)
                assert depot.files() == files
            assert (await depot.get(f"/artifacts/{before['pointer']}")).status_code == 200
            assert 'depotgate_deposits_total{outcome="STORE_FULL"} 2.0' in (await depot.get("/metrics")).text
            (place / "filling").unlink()
            assert (await depot.deposit(os.urandom(4 * PIECE_BYTES))).status_code == 201


async def test_the_database_away_at_the_commit_stores_nothing_and_the_retry_does(
    survivor: Depot, depot_database: DepotDatabase
) -> None:
    """503, no row, no receipt; bytes perhaps. The same artifact_id again is stored once."""
    artifact_id, content = new_id(), os.urandom(50_000)
    sent_half, go_on = asyncio.Event(), asyncio.Event()

    async def halting() -> AsyncIterator[bytes]:
        yield content[:25_000]
        sent_half.set()
        await go_on.wait()
        yield content[25_000:]

    connection = await asyncpg.connect(depot_database.superuser)
    name = depot_database.keeper.rpartition("/")[2].partition("?")[0]
    try:
        upload = asyncio.create_task(survivor.deposit(halting(), artifact_id=artifact_id))
        await sent_half.wait()
        await connection.execute(
            f'ALTER ROLE depotgate_keeper IN DATABASE "{name}" SET default_transaction_read_only = on'
        )
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'depotgate_keeper' AND datname = current_database()"
        )
        go_on.set()
        answer = await upload
        assert (answer.status_code, answer.json()["code"]) in {(503, "UNAVAILABLE"), (503, "DEADLINE_EXCEEDED")}
        assert await stored(survivor, artifact_id) == (0, 0)
    finally:
        await connection.execute(
            f'ALTER ROLE depotgate_keeper IN DATABASE "{name}" RESET default_transaction_read_only'
        )
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'depotgate_keeper' AND datname = current_database()"
        )
        await connection.close()
    async with asyncio.timeout(30):
        while True:
            with suppress(httpx.HTTPError):
                again = await survivor.deposit(content, artifact_id=artifact_id)
                if again.status_code != 503:
                    break
            await asyncio.sleep(0.1)
    assert again.status_code == 201, again.text
    assert await stored(survivor, artifact_id) == (1, 1)
