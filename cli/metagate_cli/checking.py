"""`metagate validate` and `metagate compile`: what would happen, without a database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from metagate_cli.output import Output, Printed, structured, table
from metagate_cli.plain import plain, value
from metagate_cli.terminal import FOUND, Stop, painted, pretty, say, working

if TYPE_CHECKING:
    from metagate_operator.documents import Problem

Paths = Annotated[list[Path], typer.Argument(help="Files, or directories that are searched for *.yaml, *.yml, *.json.")]
_LONGEST: Final = 80
SystemNamespace = Annotated[str, typer.Option(help="Where `scope: Cluster` and `rights` are allowed.")]


def validate(
    paths: Paths,
    output: Printed = Output.TABLE,
    system_namespace: SystemNamespace = "metagate-system",
) -> None:
    """Check declared resources: every finding as `file:line path: reason: message`. Exit 0 when there is none, else 1.

    References to objects that are not among the files are notes, not findings: they may exist where this is applied.
    """
    from metagate_cli.offline import examine

    with working("reading the files"):
        examined = examine(paths, system_namespace=system_namespace)
    if output.structured:
        rows, notes = ([_told(each) for each in found] for found in (examined.findings, examined.notes))
        told = {"valid": not rows, "objects": examined.objects, "findings": rows, "notes": notes}
        print(structured(told, output))
    else:
        for finding in examined.findings:
            print(painted(str(finding), "red"))
        for note in examined.notes:
            say(f"note: {note}")
        skipped = f", {examined.skipped} of other kinds skipped" if examined.skipped else ""
        count = len(examined.findings)
        verdict = "valid" if not count else f"{count} finding{'s' if count > 1 else ''}"
        say(f"{examined.objects} object{'' if examined.objects == 1 else 's'}{skipped}: {verdict}")
    if examined.findings:
        raise typer.Exit(FOUND)


def _told(each: Problem) -> dict[str, Any]:
    return {"file": each.file, "line": each.line, "path": each.path, "reason": each.reason, "message": each.message}


def compile_(
    paths: Paths,
    principal: Annotated[str, typer.Option(help="Name of the Principal that boots.")],
    component: Annotated[str, typer.Option(help="The component key it boots as.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The Principal's namespace.")] = "default",
    output: Printed = Output.JSON,
    system_namespace: SystemNamespace = "metagate-system",
) -> None:
    """Print the Welcome Packet that would be served, without a database. Ids and times are those of this call."""
    from metagate_cli.offline import examine, packet

    examined = examine(paths, system_namespace=system_namespace)
    for finding in examined.findings:
        say(str(finding))
    found = packet(examined, namespace=namespace, principal=principal, component=component)
    if isinstance(found, str):
        raise Stop(found, code=FOUND)
    if output is Output.JSON:
        print(pretty(found))
    elif output is Output.YAML:
        print(structured(found, output))
    else:
        from metagate_crds.explaining import flattened
        from metagate_crds.telling import pointer

        longest = None if output is Output.WIDE else _LONGEST
        print(
            table(["PATH", "VALUE"], [[plain(pointer(path)), value(leaf, longest)] for path, leaf in flattened(found)])
        )
