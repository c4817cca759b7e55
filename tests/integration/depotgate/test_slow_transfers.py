"""Transfers that last: slow clients, and credentials that end meanwhile (DP-09, D-67)."""

import asyncio
import json
import os
import select
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from tests.integration.asyncgate.gate_fixture import TaskTenant
from tests.integration.depotgate.conftest import DepotDatabase
from tests.integration.depotgate.gate_fixture import Depot, serving_depotgate

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIZE = 24 * 1024 * 1024
"""More than the sockets of both sides hold."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def depot(depot_database: DepotDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Depot]:
    tenant = TaskTenant(depot_database.tasks)
    await tenant.publish()
    async with serving_depotgate(tenant, depot_database, tmp_path_factory.mktemp("depot") / "blobs") as served:
        yield served


async def metric(depot: Depot, name: str) -> float:
    lines = (await depot.get("/metrics")).text.splitlines()
    return float(next(line.rsplit(" ", 1)[1] for line in lines if line.startswith(f"{name} ")))


def drip(depot: Depot, who: str, piece: bytes, seconds: float) -> tuple[int, str]:
    """An upload without an end, in small pieces; it looks for an answer meanwhile. The answer's status and code."""
    where = urlsplit(depot.url)
    head = f"POST /artifacts?role=input HTTP/1.1\r\nHost: depot\r\nX-API-Key: {depot.tenant.principals[who].key}\r\n"
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: 1000000000\r\n\r\n".encode())
        while not select.select([connection], [], [], seconds)[0]:
            connection.sendall(piece)
        answer = connection.recv(65_536)
    return int(answer.split()[1]), str(json.loads(answer.partition(b"\r\n\r\n")[2])["code"])


async def dripping(seconds: float, size: int = 1) -> AsyncIterator[bytes]:
    while True:
        yield bytes(size)
        await asyncio.sleep(seconds)


async def test_a_client_that_drips_is_refused_after_ten_seconds(depot: Depot) -> None:
    files, began = depot.files(), time.monotonic()
    assert await asyncio.to_thread(drip, depot, "principal", b"x", 1.0) == (408, "REQUEST_TIMEOUT")
    assert 9 < time.monotonic() - began < 14
    assert depot.files() == files
    assert await metric(depot, "depotgate_uploads") == 0


async def test_a_client_that_keeps_the_least_rate_is_served(depot: Depot) -> None:
    """Twelve seconds at 20 KiB a second."""

    async def keeping_up() -> AsyncIterator[bytes]:
        for _ in range(48):
            yield bytes(5_120)
            await asyncio.sleep(0.25)

    answer = await depot.deposit(keeping_up())
    assert answer.status_code == 201, answer.text
    assert answer.json()["size_bytes"] == 48 * 5_120


async def test_a_reader_that_pauses_for_seconds_gets_everything(depot: Depot) -> None:
    """Longer than the five seconds that cut off the reader of any other answer."""
    content = os.urandom(SIZE)
    pointer = (await depot.kept(content))["pointer"]
    async with depot.client.stream("GET", f"/artifacts/{pointer}", headers=depot.headers("observer")) as answer:
        parts = answer.aiter_raw()
        received = bytearray(await anext(parts))
        await asyncio.sleep(7)
        async for part in parts:
            received += part
    assert received == content


async def test_a_reader_that_takes_nothing_is_cut_off(depot: Depot) -> None:
    """Within two times of ten seconds: in the first its own socket may take what the rate asks for."""
    pointer = (await depot.kept(os.urandom(SIZE)))["pointer"]
    began = time.monotonic()
    async with depot.client.stream("GET", f"/artifacts/{pointer}", headers=depot.headers("observer")):
        async with asyncio.timeout(30):
            while await metric(depot, "depotgate_downloads") > 0:
                await asyncio.sleep(0.1)
    assert time.monotonic() - began > 8


async def suspended(depot: Depot, name: str) -> None:
    """The principal is suspended, as MetaGate publishes it."""
    depot.tenant.principals[name] = replace(depot.tenant.principals[name], suspended=True)
    await depot.tenant.publish()


async def test_a_suspended_depositor_is_refused_while_it_sends(depot: Depot) -> None:
    files = depot.files()
    upload = asyncio.create_task(asyncio.to_thread(drip, depot, "delegate", bytes(4_096), 0.01))
    async with asyncio.timeout(20):
        while await metric(depot, "depotgate_uploads") < 1:
            await asyncio.sleep(0.02)
    await suspended(depot, "delegate")
    ended = time.monotonic()
    assert await upload == (401, "CREDENTIAL_REVOKED")
    assert time.monotonic() - ended < 3
    assert depot.files() == files


async def test_a_suspended_reader_gets_no_further(depot: Depot) -> None:
    pointer = (await depot.kept(os.urandom(SIZE)))["pointer"]
    async with depot.client.stream("GET", f"/artifacts/{pointer}", headers=depot.headers("third")) as answer:
        parts = answer.aiter_raw()
        await anext(parts)
        await suspended(depot, "third")
        async with asyncio.timeout(5):
            while await metric(depot, "depotgate_downloads") > 0:
                await asyncio.sleep(0.05)
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in parts:
                pass


async def test_slow_transfers_do_not_hold_up_others(depot: Depot) -> None:
    """Uploads that drip take their places and nothing else."""
    uploads = [asyncio.create_task(depot.deposit(dripping(0.05, 2_048))) for _ in range(8)]
    async with asyncio.timeout(20):
        while await metric(depot, "depotgate_uploads") < 8:
            await asyncio.sleep(0.02)
        for _ in range(20):
            pointer = (await depot.kept(os.urandom(4_096)))["pointer"]
            assert (await depot.get(f"/artifacts/{pointer}")).status_code == 200
    for upload in uploads:
        upload.cancel()
    await asyncio.gather(*uploads, return_exceptions=True)
    async with asyncio.timeout(20):
        while await metric(depot, "depotgate_uploads") > 0:
            await asyncio.sleep(0.02)
