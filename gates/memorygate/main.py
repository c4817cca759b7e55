"""`memorygate`: serve the ledger, migrate it, verify it, export it. Nothing is imported before it is needed.

Exit codes: 0 done, 1 something is wrong with what was asked about, 2 the command was not understood, 3 it could not be
done here and now.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="MemoryGate: the append-only ledger of receipts. It remembers; it does not decide.",
)


def _address(url: str | None) -> str | None:
    from legivellum.postgres.dsn import address

    return None if url is None else address(url, "MEMORYGATE_DATABASE_URL")


Dsn = Annotated[
    str,
    typer.Option(
        "--database-url",
        envvar=["MEMORYGATE_DATABASE_URL", "DATABASE_URL"],
        help="PostgreSQL, as a role that may do this.",
        callback=_address,
    ),
]


@app.command()
def serve() -> None:
    """Serve the ledger; settings come from the environment (docs/memorygate/settings.md)."""
    from memorygate.server import run
    from memorygate.settings import Settings

    raise typer.Exit(run(Settings()))


@app.command()
def migrate(
    database_url: Dsn,
    writer_password: Annotated[
        str | None, typer.Option(envvar="MEMORYGATE_WRITER_PASSWORD", help="Set it on the role memorygate_writer.")
    ] = None,
    auditor_password: Annotated[
        str | None, typer.Option(envvar="MEMORYGATE_AUDITOR_PASSWORD", help="Set it on the role memorygate_auditor.")
    ] = None,
) -> None:
    """Create the schema or bring it up to date, and prepare the coming months; harmless when there is nothing to do."""
    from memorygate.schema import AUDITOR, WRITER, migrate_ledger

    given = {WRITER: writer_password, AUDITOR: auditor_password}
    done = asyncio.run(migrate_ledger(database_url, passwords={role: word for role, word in given.items() if word}))
    print(f"schema version {done.version}, applied: {', '.join(done.applied) or 'nothing'}")
    for warning in done.warnings:
        print(f"warning: {warning}", file=sys.stderr)


@app.command()
def verify(
    database_url: Annotated[
        str | None,
        typer.Option("--database-url", envvar=["MEMORYGATE_DATABASE_URL", "DATABASE_URL"], callback=_address),
    ] = None,
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
    database_url: Dsn,
    before: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Months that ended before this day (UTC).")],
    directory: Annotated[Path, typer.Option(help="Where the files go.")] = Path(),
) -> None:
    """Write each finished month as a verified, compressed archive. Nothing is removed from the ledger."""
    from memorygate.archiving import export as write

    made = asyncio.run(write(database_url, directory, before=before.date()))
    for one in made:
        print(f"{one.path}: {one.receipts} receipts")
    if not made:
        print("no finished month has receipts")


def main() -> None:
    """The entry point of the `memorygate` command."""
    from legivellum.postgres.errors import DatabaseError

    try:
        app(prog_name="memorygate")
    except (DatabaseError, OSError) as error:
        print(f"memorygate: {error}", file=sys.stderr)
        sys.exit(3)
    except Exception as error:
        from pydantic import ValidationError

        from memorygate.archiving import ArchiveUnreadable
        from memorygate.signatures import SignersUnreadable

        if not isinstance(error, ArchiveUnreadable | SignersUnreadable | ValidationError):
            raise
        print(f"memorygate: {error}", file=sys.stderr)
        sys.exit(1)
