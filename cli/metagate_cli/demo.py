"""`legivellum demo`: one story from an MCP call to an artifact, at gates that run somewhere, and whether its receipts
are exactly those that it must leave.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from metagate_cli.api_client import ApiClient, ApiError, CaFile, connect, stop_for
from metagate_cli.compliance_reading import ComplianceCheck, ComplianceReport
from metagate_cli.comply import ReportFormat, show_report
from metagate_cli.demo_receipts import EXPECTED, Receipt, differences
from metagate_cli.gate_addresses import MetaGateUrl, MyKeyFile, MyTokenFile, Packet, TenantGates
from metagate_cli.output import OutputFormat, OutputOption, safe_text, structured
from metagate_cli.terminal import FAILURE, Stop

if TYPE_CHECKING:
    from legivellum_worker.artifacts import StoredArtifact
    from metagate_cli.demo_client import ProblemataClient

PROBLEMATA: Final = "review"
_DOCUMENTS: Final = ("lighthouse.txt", "harbour.txt")
_POLL_SECONDS: Final = 0.5
_RECORDED_SECONDS: Final = 30.0
"""How long the worker may take to report the last task after the plan has ended."""
_OVER: Final = frozenset({"success", "failure", "canceled", "undelivered"})
_DECLARED_SECONDS: Final = 20.0
"""How long a gate may take to read what was declared just now."""
_UNATTENDED: Final = timedelta(days=3)
_LARGEST_REPORT: Final = 1024 * 1024

Documents = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[DOCUMENT DOCUMENT]", help="Two text files to review. Default: those of examples/demo."),
]
Wait = Annotated[float, typer.Option("--wait", help="Seconds that the review may take.", min=1.0)]


@dataclass(slots=True)
class DemoStory:
    """What the demo did. `receipts`: those of the plan's tree, `input_receipts`: of the inputs' trees."""

    plan_id: str
    inputs: Sequence[StoredArtifact]
    report: str
    receipts: Sequence[Receipt]
    input_receipts: Sequence[Receipt]

    @property
    def differences(self) -> list[str]:
        return differences(self.receipts, self.input_receipts, self.plan_id)

    @property
    def models(self) -> list[str]:
        """The models that wrote the outputs, as the receipts name them."""
        usages = [(receipt.get("metadata") or {}).get("usage") or {} for receipt in self.receipts]
        return sorted({str(usage["model"]) for usage in usages if usage.get("model")})


def demo(
    documents: Documents = None,
    url: MetaGateUrl = None,
    key_file: MyKeyFile = None,
    token_file: MyTokenFile = None,
    ca_file: CaFile = None,
    packet: Packet = None,
    wait: Wait = 120.0,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Have two documents reviewed, from an MCP call to an artifact, and show what the ledger says of it.

    Exit code 1 when the ledger does not hold exactly the receipts that this story must leave, or they break a rule.
    """
    gates = TenantGates(url, key_file, token_file, ca_file, packet)
    texts = [_text(path) for path in documents or example_documents()]
    if len(texts) != len(_DOCUMENTS):
        raise typer.BadParameter("a review of two documents is asked for", param_hint="DOCUMENT")
    ledger = gates.client("memorygate")
    story = _run_story(gates, ledger, texts, ca_file, wait, quiet=output.structured)
    metagate = None if url is None else connect(url, key_file, token_file, ca_file, None)
    compliance = ComplianceCheck(gates, metagate, None, _UNATTENDED).check_root(story.plan_id)
    _show(ledger, story, compliance, output)
    if story.differences or compliance.findings:
        raise typer.Exit(FAILURE)


def example_documents() -> list[Path]:
    """The demo's own. Raises Stop where they are not installed."""
    from metagate_cli.quickstart_files import examples

    return [examples("demo") / "documents" / name for name in _DOCUMENTS]


def _text(path: Path) -> tuple[str, bytes]:
    try:
        return path.name, path.read_bytes()
    except OSError as error:
        raise Stop(f"{path}: {error.strerror}", code=FAILURE) from error


