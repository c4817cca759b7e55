"""One contract for every store of blobs: files, an S3 server, memory (DP-08)."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from tests.calendar_days import OTHER_CLOCK
from tests.integration.memorygate.conftest import new_id
from tests.object_store import ObjectStore

from depotgate.blobs import PART_BYTES, BlobMissing, Blobs, StoreUnavailable, UnusableStore
from depotgate.stores import open_blobs

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIZES = (0, 1, PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 7)


@pytest_asyncio.fixture(params=["files", "s3", "memory"])
async def blobs(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Blobs]:
    if request.param == "files":
        url = f"file://{tmp_path}/store"
    elif request.param == "memory":
        url = "memory:///"
    else:
        server: ObjectStore = request.getfixturevalue("object_store")
        for name, value in server.credentials.items():
            monkeypatch.setenv(name, value)
        url = f"s3://{server.make_bucket()}/depot"
    store = open_blobs(url)
    yield store
    await store.close()


def new_key() -> str:
    return f"{uuid4()}/{new_id()}"


async def read(blobs: Blobs, key: str, start: int, end: int) -> bytes:
    reader = await blobs.reader(key, start, end)
    try:
        return b"".join([part async for part in reader.parts()])
    finally:
        await reader.close()


async def keys(blobs: Blobs) -> set[str]:
    return {blob.key async for blob in blobs.listing()}


@pytest.mark.parametrize("size", SIZES)
async def test_what_was_put_or_written_is_read(blobs: Blobs, size: int) -> None:
    content = os.urandom(size)
    put, written = new_key(), new_key()
    await blobs.put(put, content)
    writer = await blobs.writer(written)
    for place in range(0, size, PART_BYTES):
        await writer.write(content[place : place + PART_BYTES])
    await writer.commit()
    for key in (put, written):
        assert await read(blobs, key, 0, size) == content
        assert await blobs.size(key) == size
    assert await keys(blobs) == {put, written}


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 1000), (999, 1000), (500, 600), (3, 3)])
async def test_a_range_is_read(blobs: Blobs, start: int, end: int) -> None:
    content, key = os.urandom(1000), new_key()
    await blobs.put(key, content)
    assert await read(blobs, key, start, end) == content[start:end]


async def test_what_is_not_there_is_missing_and_its_removal_harmless(blobs: Blobs) -> None:
    key = new_key()
    await blobs.remove(key)
    assert await blobs.size(key) is None
    for start, end in ((0, 5), (0, 0)):
        with pytest.raises(BlobMissing):
            await read(blobs, key, start, end)
    await blobs.put(key, b"bytes")
    await blobs.remove(key)
    assert await blobs.size(key) is None
    assert await keys(blobs) == set()


@OTHER_CLOCK
async def test_a_listing_has_sizes_and_times(blobs: Blobs) -> None:
    made = {new_key(): size for size in (1, 20, 300)}
    for key, size in made.items():
        await blobs.put(key, bytes(size))
    listed = [blob async for blob in blobs.listing()]
    assert {blob.key: blob.size_bytes for blob in listed} == made
    assert all(abs(blob.modified_at - datetime.now(UTC)) < timedelta(minutes=1) for blob in listed)


async def test_an_abandoned_blob_is_not_there(blobs: Blobs) -> None:
    key = new_key()
    writer = await blobs.writer(key)
    await writer.write(os.urandom(PART_BYTES))
    await writer.abandon()
    assert await blobs.size(key) is None
    assert await keys(blobs) == set()


async def test_nothing_of_a_blob_is_seen_before_it_is_whole(blobs: Blobs) -> None:
    """Promise 2, at the store."""
    key = new_key()
    writer = await blobs.writer(key)
    await writer.write(os.urandom(PART_BYTES))
    assert await blobs.size(key) is None
    await writer.commit()
    assert await blobs.size(key) == PART_BYTES


async def test_many_at_once_do_not_mix(blobs: Blobs) -> None:
    contents = {new_key(): os.urandom(70_000) for _ in range(30)}
    await asyncio.gather(*(blobs.put(key, content) for key, content in contents.items()))
    read_back = await asyncio.gather(*(read(blobs, key, 0, 70_000) for key in contents))
    assert read_back == list(contents.values())


async def test_a_read_that_has_begun_outlives_the_removal(blobs: Blobs) -> None:
    """Promise 5, at the store."""
    content, key = os.urandom(PART_BYTES), new_key()
    await blobs.put(key, content)
    reader = await blobs.reader(key, 0, PART_BYTES)
    parts = reader.parts()
    first = await anext(parts)
    await blobs.remove(key)
    assert first + b"".join([part async for part in parts]) == content
    await reader.close()


@pytest.mark.parametrize("fault", ["parent", "absolute", "hidden", "empty"])
async def test_no_key_leaves_the_directory(tmp_path: Path, fault: str) -> None:
    key = {"parent": "../x", "absolute": "/etc/x", "hidden": ".uploads/x", "empty": ""}[fault]
    store = open_blobs(f"file://{tmp_path}/store")
    with pytest.raises(ValueError, match="not a key"):
        await store.put(key, b"bytes")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_file_that_was_being_written_is_listed_and_removed_by_its_listed_key(tmp_path: Path) -> None:
    """What a killed process leaves, `sweep` finds."""
    store = open_blobs(f"file://{tmp_path}/store")
    writer = await store.writer(new_key())
    await writer.write(b"part")
    [left] = await keys(store)
    await store.remove(left)
    assert await keys(store) == set()
    await writer.abandon()


@pytest.mark.parametrize(
    "url", ["", "/tmp/x", "file://host/x", "ftp://x/y", "http://x/y", "s3:bucket", "file:///proc/nothing/here"]
)
async def test_what_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(UnusableStore):
        open_blobs(url)


async def test_a_store_that_is_away_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port_factory: Callable[[], int]
) -> None:
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{unused_tcp_port_factory()}", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "x",
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    store = open_blobs("s3://bucket")
    with pytest.raises(StoreUnavailable):
        await store.put(new_key(), b"bytes")
