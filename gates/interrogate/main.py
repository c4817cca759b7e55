"""`interrogate`: serve the gate, try policies out, explain, replay and verify what was decided.

Each command imports what it needs when it runs. It exits with 0 when all is as it should be, with 1 when something that
was asked about is not, with 2 when it was not understood, with 3 when it could not be done here and now.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interrogate.call_listing import CallFormat, listing
from legivellum.gate.command_line import database_option, gate_commands, run_commands

if TYPE_CHECKING:
    from legivellum.gate.api_client import GateApiClient
    from legivellum.gate.definition import GateDefinition

DatabaseUrl = Annotated[str, database_option("interrogate")]
Url = Annotated[
    str, typer.Option("--url", help="A running InterroGate, like http://127.0.0.1:8005.", envvar="INTERROGATE_URL")
]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="An API key.", envvar="METAGATE_API_KEY_FILE")]
TokenFile = Annotated[Path | None, typer.Option("--token-file", help="A token instead.", envvar="METAGATE_TOKEN_FILE")]
CaFile = Annotated[
    Path | None, typer.Option("--ca-file", help="Whom its certificate is signed by.", envvar="METAGATE_CA_FILE")
]
ProblemataName = Annotated[str, typer.Argument(metavar="PROBLEMATA", help="Of your tenant.")]


def _gate() -> GateDefinition[Any, Any]:
    from interrogate.gate import GATE

    return GATE


app = gate_commands(
    "interrogate",
    "InterroGate: may this request pass? It decides and writes the decision down; it does not act.",
    ("interrogate_writer",),
    _gate,
)


@app.command("test")
def decide_cases(
    files: Annotated[list[Path], typer.Argument(help="YAML: a policy and cases with what is expected of it.")],
    junit: Annotated[Path | None, typer.Option(help="Write the results there, as JUnit's XML.")] = None,
) -> None:
    """Decide the cases of files by their policies. No database, no network."""
    from interrogate import policy_cases

    results = policy_cases.run_files(files)
    if junit is not None:
        junit.write_text(policy_cases.junit(results), encoding="utf-8")
    raise typer.Exit(int(not policy_cases.report(results, print)))


@app.command()
def explain(
    of: Annotated[str, typer.Argument(metavar="RECEIPT|FILE", help="A receipt of the ledger, or a file of `test`.")],
    database_url: Annotated[str | None, database_option("interrogate")] = None,
) -> None:
    """Show every rule of a decision, decided again."""
    from interrogate.explaining import explain_file, explain_receipt

    if Path(of).is_file():
        explained = explain_file(Path(of))
    elif database_url is not None:
        explained = asyncio.run(explain_receipt(database_url, of))
    else:
        raise typer.BadParameter(
            f"{of!r} is no file here; for a receipt of the ledger name --database-url (INTERROGATE_DATABASE_URL)"
        )
    for decision in explained:
        print(*decision.lines(), sep="\n")
    if not explained:
        print(f"interrogate: the ledger has no decision {of}", file=sys.stderr)
    raise typer.Exit(int(not explained or not all(decision.same for decision in explained)))


@app.command()
def replay(
    database_url: DatabaseUrl,
    since: Annotated[datetime | None, typer.Option(help="Decisions that were stored then (UTC) or later.")] = None,
    root: Annotated[str | None, typer.Option(help="Only those of this root task.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="YAML of a PolicyProfile: what would have been decided under it?")
    ] = None,
) -> None:
    """Decide again what the ledger says was decided. As the role memorygate_auditor."""
    from interrogate.policy_cases import read_policy_file
    from interrogate.replaying import replay as decide_again

    other = None if policy is None else read_policy_file(policy)
    report = asyncio.run(decide_again(database_url, since=since and since.replace(tzinfo=UTC), root=root, other=other))
    for mismatch in report.mismatches:
        print(f"not the same: {mismatch}", file=sys.stderr)
    print(f"{report.decisions} decisions, {report.mismatch_count} not the same")
    for change, number in sorted(report.changes.items()):
        print(f"  {number} would change: {change}")
    if report.unjudged_rules:
        print(f"  taken to hold, for want of the payloads: {', '.join(sorted(report.unjudged_rules))}")
    raise typer.Exit(int(report.mismatch_count > 0))


@app.command()
def verify(
    database_url: DatabaseUrl,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Derive the counters anew (as the owner).")] = False,
) -> None:
    """Compare the counters with the receipts. As the role memorygate_auditor."""
    from interrogate.verifying import verify as compare

    report = asyncio.run(compare(database_url, rebuild=rebuild))
    if report.bad is not None:
        print(f"interrogate: {report.bad}", file=sys.stderr)
    print(f"{report.decisions} decisions, {report.tasks} tasks")
    raise typer.Exit(int(report.bad is not None))


@app.command()
def calls(
    *,
    url: Url,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    principal: Annotated[str | None, typer.Option(help="Whose calls; of others only for admins and observers.")] = None,
    problemata: Annotated[str | None, typer.Option(help="Only calls through this Problemata.")] = None,
    tool: Annotated[str | None, typer.Option(help="Only calls of the tool that its MCP server names so.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only calls that ended so, like denied or TIMEOUT.")] = None,
    since: Annotated[str | None, typer.Option(help="Only calls that were decided then (RFC 3339) or later.")] = None,
    output: Annotated[CallFormat, typer.Option("--output", "-o", help="csv and json are for programs.")] = (
        CallFormat.TABLE
    ),
) -> None:
    """Show who called which tool, with what outcome. Newest first."""
    client = _client(url, key_file, token_file, ca_file)
    rows = client.items(
        "/v1/calls", principal=principal, problemata=problemata, tool=tool, outcome=outcome, since=since
    )
    for line in listing(rows, output):
        print(line)


tools = typer.Typer(no_args_is_help=True, help="Compare what MCP servers list with what was declared.")
app.add_typer(tools, name="tools")


@tools.command("pin", short_help="Print what the MCP servers list, to review and apply.")
def pin_tools(
    problemata: ProblemataName,
    *,
    url: Url,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Print every tool that the MCP servers list as capabilities, to review and apply. Asks a running gate."""
    from interrogate.tool_review import capabilities_yaml

    print(capabilities_yaml(_listing(problemata, url, key_file, token_file, ca_file)), end="")


