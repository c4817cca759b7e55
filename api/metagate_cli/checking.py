"""`metagate validate` and `metagate compile`: what would happen, without a database."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from metagate_cli.terminal import FOUND, Stop, pretty, say

Paths = Annotated[list[Path], typer.Argument(help="Files, or directories that are searched for *.yaml, *.yml, *.json.")]
SystemNamespace = Annotated[str, typer.Option(help="Where `scope: Cluster` and `rights` are allowed.")]


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


def validate(
    paths: Paths,
    output: Annotated[Output, typer.Option("--output", "-o", help="How findings are printed.")] = Output.TEXT,
    system_namespace: SystemNamespace = "metagate-system",
) -> None:
    """Check declared resources: every finding as `file:line path: reason: message`. Exit 0 when there is none, else 1.

    References to objects that are not among the files are notes, not findings: they may exist where this is applied.
    """
    from metagate_cli.offline import examine

    examined = examine(paths, system_namespace=system_namespace)
    if output is Output.JSON:
        rows = [
            {"file": each.file, "line": each.line, "path": each.path, "reason": each.reason, "message": each.message}
            for each in examined.findings
        ]
        notes = [
            {"file": each.file, "line": each.line, "path": each.path, "reason": each.reason, "message": each.message}
            for each in examined.notes
        ]
        print(json.dumps({"valid": not rows, "objects": examined.objects, "findings": rows, "notes": notes}, indent=2))
    else:
        for finding in examined.findings:
            print(finding)
        for note in examined.notes:
            say(f"note: {note}")
        skipped = f", {examined.skipped} of other kinds skipped" if examined.skipped else ""
        count = len(examined.findings)
        verdict = "valid" if not count else f"{count} finding{'s' if count > 1 else ''}"
        say(f"{examined.objects} object{'' if examined.objects == 1 else 's'}{skipped}: {verdict}")
    if examined.findings:
        raise typer.Exit(FOUND)


def compile_(
    paths: Paths,
    principal: Annotated[str, typer.Option(help="Name of the Principal that boots.")],
    component: Annotated[str, typer.Option(help="The component key it boots as.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The Principal's namespace.")] = "default",
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
    print(pretty(found))
