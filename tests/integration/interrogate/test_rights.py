"""What the process's role may do, from the catalogue of the database itself: its functions, and nothing else (D-57)."""

import asyncpg
import pytest
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.memorygate.conftest import rows

from interrogate.schema import OWNER, WRITER

FUNCTIONS = {
    "state", "observe", "observe_locked", "record", "forwards", "settle_forwards", "stale_forwards", "pending_forwards", "purge", "decision", "ruleset",
    "record_calls", "settle_calls", "call_of", "calls", "stale_calls", "leased_task", "asked_task", "task_receipts", "closed_tasks", "cancel_handle", "purge_handles",
}  # fmt: skip


@pytest.mark.invariant("INV-069", "INV-049")
async def test_the_process_executes_its_functions_and_touches_nothing(admission_database: AdmissionDatabase):
    """In every schema that is no system's: no table, no sequence, no other function, no schema to create in; no membership."""
    functions = await rows(
        admission_database.superuser,
        """SELECT n.nspname::text, p.proname::text FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
           WHERE n.nspname !~ '^pg_|^information_schema$' AND has_schema_privilege($1, n.oid, 'USAGE')
             AND has_function_privilege($1, p.oid, 'EXECUTE')""",
        WRITER,
    )  # fmt: skip
    assert set(functions) == {("interrogate", name) for name in FUNCTIONS}
    relations = await rows(
        admission_database.superuser,
        """SELECT n.nspname::text, c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
           WHERE n.nspname !~ '^pg_|^information_schema$' AND (
               c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (
                   has_table_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
                   OR has_any_column_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))
               OR c.relkind = 'S' AND has_sequence_privilege($1, c.oid, 'SELECT, UPDATE, USAGE'))""",
        WRITER,
    )  # fmt: skip
    assert relations == []
    creatable = await rows(
        admission_database.superuser,
        "SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_toast|^pg_temp' AND has_schema_privilege($1, oid, 'CREATE')", WRITER,
    )  # fmt: skip
    assert creatable == []
    roles = await rows(
        admission_database.superuser,
        "SELECT rolname::text FROM pg_roles WHERE rolname <> $1 AND pg_has_role($1, oid, 'MEMBER')", WRITER,
    )  # fmt: skip
    assert roles == []


@pytest.mark.invariant("INV-069", "INV-049")
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM interrogate.root", "DELETE FROM interrogate.forward", "UPDATE interrogate.rate SET tat = 0",
        "INSERT INTO interrogate.ruleset VALUES ('sha256:x', '{}')", "SELECT * FROM memorygate.receipt",
        "SELECT * FROM memorygate.emit_interrogate('{}', NULL)", "SELECT interrogate.lock_key('x')",
        "SELECT * FROM memorygate.receipt('00000000-0000-0000-0000-000000000000', 'x')", "SET ROLE interrogate_owner",
        "SELECT * FROM metagate.principal",
    ],
)  # fmt: skip
async def test_whatever_else_it_tries_is_refused(admission_database: AdmissionDatabase, statement: str):
    connection = await asyncpg.connect(admission_database.writer)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.invariant("INV-069")
async def test_the_owner_cannot_log_in_and_touches_no_table_of_the_ledger(admission_database: AdmissionDatabase):
    """The functions run as the owner, which emits through the ledger's own function and does nothing else there."""
    assert await rows(
        admission_database.superuser, "SELECT rolcanlogin, rolsuper FROM pg_roles WHERE rolname = $1", OWNER
    ) == [(False, False)]
    tables = await rows(
        admission_database.superuser,
        """SELECT c.relname::text FROM pg_class AS c WHERE c.relnamespace = 'memorygate'::regnamespace AND c.relkind IN ('r', 'p')
           AND has_table_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')""",
        OWNER,
    )  # fmt: skip
    assert tables == []


async def test_every_function_is_a_definers_with_a_search_path_of_its_own(admission_database: AdmissionDatabase):
    """Whatever a caller's session sets, the names inside mean the gate's own."""
    functions = await rows(
        admission_database.superuser,
        """SELECT p.proname::text, p.prosecdef, p.proconfig::text ~ 'search_path=.*pg_temp' FROM pg_proc AS p
           WHERE p.pronamespace = 'interrogate'::regnamespace AND p.proname = ANY ($1)""",
        sorted(FUNCTIONS),
    )  # fmt: skip
    assert sorted(functions) == [(name, True, True) for name in sorted(FUNCTIONS)]
