"""`metagate principals` and `metagate startups`: who is declared, and who started, as an admin sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any, Final

import typer

from metagate_cli.api_client import ApiError, CaFile, KeyFile, Tenant, TokenFile, Url, connect, stop_for
from metagate_cli.output import NO_LIMIT, OutputFormat, OutputOption, safe_text, structured, table
from metagate_cli.terminal import print_note, progress

Limit = Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")]
ID_LENGTH: Final = 8
"""Characters of an id in a table: enough to tell the rows of one screen apart; `-o wide` has all of it."""


class Status(StrEnum):
    """A state of a startup, and `overdue`: open beyond its deadline."""

    OPEN = "OPEN"
    READY = "READY"
    FAILED = "FAILED"
    OVERDUE = "overdue"


def principals(
    url: Url = None,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    tenant: Tenant = None,
    limit: Limit = 500,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List the principals that are served, by name, and what each is bound to."""
    api = connect(url, key_file, token_file, ca_file, tenant)
    _list(lambda: api.items("/v1/admin/principals"), limit, output, _PRINCIPAL_HEADINGS, _principal_row)


def startups(
    status: Annotated[
        Status | None, typer.Option(help="Only these; overdue: open beyond their deadline.", case_sensitive=False)
    ] = None,
    component: Annotated[str | None, typer.Option(help="Only of this component key.")] = None,
    url: Url = None,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    tenant: Tenant = None,
    limit: Limit = 50,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List startups, newest first: what was opened, and what was reported of it. wide has whole ids and pods."""
    api = connect(url, key_file, token_file, ca_file, tenant)
    query = {"status": None if status is None else status.value, "component_key": component}
    headings = _STARTUP_HEADINGS + (_STARTUP_WIDE if output is OutputFormat.WIDE else ())
    _list(lambda: api.items("/v1/startups", **query), limit, output, headings, _startup_row)


def _list(
    items: Callable[[], Iterator[dict[str, Any]]],
    limit: int,
    output: OutputFormat,
    headings: Sequence[str],
    row: Callable[[dict[str, Any], bool], Sequence[str]],
) -> None:
    """Fetch one more than is printed: a list is never cut in silence."""
    try:
        with progress("asking"):
            fetched = list(islice(items(), limit + 1))
    except ApiError as error:
        raise stop_for(error) from error
    shown = fetched[:limit]
    if output.structured:
        print(structured(shown, output))
    elif shown:
        wide = output is OutputFormat.WIDE
        print(table(headings, [row(item, wide) for item in shown], NO_LIMIT if wide else None))
    else:
        print_note("none")
    if len(fetched) > limit:
        print_note(f"there are more: --limit shows more than {limit}")


_PRINCIPAL_HEADINGS: Final = ("PRINCIPAL", "TYPE", "BOUND TO", "STATE")
_STARTUP_HEADINGS: Final = ("STARTUP", "COMPONENT", "PRINCIPAL", "STATUS", "OPENED", "REPORT")
_STARTUP_WIDE: Final = ("REVISION", "PACKET", "POD")


def _principal_row(item: dict[str, Any], _wide: bool) -> Sequence[str]:
    return [
        safe_text(item["key"]),
        safe_text(item.get("type") or "-"),
        safe_text(item.get("binding") or "-"),
        "suspended" if item.get("suspended") else "active",
    ]


def _startup_row(item: dict[str, Any], wide: bool) -> Sequence[str]:
    report = item.get("report") or {}
    columns = [
        item["startup_id"] if wide else item["startup_id"][-ID_LENGTH:],
        safe_text(item["component_key"]),
        safe_text(item["principal_key"]),
        safe_text(item["status"]),
        item["opened_at"] if wide else age(item["opened_at"]),
        safe_text(report.get("error") or report.get("build_version") or "-"),
    ]
    if wide:
        pod = (item.get("pod") or {}).get("name")
        columns += [str(item["revision"]), safe_text(item["digest"] or "-"), safe_text(pod or "-")]
    return columns


def age(moment: str) -> str:
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit} ago"
    return f"{seconds}s ago"
