"""`depotgate`: serve the gate, and what is done to its database and its store.

It exits with 0 when all is as it should be, with 1 when something that was asked about is not, with 2 when it was not
understood, with 3 when it could not be done here and now.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from legivellum.gate.command_line import database_option, gate_commands, run_commands

if TYPE_CHECKING:
    from depotgate.blobs import Blobs
    from depotgate.database import DepotGateDatabase
    from legivellum.gate.definition import GateDefinition

DatabaseUrl = Annotated[str, database_option("depotgate")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this it is only printed.")]


def _gate() -> GateDefinition[Any, Any]:
    from depotgate.gate import GATE

    return GATE


app = gate_commands(
    "depotgate",
    "DepotGate: artifacts that cannot change. It keeps; it does not read.",
    ("depotgate_keeper",),
    _gate,
)


def _days(text: str) -> timedelta:
    """`90d`, `12h`. Raises BadParameter."""
    match = re.fullmatch(r"(\d{1,5})([dh])", text)
    if match is None:
        raise typer.BadParameter("a number of days or hours, like 90d or 12h")
    return timedelta(days=int(match[1])) if match[2] == "d" else timedelta(hours=int(match[1]))


@asynccontextmanager
async def _opened(database_url: str) -> AsyncIterator[tuple[DepotGateDatabase, Blobs]]:
    """The gate's database, with statements that may last, and the store of its settings."""
    from depotgate.database import DepotGateDatabase
    from depotgate.settings import Settings
    from depotgate.stores import open_blobs

    settings = Settings()
    blobs = open_blobs(settings.store, sse=settings.s3_sse, kms_key=settings.s3_kms_key)
    database = await DepotGateDatabase.connect(database_url, size=2, query_timeout=30)
    try:
        yield database, blobs
    finally:
        await database.close()
        await blobs.close()


@app.command(short_help="Make the rows anew from the receipts.")
def rebuild(database_url: DatabaseUrl) -> None:
    """Make the rows of artifacts and blobs anew from the receipts; as the owner, while no gate serves."""
    from depotgate.rebuilding import rebuild as make_anew

    report = asyncio.run(make_anew(database_url))
    print(f"{report.kept} artifacts kept, {report.retired} retired, {report.blobs} blobs")


@app.command(short_help="Compare every blob with its digest.")
def verify(database_url: DatabaseUrl) -> None:
    """Read every blob and compare it with its digest; name what is missing or wrong, and count what is left over."""
    raise typer.Exit(int(asyncio.run(_verify(database_url))))


async def _verify(database_url: str) -> bool:
    from depotgate.store_upkeep import BlobDefect, defects, leftovers

    blobs_read = bad = 0
    async with _opened(database_url) as (database, blobs):
        async for item in defects(database, blobs):
            blobs_read += 1
            if isinstance(item, BlobDefect):
                bad += 1
                for artifact_id in item.blob.artifact_ids:
                    print(f"{item.problem}: artifact {artifact_id} of tenant {item.blob.tenant}, blob {item.blob.key}")
        left = [blob async for blob in leftovers(database, blobs)]
    print(f"{blobs_read} blobs read, {bad} of them bad")
    if left:
        print(f"{len(left)} blobs without a row, {sum(blob.size_bytes for blob in left)} bytes: depotgate sweep")
    return bad > 0


@app.command(short_help="Remove old blobs that no row has.")
def sweep(database_url: DatabaseUrl, *, yes: Yes = False) -> None:
    """Remove blobs older than 24 hours that no row has: uploads that were cut off."""
    asyncio.run(_sweep(database_url, yes=yes))


async def _sweep(database_url: str, *, yes: bool) -> None:
    from depotgate.store_upkeep import leftovers

    number = size = 0
    async with _opened(database_url) as (database, blobs):
        async for blob in leftovers(database, blobs):
            print(f"{blob.key} {blob.size_bytes} bytes, {blob.modified_at:%Y-%m-%d %H:%M}Z")
            number, size = number + 1, size + blob.size_bytes
            if yes:
                await blobs.remove(blob.key)
    print(f"{number} blobs, {size} bytes: {'removed' if yes else 'would be removed with --yes'}")


@app.command(short_help="Let go of inputs that nobody needs any more.")
def retire(
    database_url: DatabaseUrl,
    ledger_url: Annotated[
        str,
        typer.Option(envvar="DEPOTGATE_LEDGER_URL", help="PostgreSQL, as the role memorygate_auditor."),
    ],
    older_than: Annotated[str, typer.Option(help="Only what was stored before: 90d, 12h.")],
    *,
    yes: Yes = False,
) -> None:
    """Let go of inputs and supporting artifacts that no receipt names and whose task has nothing open."""
    asyncio.run(_retire(database_url, ledger_url, _days(older_than), yes=yes))


async def _retire(database_url: str, ledger_url: str, older_than: timedelta, *, yes: bool) -> None:
    from depotgate.retiring import retirable
    from depotgate.retiring import retire as let_go
    from legivellum.postgres.dsn import address

    chosen = await retirable(address(ledger_url, "DEPOTGATE_LEDGER_URL"), older_than)
    for tenant, pointer in chosen:
        print(f"{pointer} of tenant {tenant}")
    if yes:
        async with _opened(database_url) as (database, blobs):
            gone = await let_go(database, blobs, chosen)
        print(f"{len(gone)} artifacts retired")
    else:
        print(f"{len(chosen)} artifacts would be retired with --yes")


def _expected() -> tuple[type[Exception], ...]:
    from depotgate.blobs import StoreError, UnusableStore

    return (StoreError, UnusableStore)


def main() -> None:
    """The entry point of the `depotgate` command."""
    run_commands(app, "depotgate", expected=_expected)
