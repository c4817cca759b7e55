"""A pool of a fixed size whose connections carry no state (docs/database.md)."""

import logging

import asyncpg

from legivellum.postgres.driver import translated

# A database that is away is told once, by whoever follows it; the driver would print a traceback at every attempt.
logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)


async def _nothing(_connection: asyncpg.Connection) -> None:
    """Nothing is ever set in a session, so there is nothing to reset: the round trip would cost more than most
    questions.
    """


@translated
async def open_pool(dsn: str, *, size: int, query_timeout: float, name: str) -> asyncpg.Pool:
    """Raises Unavailable."""
    return await asyncpg.create_pool(
        dsn,
        min_size=size,
        max_size=size,
        max_inactive_connection_lifetime=0,
        command_timeout=query_timeout,
        timeout=2.0,
        reset=_nothing,
        server_settings={"application_name": name},
    )
