"""A ledger out of its records: archives of months, or what `GET /v1/receipts` answered (docs/memorygate/integrity.md).

Receipts keep their ids, times and chains, so whoever reads them sees what was there. They go into a ledger that has no
others of their tenants: later ones would get places and times before earlier ones.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from legivellum.postgres.connecting import connect
from legivellum.postgres.driver import translated
from legivellum.receipts.archive_format import ArchiveUnreadable, answered_receipts, archived_receipts
from legivellum.receipts.chain import ChainedReceipt, ChainVerdict
from memorygate.archiving import archive_lines, verify_archive
from memorygate.verifying import verify_receipts

_GZIP: Final = b"\x1f\x8b"
_AT_ONCE: Final = 500
_INSERT: Final = """
INSERT INTO memorygate.receipt (tenant, receipt_id, stored_at, kind, phase, task_id, root_task_id, position,
                                obligation_id, caused_by, body, digest, previous, chain, signature)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
ON CONFLICT (receipt_id, tenant) DO NOTHING
"""
_KEPT: Final = """
SELECT count(*) FROM unnest($1::uuid[], $2::text[], $3::bytea[]) AS u(tenant, receipt_id, chain)
JOIN memorygate.receipt AS r USING (tenant, receipt_id, chain)
"""
_OF_TENANT: Final = "SELECT count(*) FROM memorygate.receipt WHERE tenant = $1"


class LedgerNotEmpty(Exception):  # noqa: N818 - what the ledger is
    """The ledger has other receipts of a tenant whose records are to be imported."""


class RecordsBroken(Exception):  # noqa: N818 - what the records are
    """The records do not hold, by themselves or beside what the ledger has: nothing was imported."""


@translated
async def import_records(dsn: str, paths: Sequence[Path]) -> ChainVerdict:
    """All files in one transaction, as the ledger's owner; the same again changes nothing.

    Raises ArchiveUnreadable, LedgerNotEmpty, RecordsBroken.
    """
    connection = await connect(dsn, server_settings={"application_name": "memorygate import"})
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE memorygate.receipt IN SHARE ROW EXCLUSIVE MODE")
            imported: Counter[str] = Counter()
            receipts = chain.from_iterable(map(read_records, paths))
            while batch := list(islice(receipts, _AT_ONCE)):
                await _insert(connection, batch)
                imported.update(receipt.tenant for receipt in batch)
            await _require_no_others(connection, imported)
            verdict = await verify_receipts(connection)
            if verdict.bad is not None:
                raise RecordsBroken(str(verdict.bad))
            await connection.execute("SELECT memorygate.rebuild()")
            return verdict
    finally:
        await connection.close(timeout=5)


async def _insert(connection: asyncpg.Connection, batch: Sequence[ChainedReceipt]) -> None:
    await connection.executemany(_INSERT, list(map(_row, batch)))
    tenants, chains = [UUID(receipt.tenant) for receipt in batch], [receipt.chain for receipt in batch]
    if await connection.fetchval(_KEPT, tenants, [receipt.receipt_id for receipt in batch], chains) != len(batch):
        raise RecordsBroken("the ledger has another receipt under an id of the records, or the records hold one twice")


async def _require_no_others(connection: asyncpg.Connection, imported: Mapping[str, int]) -> None:
    for tenant, count in imported.items():
        if await connection.fetchval(_OF_TENANT, UUID(tenant)) != count:
            raise LedgerNotEmpty(f"the ledger has other receipts of the tenant {tenant}")


def read_records(path: Path) -> Iterator[ChainedReceipt]:
    """Of an archive, or of a file with a receipt of the ledger's answers on each line. Raises ArchiveUnreadable."""
    try:
        with path.open("rb") as file:
            is_archive = file.read(2) == _GZIP
            if not is_archive:
                file.seek(0)
                yield from answered_receipts(file, str(path))
    except OSError as error:
        raise ArchiveUnreadable(f"{path}: cannot be read ({type(error).__name__})") from error
    if is_archive:
        verdict = verify_archive(path)
        if verdict.bad is not None:
            raise ArchiveUnreadable(f"{path}: {verdict.bad}")
        yield from archived_receipts(archive_lines(path), str(path))


def _row(receipt: ChainedReceipt) -> tuple[object, ...]:
    """The columns, read from the body as the ledger reads them; the walk afterwards compares them again."""
    body = json.loads(receipt.body)
    return (
        UUID(receipt.tenant), receipt.receipt_id, receipt.stored_at, body["kind"], body["phase"], body["task_id"],
        receipt.root_task_id, receipt.position, body["obligation_id"], body.get("caused_by_receipt_id"), receipt.body,
        receipt.digest, receipt.previous, receipt.chain, receipt.signature,
    )  # fmt: skip