@tools.command("diff", short_help="Show what is listed otherwise than declared.")
def compare_tools(
    problemata: ProblemataName,
    *,
    url: Url,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Show what the MCP servers list otherwise than it was declared; exits with 1 where calls are refused for it."""
    from interrogate.tool_review import difference_lines, is_as_declared

    listed = _listing(problemata, url, key_file, token_file, ca_file)
    for line in difference_lines(listed):
        print(line)
    raise typer.Exit(int(not is_as_declared(listed)))


def _client(url: str, key_file: Path | None, token_file: Path | None, ca_file: Path | None) -> GateApiClient:
    from legivellum.gate.api_client import GateApiClient, connection_headers

    headers = connection_headers(url, key_file, token_file)
    return GateApiClient(url, headers, ca_file=ca_file, seconds=15.0, gate="InterroGate")


def _listing(problemata: str, url: str, key_file: Path | None, token_file: Path | None, ca_file: Path | None) -> Any:
    client = _client(url, key_file, token_file, ca_file)
    from legivellum.gate.api_client import segment

    return client.get(f"/v1/problematas/{segment(problemata)}/tools")


def _expected() -> tuple[type[Exception], ...]:
    from interrogate.policy_cases import CasesUnreadable
    from interrogate.tool_review import NothingListed
    from legivellum.gate.api_client import CONNECTION_ERRORS

    return (CasesUnreadable, NothingListed, *CONNECTION_ERRORS)


def main() -> None:
    """The entry point of the `interrogate` command."""
    run_commands(app, "interrogate", expected=_expected)
