"""`metagate validate` and `metagate compile`: what would happen, without a database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from metagate_cli.output import OutputFormat, OutputOption, json_line, safe_text, structured, table
from metagate_cli.terminal import FAILURE, Stop, colored, pretty, print_note, progress

if TYPE_CHECKING:
    from metagate_operator.sources.documents import FileProblem

Paths = Annotated[
    list[Path],
    typer.Argument(help="Files, directories that are searched for *.yaml, *.yml, *.json, or - for standard input."),
]
_VALUE_LIMIT: Final = 80
SystemNamespace = Annotated[str, typer.Option(help="Where `scope: Cluster` and `rights` are allowed.")]


def validate(
    paths: Paths,
    output: OutputOption = OutputFormat.TABLE,
    system_namespace: SystemNamespace = "metagate-system",
) -> None:
    """Check declared resources: every finding as `file:line path: reason: message`. Exit 0 when there is none, else 1.

    References to objects that are not among the files are notes, not findings: they may exist where this is applied.
    """
    from metagate_cli.local_files import examine

    with progress("reading the files"):
        examination = examine(paths, system_namespace=system_namespace)
    if output.structured:
        rows, notes = (
            [_problem_row(problem) for problem in problems] for problems in (examination.findings, examination.notes)
        )
        report = {"valid": not rows, "objects": examination.objects, "findings": rows, "notes": notes}
        print(structured(report, output))
    else:
        for finding in examination.findings:
            print(colored(str(finding), "red"))
        for note in examination.notes:
            print_note(f"note: {note}")
        skipped = f", {examination.skipped} of other kinds skipped" if examination.skipped else ""
        count = len(examination.findings)
        verdict = "valid" if not count else f"{count} finding{'s' if count > 1 else ''}"
        print_note(f"{examination.objects} object{'' if examination.objects == 1 else 's'}{skipped}: {verdict}")
    if not examination.objects and not examination.findings:
        raise Stop(f"nothing of metagate.legivellum.io is declared in {', '.join(map(str, paths))}", code=FAILURE)
    if examination.findings:
        raise typer.Exit(FAILURE)


def _problem_row(problem: FileProblem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.line,
        "path": problem.path,
        "reason": problem.reason,
        "message": problem.message,
    }


def compile_(
    paths: Paths,
    principal: Annotated[str, typer.Option(help="Name of the Principal that boots.")],
    component: Annotated[str, typer.Option(help="The component key it boots as.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The Principal's namespace.")] = "default",
    output: OutputOption = OutputFormat.JSON,
    system_namespace: SystemNamespace = "metagate-system",
) -> None:
    """Print the Welcome Packet that would be served, without a database. Ids and times are those of this call."""
    from metagate_cli.local_files import examine, packet

    examination = examine(paths, system_namespace=system_namespace)
    for finding in examination.findings:
        print_note(str(finding))
    served = packet(examination, namespace=namespace, principal=principal, component=component)
    if isinstance(served, str):
        raise Stop(served, code=FAILURE)
    if output is OutputFormat.JSON:
        print(pretty(served))
    elif output is OutputFormat.YAML:
        print(structured(served, output))
    else:
        from metagate_crds.plan.packet_diff import iterate_leaves
        from metagate_crds.plan.serialization import json_pointer

        limit = None if output is OutputFormat.WIDE else _VALUE_LIMIT
        print(
            table(
                ["PATH", "VALUE"],
                [[safe_text(json_pointer(path)), json_line(leaf, limit)] for path, leaf in iterate_leaves(served)],
            )
        )
