"""Months of the ledger as files: compressed, complete, checkable without a database (D-10).

An archive is gzip over JSON lines: a head that says what it is, one line per receipt with everything its chain needs, a
foot with the count and the sha256 of all lines before it. It is written beside its final name, read back and verified,
and only then given that name. Nothing is removed from the ledger by exporting it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import asyncpg

from legivellum.postgres.driver import translated
from memorygate.verifying import Bad, Link, Verdict, Walk, links

FORMAT = "memorygate-archive/1"

_PARTITIONS = """
SELECT c.relname::text AS name, bounds.part[1] AS lower, bounds.part[2] AS upper
FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
CROSS JOIN LATERAL regexp_match(
    pg_catalog.pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''([0-9A-Z]{26})''\\) TO \\(''([0-9A-Z]{26})''\\)'
) AS bounds(part)
WHERE i.inhparent = 'memorygate.receipt'::regclass AND bounds.part[2] <= memorygate.ulid_floor($1)
ORDER BY 1
"""
_MONTH = """
SELECT tenant::text, root_task_id, position, receipt_id, stored_at, body, digest, previous, chain,
       kind, phase, task_id, obligation_id, caused_by, signature
FROM memorygate.receipt WHERE receipt_id >= $1 AND receipt_id < $2
ORDER BY tenant::text COLLATE "C", root_task_id, position
"""


@dataclass(frozen=True, slots=True)
class Archived:
    path: Path
    partition: str
    receipts: int


class ArchiveUnreadable(Exception):  # noqa: N818 - what the file is
    """The file is not a whole archive."""


@translated
async def export(dsn: str, directory: Path, *, before: date) -> list[Archived]:
    """One file for each month that ended before `before` (UTC) and has receipts. Raises ArchiveUnreadable, OSError."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "memorygate export"})
    made: list[Archived] = []
    try:
        moment = datetime(before.year, before.month, before.day, tzinfo=UTC)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for row in await connection.fetch(_PARTITIONS, moment):
                one = await _month(connection, directory, row["name"], row["lower"], row["upper"])
                if one is not None:
                    made.append(one)
    finally:
        await connection.close(timeout=5)
    return made


async def _month(connection: asyncpg.Connection, directory: Path, name: str, lower: str, upper: str) -> Archived | None:
    final = _place(directory, name)
    unfinished = final.with_name(final.name + ".unfinished")
    digest = hashlib.sha256()
    count = 0
    with gzip.open(unfinished, "wb", compresslevel=6) as file:

        def put(value: dict[str, Any]) -> None:
            line = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            digest.update(line)
            file.write(line)

        put({"format": FORMAT, "partition": name, "from": lower, "to": upper})
        async for one in links(connection, _MONTH, lower, upper):
            put(_line(one))
            count += 1
        put({"receipts": count, "sha256": digest.hexdigest()})
    if count == 0:
        unfinished.unlink()
        return None
    verdict = verify_archive(unfinished)
    if verdict.bad is not None or verdict.receipts != count:
        raise ArchiveUnreadable(f"{unfinished}: {verdict.bad or 'receipts are missing'}")
    with unfinished.open("rb") as written:
        os.fsync(written.fileno())
    unfinished.rename(final)
    return Archived(final, name, count)


def _place(directory: Path, name: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{name}.jsonl.gz"


def _line(one: Link) -> dict[str, Any]:
    return {
        "tenant": one.tenant,
        "root": one.root_task_id,
        "position": one.position,
        "receipt_id": one.receipt_id,
        "stored_at": one.stored_at.astimezone(UTC).isoformat(),
        "previous": one.previous.hex(),
        "chain": one.chain.hex(),
        "sha256": one.digest.hex(),
        "signature": one.signature,
        "body": one.body,
    }


def verify_archive(path: Path) -> Verdict:
    """Every line and every chain in the file. Raises ArchiveUnreadable when it is cut off, or not an archive at all."""
    walk = Walk(whole=False)
    digest = hashlib.sha256()
    foot: dict[str, Any] | None = None
    for number, line in enumerate(_lines(path)):
        value = _read(path, line)
        if number == 0:
            if value.get("format") != FORMAT:
                raise ArchiveUnreadable(f"{path}: is not an archive of the ledger")
        elif "receipts" in value:
            foot = value
            if value != {"receipts": walk.verdict.receipts, "sha256": digest.hexdigest()}:
                walk.verdict.bad = walk.verdict.bad or Bad("-", "the foot", "does not fit the lines before it")
        elif foot is not None:
            raise ArchiveUnreadable(f"{path}: goes on after its foot")
        elif walk.step(_link(path, value)) is not None:
            return walk.verdict
        digest.update(line)
    if foot is None:
        raise ArchiveUnreadable(f"{path}: was cut off")
    return walk.verdict


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as file:
            yield from file
    except (OSError, EOFError) as error:
        raise ArchiveUnreadable(f"{path}: cannot be read ({type(error).__name__})") from error


def _read(path: Path, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ArchiveUnreadable(f"{path}: a line is not a JSON object")
    return value


def _link(path: Path, value: dict[str, Any]) -> Link:
    try:
        return Link(
            tenant=value["tenant"],
            root_task_id=value["root"],
            position=value["position"],
            receipt_id=value["receipt_id"],
            stored_at=datetime.fromisoformat(value["stored_at"]),
            body=value["body"],
            digest=bytes.fromhex(value["sha256"]),
            previous=bytes.fromhex(value["previous"]),
            chain=bytes.fromhex(value["chain"]),
            signature=value["signature"],
            columns={"receipt_id": value["receipt_id"], "tenant": value["tenant"]},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArchiveUnreadable(f"{path}: a line is not a receipt") from error
