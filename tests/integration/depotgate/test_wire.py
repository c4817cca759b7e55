"""DepotGate over HTTP: deposits, reads, ranges, manifests, lists (DEPOTGATE.md §1, §7)."""

import asyncio
import hashlib
import os
import select
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from tests.integration.asyncgate.gate_fixture import TaskTenant
from tests.integration.depotgate.conftest import DepotDatabase
from tests.integration.depotgate.gate_fixture import Depot, content_digest, serving_depotgate
from tests.integration.memorygate.conftest import new_id, rows

from depotgate.blobs import PIECE_BYTES

pytestmark = pytest.mark.asyncio(loop_scope="session")

LARGE = 3 * PIECE_BYTES + 11
MOST = 5 * PIECE_BYTES


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def depot(depot_database: DepotDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Depot]:
    tenant = TaskTenant(depot_database.tasks)
    await tenant.publish()
    directory = tmp_path_factory.mktemp("depot") / "blobs"
    async with serving_depotgate(tenant, depot_database, directory, max_bytes=MOST) as served:
        yield served


async def receipts(depot: Depot) -> int:
    [(number,)] = await rows(
        depot.database.superuser, "SELECT count(*) FROM memorygate.receipt WHERE tenant = $1", depot.tenant.uid
    )
    return int(number)


@pytest.mark.parametrize("size", [0, 1, LARGE])
@pytest.mark.parametrize("chunked", [False, True])
async def test_bytes_come_back_as_they_were_sent(depot: Depot, size: int, chunked: bool) -> None:
    content = os.urandom(size)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 70_001):
            yield content[start : start + 70_001]

    answer = await depot.deposit(
        pieces() if chunked else content, task_id="job", name='täst "1".bin',
        headers={"content-type": "text/html; charset=utf-8", "content-digest": content_digest(content)},
    )  # fmt: skip
    assert answer.status_code == 201, answer.text
    deposited = answer.json()
    sha256 = hashlib.sha256(content).hexdigest()
    assert deposited["pointer"] == f"depot:{deposited['artifact_id']}:{sha256}"
    assert answer.headers["location"] == f"/artifacts/{deposited['pointer']}"
    assert (deposited["size_bytes"], deposited["task_id"]) == (size, "job")
    read = await depot.get(answer.headers["location"])
    assert read.status_code == 200
    assert read.content == content
    assert read.headers["etag"] == f'"{sha256}"'
    assert read.headers["repr-digest"] == content_digest(content)
    assert read.headers["content-type"] == "text/html; charset=utf-8"
    assert read.headers["content-disposition"] == "attachment; filename*=UTF-8''t%C3%A4st%20%221%22.bin"
    assert read.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in read.headers["content-security-policy"]
    assert read.headers["cross-origin-resource-policy"] == "same-origin"
    head = await depot.client.head(answer.headers["location"], headers=depot.headers("observer"))
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")


