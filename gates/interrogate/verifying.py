"""Do the counters still say what the receipts say? (`interrogate verify [--rebuild]`, INV-050)"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from interrogate.admission_history import DerivedCounters, LedgerOutcome, ledger_decisions
from legivellum.postgres.connecting import connect
from legivellum.postgres.driver import translated

Rows = dict[tuple[Any, ...], tuple[Any, ...]]
"""Rows of a table for one tenant: the rest of the primary key, and the other columns."""

_KEY_COLUMNS: Final[Mapping[str, int]] = {"root": 1, "capability": 2, "lease": 1, "admitted": 1, "call": 1}
_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "root": ("root_task_id", "version", "descendants"),
    "capability": ("root_task_id", "capability_id", "admissions"),
    "lease": ("lease_id", "spawned"),
    "admitted": (
        "task_id", "root_task_id", "parent_task_id", "depth", "budget", "recent", "receipt_id", "principal_key",
        "digest",
    ),
    "call": (
        "admission_receipt_id", "outcome_receipt_id", "at", "principal_key", "problemata", "tool", "task_id", "outcome",
        "reason_code", "timeout_ms", "duration_us", "arguments_sha256", "arguments_bytes", "result_sha256",
        "result_bytes",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CounterDefect:
    """A row that is not what the receipts say, or a receipt that cannot be read."""

    tenant: str
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place} of tenant {self.tenant}: {self.reason}"


@dataclass(slots=True)
class VerificationReport:
    decisions: int = 0
    tasks: int = 0
    bad: CounterDefect | None = None
    """The first one; a rebuild finds only receipts that cannot be read."""


@translated
async def verify(dsn: str, *, rebuild: bool = False) -> VerificationReport:
    """Role `memorygate_auditor`; to rebuild, one that owns the tables and reads the ledger's receipts.

    A rebuild waits for the decisions that are being stored; those that come meanwhile are observed again.
    Raises Unavailable, SchemaMismatch.
    """
    connection = await connect(dsn, server_settings={"application_name": "interrogate verify"})
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=not rebuild):
            if rebuild:
                # Before the snapshot is taken: what is stored until then is in it, and nothing is stored until the end.
                tables = ", ".join(f"interrogate.{table}" for table in _COLUMNS)
                await connection.execute(f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE")
            return await (_rebuilt(connection) if rebuild else _compared(connection))
    finally:
        await connection.close(timeout=5)


async def _compared(connection: asyncpg.Connection) -> VerificationReport:
    report = VerificationReport()
    tables = {table: _TenantRows(connection, table) for table in _COLUMNS}
    async for tenant, counters in _by_tenant(connection, report):
        for table, derived in _derived_rows(counters):
            report.bad = report.bad or await tables[table].first_defect(tenant, derived)
        if report.bad is not None:
            return report
    for table_rows in tables.values():
        report.bad = report.bad or await table_rows.first_leftover()
    return report


async def _rebuilt(connection: asyncpg.Connection) -> VerificationReport:
    report = VerificationReport()
    for table in _COLUMNS:
        await connection.execute(f"DELETE FROM interrogate.{table}")  # noqa: S608 - a name of ours
    async for tenant, counters in _by_tenant(connection, report):
        for table, derived in _derived_rows(counters):
            await connection.copy_records_to_table(
                table,
                schema_name="interrogate",
                columns=("tenant", *_COLUMNS[table]),
                records=[(tenant, *key, *values) for key, values in derived.items()],
            )
    return report


async def _by_tenant(
    connection: asyncpg.Connection, report: VerificationReport
) -> AsyncIterator[tuple[str, DerivedCounters]]:
    """The counters of each tenant that has a decision; ends at a receipt that cannot be read."""
    tenant, counters = "", DerivedCounters()
    async for decision in ledger_decisions(connection):
        if tenant and decision.tenant != tenant:
            yield tenant, counters
            counters = DerivedCounters()
        tenant = decision.tenant
        if isinstance(decision, LedgerOutcome):
            counters.add_outcome(decision.outcome)
            continue
        report.decisions += 1
        if decision.admission is None:
            report.bad = CounterDefect(tenant, f"receipt {decision.receipt_id}", "is no decision that can be read")
            return
        counters.add_decision(decision)
        report.tasks += decision.admission.admitted is not None
    if tenant:
        yield tenant, counters


def _derived_rows(counters: DerivedCounters) -> Iterator[tuple[str, Rows]]:
    yield "root", {(root,): (version, counters.descendants[root]) for root, version in counters.versions.items()}
    yield "capability", {key: (admissions,) for key, admissions in counters.admissions.items()}
    yield "lease", {(lease_id,): (spawned,) for lease_id, spawned in counters.spawned.items()}
    yield "admitted", {row.columns[:1]: row.columns[1:] for row in counters.tasks.values()}
    yield "call", {(admission_id,): call.columns for admission_id, call in counters.calls.items()}


class _TenantRows:
    """The rows of a table, read in the order of the tenants beside the receipts."""

    def __init__(self, connection: asyncpg.Connection, table: str) -> None:
        columns = ", ".join(_COLUMNS[table])
        query = f'SELECT tenant::text, {columns} FROM interrogate.{table} ORDER BY tenant::text COLLATE "C"'  # noqa: S608
        self._table = table
        self._rows = aiter(connection.cursor(query, prefetch=500))
        self._next: Any = None
        self._begun = False

    async def first_defect(self, tenant: str, derived: Rows) -> CounterDefect | None:
        """The first row of this tenant, or of one before it, that is not derived; or a derived one that is missing."""
        while (row := await self._peek()) is not None and row[0] <= tenant:
            key, values = self._split(row)
            if row[0] != tenant or key not in derived:
                return self._defect(row[0], key, "follows from no receipt")
            for name, value, expected in zip(_COLUMNS[self._table][len(key) :], values, derived[key], strict=True):
                if value != expected:
                    return self._defect(tenant, key, f"{name} is not what the receipts say")
            del derived[key]
            await self._advance()
        missing = next(iter(derived), None)
        return None if missing is None else self._defect(tenant, missing, "is missing")

    async def first_leftover(self) -> CounterDefect | None:
        row = await self._peek()
        return None if row is None else self._defect(row[0], self._split(row)[0], "follows from no receipt")

    def _split(self, row: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        width = 1 + _KEY_COLUMNS[self._table]
        return tuple(row)[1:width], tuple(row)[width:]

    def _defect(self, tenant: str, key: tuple[Any, ...], reason: str) -> CounterDefect:
        return CounterDefect(tenant, f"{self._table} {'/'.join(map(str, key))}", f"{reason}; --rebuild derives it anew")

    async def _peek(self) -> Any:
        if not self._begun:
            await self._advance()
        return self._next

    async def _advance(self) -> None:
        self._begun = True
        self._next = await anext(self._rows, None)
