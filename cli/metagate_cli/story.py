"""`legivellum explain`: what happened around a task and why, from receipts alone, and what is open or missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from legivellum.receipts.story import (
    ReceiptDocument,
    TaskStory,
    cause_of,
    cost,
    in_causal_order,
    task_steps,
    why,
)
from metagate_cli.api_client import ApiClient, ApiError, CaFile, segment, stop_for
from metagate_cli.gate_addresses import MetaGateUrl, MyKeyFile, MyTokenFile, Packet, TenantGates
from metagate_cli.output import NO_LIMIT, OutputFormat, OutputOption, safe_text, structured, table
from metagate_cli.terminal import FAILURE, Stop, print_note

_LOOKUP: Final = 256

Task = Annotated[str, typer.Argument(metavar="TASK", help="A task or plan: its whole tree is explained.")]
Fold = Annotated[bool, typer.Option("--fold", help="A line for each task instead of each receipt.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Of a cluster-wide admin or observer: whose.")]


def explain(
    task: Task,
    fold: Fold = False,
    url: MetaGateUrl = None,
    key_file: MyKeyFile = None,
    token_file: MyTokenFile = None,
    ca_file: CaFile = None,
    packet: Packet = None,
    tenant: Tenant = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Tell a task's story: who did what and why, what it cost, what is open and with whom.

    Exit code 1 when something is missing.
    """
    ledger = TenantGates(url, key_file, token_file, ca_file, packet).client("memorygate")
    try:
        story = read_story(ledger, task, tenant)
    except ApiError as error:
        raise stop_for(error, task) from error
    if not story.receipts:
        raise Stop(f"{safe_text(task)}: there is no receipt of it", code=FAILURE)
    show_story(story, output, fold=fold)
    if story.gaps:
        raise typer.Exit(FAILURE)


def read_story(ledger: ApiClient, task: str, tenant: str | None = None) -> TaskStory:
    """Raises ApiError, Stop."""
    receipts = in_causal_order(list(ledger.items(f"/receipts/root/{segment(task)}", tenant=tenant)))
    known = {receipt["receipt_id"] for receipt in receipts}
    causes = dict.fromkeys(cause_of(receipt) for receipt in receipts)
    dangling = [cause for cause in causes if cause and cause not in known and not _exists(ledger, cause, tenant)]
    obligations = list(dict.fromkeys(str(item["obligation_id"]) for item in receipts if item["kind"] == "obligation"))
    open_with = {}
    for start in range(0, len(obligations), _LOOKUP):
        body = {"obligation_ids": obligations[start : start + _LOOKUP]}
        for item in ledger.post("/v1/obligations/lookup", body, tenant=tenant)["items"]:
            if item["state"] == "open":
                open_with[item["obligation_id"]] = item["custodian"]
    return TaskStory(receipts, open_with, dangling)


def _exists(ledger: ApiClient, receipt_id: str, tenant: str | None) -> bool:
    """A cause may be of another tree: what a person asked before."""
    try:
        ledger.get(f"/receipts/{segment(receipt_id)}", tenant=tenant)
    except ApiError as error:
        if error.code != "NOT_FOUND":
            raise
        return False
    return True


def show_story(story: TaskStory, output: OutputFormat, *, fold: bool) -> None:
    if output.structured:
        print(structured(_document(story), output))
        return
    headings = ("TASK", "STATE", "LEASES", "WHY", "COST") if fold else ("TIME", "BY", "WHAT", "TASK", "WHY", "COST")
    rows = folded_rows(story) if fold else [receipt_row(receipt, story.receipts) for receipt in story.receipts]
    print(table(headings, rows, NO_LIMIT if output is OutputFormat.WIDE else None))
    for obligation, custodian in story.open_with.items():
        print(f"open: {safe_text(obligation)} with {safe_text(custodian)}")
    for gap in story.gaps:
        print_note(f"missing: {safe_text(gap)}")


def _document(story: TaskStory) -> dict[str, Any]:
    lines = [
        {
            **{name: receipt[name] for name in ("receipt_id", "stored_at", "emitter", "kind", "phase", "task_id")},
            "obligation_id": receipt["obligation_id"], "caused_by_receipt_id": cause_of(receipt),
            "why": why(receipt, story.receipts), "usage": (receipt.get("metadata") or {}).get("usage"),
        }
        for receipt in story.receipts
    ]  # fmt: skip
    return {"receipts": lines, "open": dict(story.open_with), "gaps": story.gaps}


def receipt_row(receipt: ReceiptDocument, receipts: Sequence[ReceiptDocument]) -> list[str]:
    what = f"{receipt['kind']} {receipt['phase']}"
    cells = (str(receipt["stored_at"])[11:19], receipt["emitter"], what, receipt["obligation_id"])
    return [*map(safe_text, cells), safe_text(why(receipt, receipts) or "-"), cost((receipt,))]


def folded_rows(story: TaskStory) -> list[list[str]]:
    """A line for each task."""
    rows = []
    for step in task_steps(story):
        # A task may have several obligations: the end of one says nothing about the one that is open.
        is_over = step.end is not None and (step.open_with is None or step.end["phase"] != "complete")
        reason = why(step.end, story.receipts) if step.end is not None and is_over else None
        cells = (step.task_id, step.state, str(step.leases), reason or "-", cost(step.receipts))
        rows.append([safe_text(cell) for cell in cells])
    return rows