async def test_a_manifest_and_a_list_name_it(depot: Depot) -> None:
    deposited = await depot.kept(b"listed", task_id="listing", name="a.txt")
    manifest = (await depot.get(f"/artifacts/{deposited['pointer']}/manifest")).json()
    assert manifest == {
        "pointer": deposited["pointer"], "media_type": "application/octet-stream", "size_bytes": 6,
        "sha256": deposited["sha256"], "role": "input", "task_id": "listing", "name": "a.txt", "depositor": "principal",
        "lease_number": None, "stored_at": deposited["stored_at"], "state": "kept", "receipt_id": deposited["receipt_id"],
    }  # fmt: skip
    later = await depot.kept(b"listed too", task_id="listing")
    first = (await depot.get("/artifacts", params={"task_id": "listing", "limit": "1"})).json()
    second = (
        await depot.get("/artifacts", params={"task_id": "listing", "limit": "1", "cursor": first["next_cursor"]})
    ).json()
    assert [item["pointer"] for page in (first, second) for item in page["items"]] == [
        later["pointer"],
        deposited["pointer"],
    ]
    assert second["next_cursor"] is None
    assert (await depot.get("/artifacts", params={"task_id": "listing", "role": "plan"})).json()["items"] == []
    for bad in ({"role": "outputs"}, {"cursor": "x"}, {"limit": "0"}, {"unknown": "1"}):
        assert (await depot.get("/artifacts", params=bad)).status_code == 422


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-0", (0, 1)), ("bytes=5-", (5, 10)), ("bytes=-3", (7, 10)), ("bytes=2-99", (2, 10)), ("bytes=-99", (0, 10)),
        ("bytes=0-1,4-5", None), ("lines=0-1", None), ("bytes=5-2", None), ("bytes=-", None), ("bytes=x-1", None),
    ],
)  # fmt: skip
async def test_one_range_of_bytes(depot: Depot, asked: str, part: tuple[int, int] | None) -> None:
    content = b"0123456789"
    pointer = (await depot.kept(content))["pointer"]
    answer = await depot.get(f"/artifacts/{pointer}", range=asked)
    if part is None:
        assert (answer.status_code, answer.content) == (200, content)
        return
    start, end = part
    assert (answer.status_code, answer.content) == (206, content[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/10"


async def test_ranges_and_conditions_that_do_not_hold(depot: Depot) -> None:
    deposited = await depot.kept(b"0123456789")
    path, etag = f"/artifacts/{deposited['pointer']}", f'"{deposited["sha256"]}"'
    for asked in ("bytes=10-", "bytes=-0"):
        answer = await depot.get(path, range=asked)
        assert (answer.status_code, answer.json()["code"]) == (416, "RANGE_NOT_SATISFIABLE")
        assert answer.headers["content-range"] == "bytes */10"
    assert (await depot.get(path, range="bytes=0-0", if_range='"other"')).status_code == 200
    assert (await depot.get(path, range="bytes=0-0", if_range=etag)).status_code == 206
    for tags in (etag, f'"x", W/{etag}', "*"):
        answer = await depot.get(path, if_none_match=tags)
        assert (answer.status_code, answer.content) == (304, b"")
    assert (await depot.get(path, if_none_match='"other"')).status_code == 200


@pytest.mark.parametrize("path", ["depot:x", f"depot:{'0' * 26}:{'0' * 64}", "..%2f..%2fetc%2fpasswd", "%00"])
async def test_what_is_not_there(depot: Depot, path: str) -> None:
    for below in ("", "/manifest"):
        assert (await depot.get(f"/artifacts/{path}{below}")).status_code in {404, 400}


async def test_another_tenant_finds_nothing_and_another_digest_neither(depot: Depot) -> None:
    deposited = await depot.kept(b"ours")
    stranger = TaskTenant(depot.database.tasks)
    await stranger.publish()
    theirs = Depot(stranger, depot.database, depot.client, depot.url, depot.directory)
    await theirs.until_known()
    assert (await theirs.get(f"/artifacts/{deposited['pointer']}")).status_code == 404
    wrong = deposited["pointer"][:-1] + ("0" if deposited["pointer"][-1] != "0" else "1")
    assert (await depot.get(f"/artifacts/{wrong}")).status_code == 404
    assert (await depot.get("/artifacts", params={"tenant": str(stranger.uid)})).status_code == 403


async def test_a_retry_is_safe_and_another_content_is_refused(depot: Depot) -> None:
    artifact_id = new_id()
    first = await depot.deposit(b"one", artifact_id=artifact_id)
    before, files = await receipts(depot), depot.files()
    again = await depot.deposit(b"one", artifact_id=artifact_id)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json()
    other = await depot.deposit(b"two", artifact_id=artifact_id)
    assert (other.status_code, other.json()["code"]) == (409, "ARTIFACT_CONFLICT")
    assert await receipts(depot) == before
    assert depot.files() == files


@pytest.mark.parametrize(
    ("status", "code", "how"),
    [
        (422, "INVALID_REQUEST", {"role": "outputs"}),
        (422, "INVALID_REQUEST", {"artifact_id": "x"}),
        (422, "INVALID_REQUEST", {"task_id": "x" * 201}),
        (422, "INVALID_REQUEST", {"name": "x" * 256}),
        (422, "INVALID_REQUEST", {"caused_by_receipt_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}),
        (422, "CAUSE_UNKNOWN", {"caused_by_receipt_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "task_id": "nobody"}),
        (422, "INVALID_REQUEST", {"headers": {"content-type": "text"}}),
        (422, "INVALID_REQUEST", {"headers": {"content-type": "text/plain, text/html"}}),
        (422, "INVALID_REQUEST", {"headers": {"content-digest": "sha-256=abc"}}),
        (422, "INVALID_REQUEST", {"headers": {"content-digest": "sha-256=:YQ==:"}}),
        (422, "DIGEST_MISMATCH", {"headers": {"content-digest": content_digest(b"other")}}),
        (422, "INVALID_REQUEST", {"headers": {"legivellum-lease": "../x"}}),
        (415, "UNSUPPORTED_MEDIA_TYPE", {"headers": {"content-encoding": "gzip"}}),
        (415, "UNSUPPORTED_MEDIA_TYPE", {"headers": {"content-encoding": "identity"}}),
        (413, "BODY_TOO_LARGE", {"content": b"0" * (MOST + 1)}),
        (403, "ROLE_NOT_PERMITTED", {"who": "observer"}),
        (403, "ROLE_NOT_PERMITTED", {"who": "admin"}),
        (403, "ROLE_NOT_PERMITTED", {"role": "plan"}),
        (403, "ROLE_NOT_PERMITTED", {"role": "output"}),
        (403, "LEASE_REQUIRED", {"who": "worker", "role": "output"}),
        (409, "LEASE_LOST", {"who": "worker", "role": "output", "headers": {"legivellum-lease": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}}),
    ],
)  # fmt: skip
async def test_what_is_refused_leaves_nothing(depot: Depot, status: int, code: str, how: dict[str, Any]) -> None:
    before, files = await receipts(depot), depot.files()
    answer = await depot.deposit(**how)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert await receipts(depot) == before
    assert depot.files() == files


async def test_digest_algorithms_that_are_not_known_are_ignored(depot: Depot) -> None:
    digests = f"md5=:{'A' * 24}:, {content_digest(b'bytes')}"
    assert (await depot.deposit(headers={"content-digest": digests})).status_code == 201


def _opened(depot: Depot, *lines: str) -> socket.socket:
    where = urlsplit(depot.url)
    connection = socket.create_connection((where.hostname or "", where.port or 0), timeout=20)
    head = [
        "POST /artifacts?role=input HTTP/1.1", "Host: depot", f"X-API-Key: {depot.tenant.principals['principal'].key}", *lines
    ]  # fmt: skip
    connection.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
    return connection


async def test_too_large_without_a_length_is_refused_at_the_byte_that_crosses(depot: Depot) -> None:
    """The answer comes while the client still sends, and soon after it the connection ends: nobody reads on for ever."""
    files = depot.files()

    def send_without_end() -> tuple[bytes, int]:
        piece, sent = b"10000\r\n" + bytes(65_536) + b"\r\n", 0
        with _opened(depot, "Transfer-Encoding: chunked") as connection:
            try:
                while not select.select([connection], [], [], 0)[0]:
                    connection.sendall(piece)
                    sent += 65_536
                answer = connection.recv(65_536)
                while True:
                    connection.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                pass
        return answer, sent

    async with asyncio.timeout(20):
        answer, sent = await asyncio.to_thread(send_without_end)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"BODY_TOO_LARGE" in answer
    assert sent > MOST
    assert depot.files() == files


async def test_what_can_be_refused_is_refused_before_the_body(depot: Depot) -> None:
    def ask(*lines: str) -> bytes:
        with _opened(depot, "Expect: 100-continue", "Content-Length: 10", *lines) as connection:
            return connection.recv(65_536)

    assert b"415 " in (await asyncio.to_thread(ask, "Content-Encoding: gzip")).split(b"\r\n")[0]
    assert (await asyncio.to_thread(ask)).startswith(b"HTTP/1.1 100 Continue")


@pytest.mark.parametrize("tenth", range(10))
async def test_a_client_that_leaves_at_each_tenth_leaves_nothing(depot: Depot, tenth: int) -> None:
    before, files = await receipts(depot), depot.files()

    def leave() -> None:
        with _opened(depot, f"Content-Length: {LARGE}") as connection:
            connection.sendall(bytes(LARGE * tenth // 10))

    await asyncio.to_thread(leave)
    async with asyncio.timeout(20):
        while depot.files() != files or (await depot.get("/metrics")).text.find("depotgate_uploads 0.0") < 0:
            await asyncio.sleep(0.02)
    assert await receipts(depot) == before


@pytest.mark.invariant("INV-093")
async def test_bytes_that_changed_in_the_store_never_look_complete(depot: Depot) -> None:
    content = os.urandom(LARGE)
    deposited = await depot.kept(content)
    [path] = [path for path in depot.files() if path.stat().st_size == LARGE and path.read_bytes() == content]
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(LARGE - 5)
        file.write(bytes([content[LARGE - 5] ^ 1]))

    def read() -> bytes:
        where = urlsplit(depot.url)
        with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as connection:
            connection.sendall(
                f"GET /artifacts/{deposited['pointer']} HTTP/1.1\r\nHost: depot\r\nX-API-Key: {depot.tenant.principals['observer'].key}\r\n\r\n".encode()
            )
            received = b""
            while part := connection.recv(1_048_576):
                received += part
            return received

    received = await asyncio.to_thread(read)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert len(body) < LARGE
    path.unlink()
    missing = await depot.get(f"/artifacts/{deposited['pointer']}")
    assert missing.status_code == 503
    assert "depotgate_corrupt_total 2.0" in (await depot.get("/metrics")).text


async def test_uploads_and_downloads_have_their_number(
    depot: Depot, depot_database: DepotDatabase, tmp_path: Path
) -> None:
    async with serving_depotgate(depot.tenant, depot_database, tmp_path / "blobs", uploads=1, downloads=1) as small:
        go_on = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"begun"
            await go_on.wait()

        first = asyncio.create_task(small.deposit(slow()))
        async with asyncio.timeout(20):
            while (await small.get("/metrics")).text.find("depotgate_uploads 1.0") < 0:
                await asyncio.sleep(0.02)
        refused = await small.deposit(b"second")
        assert (refused.status_code, refused.json()["code"]) == (503, "OVERLOADED")
        go_on.set()
        assert (await first).status_code == 201
        assert (await small.deposit(b"third")).status_code == 201
