"""What the one database of all gates holds, as checksums."""

import asyncpg
from tests.integration.delegate.gate_fixture import PlanTenant

_TABLES = """
SELECT n.nspname AS schema, c.relname AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 1, 2
"""


async def table_checksums(tenant: PlanTenant) -> dict[str, str]:
    """Of every table of every schema: of the rows, whatever their order, but for those of other tenants: a lease that
    another test left ends when its time is over.
    """
    connection = await asyncpg.connect(tenant.gates.database.superuser)
    try:
        # One snapshot for all tables, so that what is compared was true at one moment.
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            tables = [f'"{table["schema"]}"."{table["name"]}"' for table in await connection.fetch(_TABLES)]
            return {
                table: await connection.fetchval(
                    f"SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table} AS t "
                    "WHERE coalesce(to_jsonb(t) ->> 'tenant', $1) = $1",
                    str(tenant.uid),
                )
                for table in tables
            }
    finally:
        await connection.close()
