"""Months of the ledger as files: compressed, complete, checkable without a database (D-10).

An archive is gzip over the lines of `legivellum.receipts.archive_format`. It is written beside its final name, read
back and verified, and only then given that name. Nothing is removed from the ledger by exporting it. Every receipt is
in some archive once its month is over, those of the default partition too.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from legivellum.postgres.connecting import connect
from legivellum.postgres.driver import translated
from legivellum.receipts.archive_format import FORMAT, ArchiveUnreadable, encoded, receipt_line, verify_lines
from legivellum.receipts.chain import ChainVerdict
from memorygate.verifying import read_receipts

_PARTITIONS = """
SELECT c.relname::text AS name, bounds.part[1] AS lower, bounds.part[2] AS upper
FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
CROSS JOIN LATERAL regexp_match(
    pg_catalog.pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''([0-9A-Z]{26})''\\) TO \\(''([0-9A-Z]{26})''\\)'
) AS bounds(part)
WHERE i.inhparent = 'memorygate.receipt'::regclass AND bounds.part[2] <= memorygate.ulid_floor($1)
ORDER BY 1
"""
_RECEIPT = """
SELECT tenant::text, root_task_id, position, receipt_id, stored_at, body, digest, previous, chain,
       kind, phase, task_id, obligation_id, caused_by, signature
"""
_ORDER = 'ORDER BY tenant::text COLLATE "C", root_task_id, position'
_OF_PARTITION = f"{_RECEIPT} FROM memorygate.receipt WHERE receipt_id >= $1 AND receipt_id < $2 {_ORDER}"
_DEFAULT_MONTHS = """
SELECT DISTINCT memorygate.archive_month(receipt_id, stored_at) AS month FROM memorygate.receipt_default
WHERE memorygate.archive_month(receipt_id, stored_at) < date_trunc('month', $1::timestamptz, 'UTC') ORDER BY 1
"""
_OF_DEFAULT_MONTH = (
    f"{_RECEIPT} FROM memorygate.receipt_default WHERE memorygate.archive_month(receipt_id, stored_at) = $1 {_ORDER}"
)
_DEFAULT_PARTITION = """
SELECT count(*), min(month), max(month)
FROM (SELECT memorygate.archive_month(receipt_id, stored_at) AS month FROM memorygate.receipt_default) AS months
"""


@dataclass(frozen=True, slots=True)
class Archived:
    path: Path
    partition: str
    receipts: int


@dataclass(frozen=True, slots=True)
class DefaultPartition:
    """Receipts for whose month there was no partition when they were stored, and the first and last of those months."""

    receipts: int
    first_month: date | None
    last_month: date | None

    def __str__(self) -> str:
        if self.first_month is None or self.last_month is None:
            return "the default partition is empty"
        return (
            f"{self.receipts} receipts lie in the default partition, of months from {self.first_month:%Y-%m} to "
            f"{self.last_month:%Y-%m}: their ids are of a month for which `memorygate migrate` made no partition"
        )


class MonthNotOver(Exception):  # noqa: N818 - what the month is
    """Months up to a day to come were asked for: one of them goes on, and its archive would not be whole."""


@translated
async def export(dsn: str, directory: Path, *, before: date) -> list[Archived]:
    """One file for each month that ended before `before` (UTC) and has receipts; another where the default partition
    has some of that month. Raises MonthNotOver, ArchiveUnreadable, OSError.
    """
    connection = await _connect(dsn)
    archives: list[Archived] = []
    try:
        day = datetime(before.year, before.month, before.day, tzinfo=UTC)
        if day > await connection.fetchval("SELECT clock_timestamp()"):
            raise MonthNotOver(f"{before} is a day to come: only months that are over can be archived")
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for row in await connection.fetch(_PARTITIONS, day):
                span = (row["lower"], row["upper"])
                archives += await _write(connection, directory, row["name"], span, _OF_PARTITION, *span)
            for row in await connection.fetch(_DEFAULT_MONTHS, day):
                month: datetime = row["month"].astimezone(UTC)
                following = (month + timedelta(days=31)).replace(day=1)
                name = f"receipt_default_{month:%Y_%m}"
                span = (month.date().isoformat(), following.date().isoformat())
                archives += await _write(connection, directory, name, span, _OF_DEFAULT_MONTH, month)
    finally:
        await connection.close(timeout=5)
    return archives


@translated
async def default_partition(dsn: str) -> DefaultPartition:
    """What lies where no month has a partition."""
    connection = await _connect(dsn)
    try:
        count, first, last = await connection.fetchrow(_DEFAULT_PARTITION)
        return DefaultPartition(
            count, *(None if month is None else month.astimezone(UTC).date() for month in (first, last))
        )
    finally:
        await connection.close(timeout=5)


async def _connect(dsn: str) -> asyncpg.Connection:
    return await connect(dsn, server_settings={"application_name": "memorygate export"})


async def _write(
    connection: asyncpg.Connection, directory: Path, name: str, span: tuple[str, str], query: str, *args: Any
) -> list[Archived]:
    """The archive, or nothing where there is no receipt."""
    final = _place(directory, name)
    unfinished = final.with_name(final.name + ".unfinished")
    digest = hashlib.sha256()
    count = 0
    with gzip.open(unfinished, "wb", compresslevel=6) as file:

        def put(value: dict[str, Any]) -> None:
            line = encoded(value)
            digest.update(line)
            file.write(line)

        put({"format": FORMAT, "partition": name, "from": span[0], "to": span[1]})
        async for receipt in read_receipts(connection, query, *args):
            put(receipt_line(receipt))
            count += 1
        put({"receipts": count, "sha256": digest.hexdigest()})
    if count == 0:
        unfinished.unlink()
        return []
    verdict = verify_archive(unfinished)
    if verdict.bad is not None or verdict.receipts != count:
        raise ArchiveUnreadable(f"{unfinished}: {verdict.bad or 'receipts are missing'}")
    with unfinished.open("rb") as written:
        os.fsync(written.fileno())
    unfinished.rename(final)
    return [Archived(final, name, count)]


def _place(directory: Path, name: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{name}.jsonl.gz"


def verify_archive(path: Path) -> ChainVerdict:
    """Every line and every chain in the file. Raises ArchiveUnreadable when it is cut off, or not an archive at all."""
    return verify_lines(archive_lines(path), str(path))


def archive_lines(path: Path) -> Iterator[bytes]:
    """Raises ArchiveUnreadable."""
    try:
        with gzip.open(path, "rb") as file:
            yield from file
    except (OSError, EOFError) as error:
        raise ArchiveUnreadable(f"{path}: cannot be read ({type(error).__name__})") from error
