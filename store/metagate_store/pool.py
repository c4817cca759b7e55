"""The kit's pool, asked by the names of the queries in `sql/`."""

from typing import Any

import asyncpg

from legivellum.postgres import pool as kit_pool
from metagate_store.queries import sql


class NamedQueryPool(kit_pool.Pool):
    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of a named query. Raises StoreUnavailable within acquire + query timeout, SchemaMismatch."""
        return await super().fetch(sql(query), *arguments)

    async def fetch_apart(self, query: str, *arguments: Any, seconds: int) -> list[asyncpg.Record]:
        return await super().fetch_apart(sql(query), *arguments, seconds=seconds)
