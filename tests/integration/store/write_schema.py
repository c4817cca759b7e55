"""Write store/metagate_store/schema.sql anew from the migrations: `python -m tests.integration.store.write_schema`."""

import asyncio

from tests.databases import Server
from tests.integration.store.test_migrations import SCHEMA, dump

from metagate_store.migrating import migrate


async def write() -> None:
    server = Server.start()
    try:
        await server.make_template()
        empty = await server.make(migrated=False)
        await migrate(empty.owner)
        SCHEMA.write_text(await dump(empty, server), encoding="utf-8")
    finally:
        server.stop()


if __name__ == "__main__":
    asyncio.run(write())
