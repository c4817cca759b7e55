"""`asyncgate`: serve the gate, and what is done to its database.

It exits with 0 when all is as it should be, with 1 when something that was asked about is not, with 2 when it was not
understood, with 3 when it could not be done here and now.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from legivellum.gate.command_line import database_option, gate_commands, run_commands

if TYPE_CHECKING:
    from legivellum.gate.definition import GateDefinition


DatabaseUrl = Annotated[str, database_option("asyncgate")]


def _gate() -> GateDefinition[Any, Any]:
    from asyncgate.gate import GATE

    return GATE


app = gate_commands(
    "asyncgate",
    "AsyncGate: tasks, and leases on them. It moves responsibility and judges no outcome.",
    ("asyncgate_broker",),
    _gate,
)


@app.command(short_help="Make what the gate holds anew from the receipts.")
def rebuild(database_url: DatabaseUrl) -> None:
    """Make what the gate holds anew from the receipts; as the owner, while no gate serves."""
    from asyncgate.rebuilding import rebuild as make_anew

    report = asyncio.run(make_anew(database_url))
    print(f"{report.tasks} tasks, {report.leased} of them leased, {report.needs} open needs")


@app.command(short_help="List obligations that were never parked.")
def orphans(database_url: DatabaseUrl) -> None:
    """List obligations that were minted for AsyncGate and never parked; as the role memorygate_auditor."""
    from asyncgate.rebuilding import orphans as find_orphans

    listed = asyncio.run(find_orphans(database_url))
    for orphan in listed:
        print(orphan)
    raise typer.Exit(int(bool(listed)))


def _expected() -> tuple[type[Exception], ...]:
    from asyncgate.ceilings import CeilingsUnreadable

    return (CeilingsUnreadable,)


def main() -> None:
    """The entry point of the `asyncgate` command."""
    run_commands(app, "asyncgate", expected=_expected)
