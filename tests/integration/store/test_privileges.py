"""Who may do what, tried with each role's own password."""

import re
from pathlib import Path

import asyncpg
import pytest
from tests.databases import Database
from tests.integration.store.test_pool import taken
from tests.integration.store.worlds import change_of, publish, somebody

from metagate_store.migrating import API, IDENTITY, PROCESS_ROLES, PUBLISHER, ROLE_SETTINGS
from metagate_store.publisher import Publisher
from metagate_store.reader import Reader
from metagate_store.rows import BootstrapOutcome

CLUSTER_WIDE = {
    "history_everywhere",
    "startups_everywhere",
    "items_everywhere",
    "overview_everywhere",
    "tenants_everywhere",
    "named_everywhere",
    "issuers_seen",
    "state",
    "credentials",
    "credential_mark",
}
"""Functions of the API that take no tenant: D-51's, the credential loader's (D-45), and how fresh the database is and the
issuers' keys are, which discovery names to everybody."""
BY_CREDENTIAL = {"resolve"}
MANY_TENANTS = {"errors_of", "bootstrap", "report"}
"""Their first argument is one tenant per row."""


STATEMENTS = {
    "table": ("SELECT FROM {0}", "DELETE FROM {0}", "INSERT INTO {0} DEFAULT VALUES", "TRUNCATE {0}"),
    "view": ("SELECT FROM {0}",),
    "sequence": ("SELECT nextval('{0}')", "SELECT FROM {0}", "SELECT setval('{0}', 1)"),
}


async def statements(dsn: str) -> list[str]:
    """Everything that could be tried on everything there is."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT c.relname, CASE c.relkind WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind "
            "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE n.nspname = 'metagate' AND c.relkind IN ('r', 'p', 'v', 'S')"
        )
        return [item.format(f"metagate.{name}") for name, kind in rows for item in STATEMENTS[kind]]
    finally:
        await connection.close()


async def denied(connection: asyncpg.Connection, statement: str) -> bool:
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return True
    return False


@pytest.mark.invariant("INV-027")
@pytest.mark.parametrize("role", ["api", "identity"])
async def test_readers_touch_no_table(database: Database, role: str) -> None:
    """The API's and the identity role are denied every statement on every table, view and sequence."""
    connection = await asyncpg.connect(
        getattr(database, role), server_settings={"default_transaction_read_only": "off"}
    )
    everything = await statements(database.superuser)
    assert len(everything) > 100
    for statement in everything:
        assert await denied(connection, statement), statement
    for statement in (
        "CREATE TABLE metagate.x ()",
        "CREATE TABLE public.x ()",
        "CREATE ROLE x",
        "SET ROLE metagate_owner",
    ):
        assert await denied(connection, statement), statement
    await connection.close()


async def test_who_may_execute_what(database: Database) -> None:
    """Exactly the listed functions can be executed, by exactly the listed roles, and by nobody else."""
    connection = await asyncpg.connect(database.superuser)
    rows = await connection.fetch(
        "SELECT p.proname, r.rolname FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace "
        "CROSS JOIN pg_roles AS r WHERE n.nspname = 'metagate' AND r.rolname = ANY ($1) "
        "AND has_function_privilege(r.oid, p.oid, 'EXECUTE')",
        list(PROCESS_ROLES),
    )
    public = await connection.fetchval(
        "SELECT count(*) FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace "
        "CROSS JOIN LATERAL aclexplode(p.proacl) AS a WHERE n.nspname = 'metagate' AND a.grantee = 0"
    )
    await connection.close()
    may = {role: {row["proname"] for row in rows if row["rolname"] == role} for role in PROCESS_ROLES}
    assert may[API] == {
        "bootstrap", "report", "resolve", "credentials", "credential_mark", "packet_now", "startup", "startups",
        "startups_everywhere", "items", "items_everywhere", "item", "policy_profile", "topology", "topology_page", "state",
        "booted", "standing", "layers", "history", "history_everywhere", "declared_at", "summary",
        "overview", "overview_everywhere", "tenants_everywhere", "issuers_seen", "named", "named_everywhere",
        "startup_everywhere", "not_served", "failures", "search", "errors_of", "principals_page",
        "startups_failed_with", "others_failed_with", "changed_specs", "interview", "announce", "withdraw", "announced",
    }  # fmt: skip
    assert may[IDENTITY] == {
        "resolve",
        "credentials",
        "credential_mark",
        "everybody",
        "policies",
        "problematas",
        "plan_templates",
        "state",
    }
    assert may[PUBLISHER] == {"claim", "id_moment", "prepare_partitions", "purge", "purge_packets", "state"}
    assert public == 0


