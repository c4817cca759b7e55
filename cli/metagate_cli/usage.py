"""`legivellum usage`: what work has cost, summed from the receipts that ended it and from nothing else.

Whoever ends work says in `metadata.usage` what it cost. What is no count there is not counted, and said so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from metagate_cli.api_client import ApiClient, ApiError, CaFile, segment, stop_for
from metagate_cli.credentials import seconds
from metagate_cli.gate_addresses import MetaGateUrl, MyKeyFile, MyTokenFile, Packet, TenantGates
from metagate_cli.output import NO_LIMIT, OutputFormat, OutputOption, safe_text, structured, table
from metagate_cli.terminal import USAGE, Stop, print_note

COUNTS: Final = ("calls", "prompt_tokens", "cached_tokens", "completion_tokens", "seconds")
"""Members of a usage that are summed."""
HEADINGS: Final = ("PRINCIPAL", "MODEL", "ENDS", "CALLS", "PROMPT", "CACHED", "COMPLETION", "SECONDS")
_LARGEST: Final = 10**12
"""A number beyond it is no count of anything that was done."""
_UNKNOWN_MODEL: Final = "-"

Root = Annotated[str | None, typer.Option(metavar="TASK", help="Of the tree in which this task hangs.")]
Principal = Annotated[str | None, typer.Option(metavar="NAME", help="Of the work of this principal.")]
Since = Annotated[str | None, typer.Option(metavar="TIME", help="Stored since: 2027-01-31T12:00:00Z, or 7d, 12h.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Of a cluster-wide admin or observer: whose.")]


@dataclass(slots=True)
class UsageSum:
    """The usage of receipts of one principal and model. `ends`: how many receipts."""

    ends: int = 0
    counts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    tools: Counter[str] = field(default_factory=Counter)

    def add(self, usage: Mapping[str, Any]) -> bool:
        """Whether all of it was understood."""
        self.ends += 1
        understood = True
        for name in COUNTS:
            value = usage.get(name, 0)
            if _is_count(value):
                self.counts[name] += value
            else:
                understood = False
        tools = usage.get("tools") or {}
        if not isinstance(tools, Mapping):
            return False
        for name, value in tools.items():
            if _is_count(value):
                self.tools[name] += value
            else:
                understood = False
        return understood

    def document(self) -> dict[str, Any]:
        return {"ends": self.ends, **{name: _rounded(self.counts[name]) for name in COUNTS}, "tools": dict(self.tools)}

    def cells(self) -> list[str]:
        return [f"{self.ends:,}", *(f"{_rounded(self.counts[name]):,}" for name in COUNTS)]


@dataclass(slots=True)
class UsageReport:
    """Sums by principal and model; `receipts`: how many were read, `unclear`: how many had counts that are none."""

    sums: dict[tuple[str, str], UsageSum] = field(default_factory=dict)
    total: UsageSum = field(default_factory=UsageSum)
    receipts: int = 0
    unclear: int = 0

    def add(self, receipt: Mapping[str, Any]) -> None:
        self.receipts += 1
        metadata = receipt.get("metadata")
        usage = metadata.get("usage") if isinstance(metadata, Mapping) else None
        if receipt.get("phase") != "complete" or usage is None:
            return
        if not isinstance(usage, Mapping):
            self.unclear += 1
            return
        model = usage.get("model")
        key = (str(receipt.get("principal_ai")), model if isinstance(model, str) and model else _UNKNOWN_MODEL)
        understood = self.sums.setdefault(key, UsageSum()).add(usage)
        self.total.add(usage)
        self.unclear += not understood

    def document(self) -> dict[str, Any]:
        return {
            "receipts": self.receipts,
            "unclear": self.unclear,
            "total": self.total.document(),
            "items": [
                {"principal_ai": principal, "model": None if model == _UNKNOWN_MODEL else model, **usage.document()}
                for (principal, model), usage in sorted(self.sums.items())
            ],
        }


def usage(
    root: Root = None,
    principal: Principal = None,
    since: Since = None,
    url: MetaGateUrl = None,
    key_file: MyKeyFile = None,
    token_file: MyTokenFile = None,
    ca_file: CaFile = None,
    packet: Packet = None,
    tenant: Tenant = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Sum what work has cost: calls, tokens, seconds, from receipts alone. Options narrow it; one is needed."""
    if root is None and principal is None and since is None:
        raise Stop("of what? Give --root, --principal or --since", code=USAGE)
    begin = None if since is None else moment(since)
    ledger = TenantGates(url, key_file, token_file, ca_file, packet).client("memorygate")
    report = UsageReport()
    try:
        for receipt in _receipts(ledger, root, begin, tenant):
            if principal is None or receipt.get("principal_ai") == principal:
                report.add(receipt)
    except ApiError as error:
        raise stop_for(error, root or "") from error
    show_report(report, output)


def moment(text: str) -> datetime:
    """A time with an offset, or so long ago. Raises typer.BadParameter."""
    if text[-1:] in {"m", "h", "d", "w"}:
        return datetime.now(UTC) - timedelta(seconds=seconds(text))
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        parsed = None
    if parsed is None or parsed.tzinfo is None:
        raise typer.BadParameter("a time like 2027-01-31T12:00:00Z, or a length like 7d", param_hint="--since")
    return parsed.astimezone(UTC)


def _receipts(
    ledger: ApiClient, root: str | None, since: datetime | None, tenant: str | None
) -> Iterable[Mapping[str, Any]]:
    text = None if since is None else since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if root is None:
        return ledger.items("/v1/receipts", since=text, tenant=tenant)
    # Both are RFC 3339 in UTC with microseconds, as the ledger writes times: they compare as text.
    items = ledger.items(f"/receipts/root/{segment(root)}", tenant=tenant)
    return (receipt for receipt in items if text is None or str(receipt["stored_at"]) >= text)


def show_report(report: UsageReport, output: OutputFormat) -> None:
    if output.structured:
        print(structured(report.document(), output))
    elif not report.sums:
        print(f"none of {report.receipts:,} receipts says what it cost")
    else:
        rows = [
            [safe_text(principal), safe_text(model), *sums.cells()]
            for (principal, model), sums in sorted(report.sums.items())
        ]
        if len(rows) > 1:
            rows.append(["total", "", *report.total.cells()])
        print(table(HEADINGS, rows, NO_LIMIT if output is OutputFormat.WIDE else None))
    if report.unclear:
        print_note(f"{report.unclear:,} of these receipts hold a usage that is not all counts; only counts are summed")


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def _rounded(number: float) -> float:
    """Seconds may be fractions; tokens are not."""
    rounded = round(number, 3)
    return int(rounded) if rounded == int(rounded) else rounded
