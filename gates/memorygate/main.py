"""`memorygate`: serve the ledger, migrate it, verify it, export it. Nothing is imported before it is needed.

Exit codes: 0 done, 1 something is wrong with what was asked about, 2 the command was not understood, 3 it could not be
done here and now.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from legivellum.gate.command_line import database_option, gate_commands, run_commands

if TYPE_CHECKING:
    from legivellum.gate.definition import GateDefinition


def _definition() -> GateDefinition[Any, Any]:
    from memorygate.gate import GATE

    return GATE


app = gate_commands(
    "memorygate",
    "MemoryGate: the append-only ledger of receipts. It remembers; it does not decide.",
    ("memorygate_writer", "memorygate_auditor"),
    _definition,
)


@app.command(short_help="Walk every chain and check each receipt.")
def verify(
    database_url: Annotated[str | None, database_option("memorygate")] = None,
    archive: Annotated[list[Path] | None, typer.Option(help="Check these files instead; no database needed.")] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Derive inboxes and counts anew (as the owner).")] = False,
) -> None:
    """Walk every chain and name the first receipt that is not what it was."""
    from memorygate.archiving import verify_archive
    from memorygate.verifying import verify as walk

    if archive:
        verdicts = [(str(path), verify_archive(path)) for path in archive]
    elif database_url:
        verdicts = [("the ledger", asyncio.run(walk(database_url, rebuild=rebuild)))]
    else:
        raise typer.BadParameter("name a database or an archive")
    for name, verdict in verdicts:
        if verdict.bad is not None:
            print(f"{name}: {verdict.bad}", file=sys.stderr)
        else:
            print(f"{name}: {verdict.receipts} receipts in {verdict.roots} chains hold")
    raise typer.Exit(int(any(verdict.bad for _, verdict in verdicts)))


@app.command()
def export(
    database_url: Annotated[str, database_option("memorygate")],
    before: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Months that ended before this day (UTC).")],
    directory: Annotated[Path, typer.Option(help="Where the files go.")] = Path(),
) -> None:
    """Write each finished month as a verified, compressed archive. Nothing is removed from the ledger."""
    from memorygate.archiving import MonthNotOver, default_partition
    from memorygate.archiving import export as write

    try:
        archives = asyncio.run(write(database_url, directory, before=before.date()))
    except MonthNotOver as error:
        raise typer.BadParameter(str(error), param_hint="--before") from error
    for archive in archives:
        print(f"{archive.path}: {archive.receipts} receipts")
    if not archives:
        print("no finished month has receipts")
    print(asyncio.run(default_partition(database_url)))


@app.command("import", short_help="Fill an empty ledger from its records.")
def import_(
    database_url: Annotated[str, database_option("memorygate")],
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Archives, or receipts as answered, one a line.")
    ],
) -> None:
    """Fill a ledger from archives, or from answers of GET /v1/receipts, as its owner. Ids, times and chains stay."""
    from memorygate.importing import import_records

    verdict = asyncio.run(import_records(database_url, files))
    print(f"the ledger: {verdict.receipts} receipts in {verdict.roots} chains hold")


def _expected() -> tuple[type[Exception], ...]:
    from legivellum.receipts.archive_format import ArchiveUnreadable
    from legivellum.receipts.signers import SignersUnreadable
    from memorygate.importing import LedgerNotEmpty, RecordsBroken

    return ArchiveUnreadable, LedgerNotEmpty, RecordsBroken, SignersUnreadable


def main() -> None:
    """The entry point of the `memorygate` command."""
    run_commands(app, "memorygate", expected=_expected)