async def test_tenant_comes_first(database: Database) -> None:
    """Each function the API may call takes the tenant first, but for the named exceptions (docs/database.md)."""
    connection = await asyncpg.connect(database.superuser)
    rows = await connection.fetch(
        "SELECT p.proname, format_type(p.proargtypes[0], NULL) AS first FROM pg_proc AS p "
        "JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = 'metagate' "
        "AND has_function_privilege('metagate_api', p.oid, 'EXECUTE')"
    )
    await connection.close()
    first = {row["proname"]: row["first"] for row in rows}
    assert {name for name in first if first[name] != "uuid"} == CLUSTER_WIDE | BY_CREDENTIAL | MANY_TENANTS
    assert {first[name] for name in MANY_TENANTS} == {"uuid[]"}


async def test_definers_pin_their_path(database: Database) -> None:
    """Each function that runs with its owner's rights pins search_path, and its owner is no superuser."""
    connection = await asyncpg.connect(database.superuser)
    rows = await connection.fetch(
        "SELECT p.proname, p.prosecdef, p.proconfig, r.rolname, r.rolsuper FROM pg_proc AS p "
        "JOIN pg_namespace AS n ON n.oid = p.pronamespace JOIN pg_roles AS r ON r.oid = p.proowner WHERE n.nspname = 'metagate'"
    )
    await connection.close()
    assert len(rows) > 20
    for row in rows:
        assert "search_path=pg_catalog, pg_temp" in (row["proconfig"] or []), row["proname"]
        assert (row["rolname"], row["rolsuper"]) == ("metagate_owner", False)


async def test_search_path_attack(database: Database, reader: Reader) -> None:
    """Temporary tables, functions and operators of the caller's are never met by a function with its owner's rights."""
    principal = somebody()
    await publish(database.publisher, principal)
    connection = await asyncpg.connect(database.api)
    await connection.execute(
        "CREATE TEMP TABLE principal (tenant uuid, principal_key text, suspended boolean); "
        "CREATE TEMP TABLE binding (tenant uuid, principal_key text); CREATE TEMP TABLE migration (version integer); "
        "CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'caught'; END $$; "
        "CREATE FUNCTION pg_temp.starts_with(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'; "
        "SET search_path = pg_temp, metagate, public"
    )
    state = await connection.fetchrow("SELECT * FROM metagate.state()")
    assert state["schema_version"] is not None
    principal.components = ("x_*",)
    await publish(database.publisher, principal)
    ask = principal.ask("y_1")
    rows = await connection.fetch(
        "SELECT * FROM metagate.bootstrap($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        [ask.tenant], [ask.principal_key], ["key"], [""], [principal.key], [None], ["y_1"], [ask.startup_id], [ask.packet_id],
        [None], [principal.digest], [None], [None], [None], [False],
    )  # fmt: skip
    assert [row["outcome"] for row in rows] == [BootstrapOutcome.COMPONENT_NOT_PERMITTED]
    await connection.close()


async def test_writer_cannot_rewrite_history(database: Database) -> None:
    """The writer may neither change nor delete revisions, audit rows, packets or sessions, nor invent a session."""
    principal = somebody()
    await publish(database.publisher, principal)
    connection = await asyncpg.connect(database.publisher)
    for table in ("revision", "change", "packet", "startup", "startup_default", "migration", "installation"):
        for statement in ("UPDATE metagate.{0} SET {1} = {1}", "DELETE FROM metagate.{0}", "TRUNCATE metagate.{0}"):
            column = {"packet": "digest", "migration": "name", "installation": "cluster_uid"}.get(table, "revision")
            assert await denied(connection, statement.format(table, column)), (table, statement)
    for statement in (
        "INSERT INTO metagate.startup (tenant) VALUES (NULL)", "DELETE FROM metagate.declared", "DELETE FROM metagate.tenant",
        "SELECT FROM metagate.idempotency", "SELECT FROM metagate.bootstrap(NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL)",
    ):  # fmt: skip
        assert await denied(connection, statement), statement
    await connection.close()