def _run_story(
    gates: TenantGates,
    ledger: ApiClient,
    texts: Sequence[tuple[str, bytes]],
    ca_file: Path | None,
    wait: float,
    *,
    quiet: bool,
) -> DemoStory:
    from legivellum_worker.artifacts import DepotGateClient
    from metagate_client.errors import ClientError

    def say(text: str) -> None:
        if not quiet:
            print(safe_text(text), flush=True)

    depot = DepotGateClient(gates.access("depotgate")[0])
    try:
        inputs = [depot.put(content, role="input", media_type="text/plain", name=name) for name, content in texts]
        for (name, _), artifact in zip(texts, inputs, strict=True):
            say(f"deposited  {name}: {artifact.pointer}")
        plan_id, pointer = asyncio.run(_ask(gates, inputs, ca_file, wait, say))
        report = depot.read(pointer, max_bytes=_LARGEST_REPORT).decode(errors="replace")
    except ClientError as error:
        raise Stop(str(error), code=error.exit_code) from error
    try:
        roots = [ledger.get(f"/receipts/{artifact.receipt_id}")["task_id"] for artifact in inputs]
        input_receipts = [receipt for root in roots for receipt in ledger.items(f"/receipts/root/{root}")]
        return DemoStory(plan_id, inputs, report, _recorded(ledger, plan_id), input_receipts)
    except ApiError as error:
        raise stop_for(error, plan_id) from error


async def _ask(
    gates: TenantGates, inputs: Sequence[StoredArtifact], ca_file: Path | None, wait: float, say: Any
) -> tuple[str, str]:
    """What an agent does: the id of the task, and the pointer of its artifact."""
    from metagate_cli.demo_client import problemata_client

    access, credential = gates.access("interrogate")
    async with problemata_client(access.url, credential, ca_file) as agent:
        await _until_offered(agent)
        plan_id = await agent.ask(PROBLEMATA, {"documents": [artifact.pointer for artifact in inputs]})
        say(f"asked      problemata.passthrough {PROBLEMATA}: task {plan_id}")
        state = await _until_over(agent, plan_id, wait, say)
        if state != "success":
            raise Stop(f"the review ended as {state}: `legivellum explain {plan_id}` says why", code=FAILURE)
        # The plan itself is an artifact of this task too; the report is what its end names, which comes last.
        pointer = str((await agent.artifacts(plan_id))[-1]["pointer"])
        say(f"fetched    problemata.artifacts: {pointer}")
        return plan_id, pointer


async def _until_offered(agent: ProblemataClient) -> None:
    """Raises Stop where the caller may not ask for it, or nobody declared it."""
    until = time.monotonic() + _DECLARED_SECONDS
    while PROBLEMATA not in await agent.problematas():
        if time.monotonic() > until:
            raise Stop(f"InterroGate offers no Problemata {PROBLEMATA} to this caller: examples/demo declares it")
        await asyncio.sleep(_POLL_SECONDS)


async def _until_over(agent: ProblemataClient, plan_id: str, wait: float, say: Any) -> str:
    until, before = time.monotonic() + wait, ""
    while True:
        state = str((await agent.status(plan_id))["state"])
        if state != before:
            say(f"polled     problemata.status: {state}")
        if state in _OVER:
            return state
        if time.monotonic() > until:
            raise Stop(f"the review is {state} after {wait:.0f} s: `legivellum explain {plan_id}` says why")
        before = state
        await asyncio.sleep(_POLL_SECONDS)


def _recorded(ledger: ApiClient, plan_id: str) -> list[Receipt]:
    """The receipts of the plan's tree, once there are as many as there must be: its last task ends after the plan."""
    until = time.monotonic() + _RECORDED_SECONDS
    while True:
        receipts: list[Receipt] = list(ledger.items(f"/receipts/root/{plan_id}"))
        if len(receipts) >= len(EXPECTED) or time.monotonic() > until:
            return receipts
        time.sleep(_POLL_SECONDS / 5)


def _show(ledger: ApiClient, story: DemoStory, compliance: ComplianceReport, output: OutputFormat) -> None:
    address = f"{ledger.url.rstrip('/')}/console/tasks/{story.plan_id}"
    if output.structured:
        print(structured({**_document(story, address), "compliance": compliance.document()}, output))
        return
    from metagate_cli.story import read_story, show_story

    print("", *map(safe_text, story.report.splitlines()), sep="\n")
    print(f"written by {', '.join(map(safe_text, story.models)) or 'no model'}\n")
    show_story(read_story(ledger, story.plan_id), output, fold=False)
    print(f"\nstory      {address}")
    print("comply     ", end="\n" if compliance.findings else "")
    show_report(compliance, ReportFormat.TABLE)
    for difference in story.differences:
        print(f"differs    {safe_text(difference)}", file=sys.stderr)
    if not story.differences:
        print(f"receipts   {len(story.receipts)} of the plan and {len(story.input_receipts)} inputs, as they must be")


def _document(story: DemoStory, address: str) -> dict[str, Any]:
    return {
        "plan_id": story.plan_id,
        "inputs": [artifact.pointer for artifact in story.inputs],
        "report": story.report,
        "models": story.models,
        "story": address,
        "receipts": len(story.receipts) + len(story.input_receipts),
        "differences": story.differences,
    }
