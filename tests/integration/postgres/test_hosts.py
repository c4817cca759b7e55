"""A URL of several hosts while some of them are gone, silent, starting, or read-only."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.databases import Database

from legivellum.postgres.connecting import HostConnector, connect
from legivellum.postgres.driver import translate
from legivellum.postgres.errors import Unavailable
from legivellum.postgres.pool import Pool

STARTING = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"


@asynccontextmanager
async def first_host(answer: bytes | None) -> AsyncIterator[str]:
    """The address of a host that accepts connections and answers this error, or nothing at all."""
    open_ends = []

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ends.append(writer)
        await reader.read(1)
        if answer is not None:
            writer.write(b"E" + struct.pack("!i", 4 + len(answer)) + answer)
            writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in open_ends:
            writer.transport.abort()


def before(url: str, host: str) -> str:
    """The URL with another host in front of its own, which stands in a parameter where it is a socket."""
    address, _, port = host.partition(":")
    if "?host=" in url:
        return url.replace("?host=", f"?sslmode=disable&host={address},").replace("&port=", f"&port={port},")
    return url.replace(urlsplit(url).netloc.rpartition("@")[2], f"{host},{urlsplit(url).netloc.rpartition('@')[2]}", 1)


@pytest.mark.parametrize("answer", [None, STARTING], ids=["silent", "starting"])
async def test_the_next_host_is_asked(database: Database, answer: bytes | None) -> None:
    """A host that says nothing uses up its own time only; one that is starting does not end the search. The host that
    answered is asked first from then on.
    """
    async with first_host(answer) as host:
        connector = HostConnector(before(database.owner, host), seconds=0.5)
        connection = await connector.connect()
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
    connection = await connector.connect()
    await connection.close()


async def test_no_host_answers(database: Database) -> None:
    """Each has its time; what is raised is what the first said."""
    async with first_host(STARTING) as starting, first_host(None) as silent:
        with pytest.raises(asyncpg.CannotConnectNowError) as raised:
            await connect(f"postgresql://u@{starting},{silent}/d?sslmode=disable", seconds=0.3)
    error = translate(raised.value)
    assert (type(error), error.why) == (Unavailable, "it is starting or stopping")


async def test_a_pool_leaves_a_server_that_is_read_only(database: Database) -> None:
    """A connection to what became a standby is given up at the first refusal: the next one finds who may write."""
    administrator = await asyncpg.connect(database.superuser)
    await administrator.execute(f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = on')
    pool = await Pool.open(database.owner, size=1, query_timeout=5, name="test")
    try:
        await administrator.execute(f'ALTER DATABASE "{database.name}" RESET default_transaction_read_only')
        with pytest.raises(Unavailable, match="25006"):
            await pool.fetch("CREATE TABLE public.written ()")
        await pool.fetch("CREATE SCHEMA written")
    finally:
        await pool.close()
        await administrator.close()