async def test_history_is_append_only_for_the_owner_too(database: Database) -> None:
    """Even the owner's UPDATE or DELETE of a revision or an audit row is refused."""
    await publish(database.publisher, somebody())
    connection = await asyncpg.connect(database.owner)
    for statement in (
        "UPDATE metagate.revision SET epoch = 0", "DELETE FROM metagate.revision", "TRUNCATE metagate.revision",
        "UPDATE metagate.change SET name = ''", "DELETE FROM metagate.change", "UPDATE metagate.packet SET body = ''",
    ):  # fmt: skip
        assert await denied(connection, statement), statement
    await connection.close()


async def test_settings_are_the_roles(database: Database) -> None:
    """Time limits come with the role, so that no session ever has to set one, and they stay below the deadline."""
    connection = await asyncpg.connect(database.api)
    for name, value in ROLE_SETTINGS[API].items():
        assert await connection.fetchval(f"SHOW {name}") == value
    await connection.close()
    lock, statement = (
        int(ROLE_SETTINGS[API][name].removesuffix("ms")) for name in ("lock_timeout", "statement_timeout")
    )
    assert lock < statement < 500


async def test_no_session_state(database: Database) -> None:
    """After every method was used, no connection of the pool differs from a new one: a no-op reset is legal (docs/database.md)."""
    principal = somebody()
    await publish(database.publisher, principal)
    reader = await Reader.connect(database.api, size=1, acquire_timeout=5, query_timeout=5)
    read = "SELECT name, setting FROM pg_settings WHERE source = 'session' OR name IN ('search_path', 'role', 'TimeZone') ORDER BY 1"
    async with taken(reader._pool) as connection:
        before = await connection.fetch(read)
    [answer] = await reader.bootstrap([principal.ask(idempotency_key="k")])
    assert answer.startup_id is not None
    await reader.report([principal.tells(answer.startup_id)])
    await reader.resolve([principal.credential])
    await reader.credentials()
    await reader.startups(principal.tenant)
    await reader.startups(None)
    await reader.listing("bindings", principal.tenant)
    await reader.topology(principal.tenant)
    await reader.overviews.overview(principal.tenant)
    await reader.overviews.overview(None)
    await reader.state()
    async with taken(reader._pool) as connection:
        assert await connection.fetch(read) == before
        assert (
            await connection.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
            )
            == 0
        )
        assert await connection.fetchval("SELECT count(*) FROM pg_listening_channels()") == 0
    await reader.close()


async def test_publisher_needs_nothing_more(fresh_database: Database) -> None:
    """Loading, publishing, deleting and upkeep work with the writer's own rights."""
    principal = somebody()
    publisher = await Publisher.open(fresh_database.publisher)
    await publisher.load()
    assert await publisher.publish(change_of([principal])) == 1
    await publisher.close()


async def test_documentation(database: Database) -> None:
    """docs/database.md names every table and role, and its settings for administrators are those of the code."""
    text = (Path(__file__).parents[3] / "docs" / "database.md").read_text(encoding="utf-8")
    connection = await asyncpg.connect(database.superuser)
    rows = await connection.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'metagate' AND tablename !~ '^startup_'"
    )
    await connection.close()
    documented = {
        name
        for line in text.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert documented == {name for [name] in rows} | {"metagate_owner", *PROCESS_ROLES}
    for role, settings in ROLE_SETTINGS.items():
        for name, value in settings.items():
            assert f"ALTER ROLE {role} SET {name} = '{value}';" in text
    assert text.count("ALTER ROLE ") == sum(len(settings) for settings in ROLE_SETTINGS.values())
