"""`legivellum plan`: check a plan that somebody or some agent wrote, and send it.

A file is YAML or JSON: a body of `POST /plans`, its `intent`, or a draft alone. What DeleGate finds wrong is shown with
the line of the file. Ids are made here, so that sending again under the same id is a repeat and no second plan.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from metagate_cli.api_client import ApiClient, ApiError, CaFile, segment, stop_for
from metagate_cli.gate_addresses import MetaGateUrl, MyKeyFile, MyTokenFile, Packet, TenantGates
from metagate_cli.help import Command, Group
from metagate_cli.output import OutputFormat, OutputOption, safe_text, structured, table
from metagate_cli.terminal import FAILURE, UNABLE, USAGE, Stop, print_note

CAPABILITY: Final = "plan.submit"
PAYLOAD_KIND: Final = "plan"
_LARGEST_FILE: Final = 1_048_576
_LAST_STEP: Final = re.compile(r"(\[[^\[\]]*\]|\.[^.\[\]]*)\Z")

File = Annotated[Path, typer.Argument(metavar="FILE", help="YAML or JSON; - is standard input.", allow_dash=True)]
PlanId = Annotated[
    str | None, typer.Option("--id", help="The plan's id, a ULID: sent again under the same id it is no second plan.")
]
Surface = Annotated[str, typer.Option(help="Where InterroGate judges it, if it must.", envvar="METAGATE_SPAWN_SURFACE")]
Policy = Annotated[str, typer.Option(help="By which PolicyProfile.", envvar="METAGATE_SPAWN_PROFILE")]

app = typer.Typer(cls=Group, no_args_is_help=True, help="Plans: check one, send one.", rich_markup_mode=None)


@dataclass(frozen=True, slots=True)
class PlanFile:
    """`body`: what is sent. `lines`: of each path in the file, whose outermost member is that of `form`."""

    body: Mapping[str, Any]
    lines: Mapping[str, int]
    form: Literal["body", "intent", "draft"]

    def line_of(self, path: str) -> int | None:
        """The line on which this stands, or what it stands in."""
        at = {"body": f"intent.{path}", "intent": path, "draft": path.removeprefix("draft.")}[self.form]
        while at:
            if at in self.lines:
                return self.lines[at]
            shorter = _LAST_STEP.sub("", at)
            at = "" if shorter == at else shorter
        return None


@app.command("check", cls=Command, short_help="Judge a plan; nothing is written.")
def check(
    file: File,
    url: MetaGateUrl = None,
    key_file: MyKeyFile = None,
    token_file: MyTokenFile = None,
    ca_file: CaFile = None,
    packet: Packet = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Ask DeleGate what a plan would be, or what keeps it from being one. Nothing is written.

    Exit code 1 when it is not valid.
    """
    plan = read_plan_file(file)
    api = TenantGates(url, key_file, token_file, ca_file, packet).client("delegate")
    try:
        verdict = api.post("/plans/validate", plan.body)
    except ApiError as error:
        raise _refused(error, plan, file) from error
    if output.structured:
        print(structured(verdict, output))
    elif verdict["valid"]:
        print(f"valid: {_count(verdict['tasks'], 'task')}, depth {verdict['depth']}, digest {verdict['plan_digest']}")
    else:
        print(_findings(verdict["findings"], plan))
    if not verdict["valid"]:
        raise typer.Exit(FAILURE)


@app.command("send", cls=Command, short_help="Send a plan, through InterroGate where required.")
def send(
    file: File,
    plan_id: PlanId = None,
    surface: Surface = "public",
    policy: Policy = "default",
    url: MetaGateUrl = None,
    key_file: MyKeyFile = None,
    token_file: MyTokenFile = None,
    ca_file: CaFile = None,
    packet: Packet = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Have DeleGate make a plan of a file. Where it takes only what was admitted, InterroGate is asked.

    What is repeated with --id under the id of before is not done twice.
    """
    from legivellum_worker.ulids import new_ulid

    plan = read_plan_file(file)
    body = {**plan.body, "plan_id": plan_id or plan.body.get("plan_id") or new_ulid()}
    gates = TenantGates(url, key_file, token_file, ca_file, packet)
    try:
        answer = _sent(gates, body, surface, policy)
    except ApiError as error:
        raise _refused(error, plan, file) from error
    except Stop as stop:
        if stop.code == UNABLE:
            print_note(f"legivellum: to be sure that it is sent once, repeat it with --id {segment(body['plan_id'])}")
        raise
    show_plan(answer, output)


def _sent(gates: TenantGates, body: Mapping[str, Any], surface: str, policy: str) -> Any:
    delegate = gates.client("delegate")
    try:
        return delegate.post("/plans", body)
    except ApiError as error:
        if error.code != "ADMISSION_REQUIRED":
            raise
    _admit(gates.client("interrogate"), body, surface, policy)
    return delegate.get(f"/plans/{segment(body['plan_id'])}")


def _admit(interrogate: ApiClient, body: Mapping[str, Any], surface: str, policy: str) -> None:
    """Have InterroGate admit the plan and forward it. The plan is the admitted task, so both have one id."""
    plan_id = body["plan_id"]
    envelope = {
        "tenant_id": interrogate.get("/v1/interview")["tenant_id"],
        "surface_id": surface,
        "policy_profile_id": policy,
        "payload_kind": PAYLOAD_KIND,
        "payload": {name: member for name, member in body.items() if name != "plan_id"},
        "causality": {
            "root_task_id": plan_id,
            "parent_task_id": None,
            "caused_by_receipt_id": None,
            "spawn_depth": 0,
            "capability_id": CAPABILITY,
            "task_id": plan_id,
        },
    }
    try:
        interrogate.post("/v1/evaluate", envelope)
    except ApiError as error:
        decision = error.problem
        if decision.get("outcome") == "DENY":
            message = f"InterroGate denied it: {decision.get('reason_code')}, {decision.get('detail')}"
            raise Stop(safe_text(message), code=FAILURE) from error
        if decision.get("outcome") == "ALLOW":
            receipt = decision.get("escalation_receipt_id")
            message = f"it was admitted, and DeleGate did not take it (receipt {receipt}): send it anew"
            raise Stop(safe_text(message), code=FAILURE) from error
        raise


def show_plan(answer: Mapping[str, Any], output: OutputFormat) -> None:
    """What DeleGate answered about a plan: its state and steps."""
    if output.structured:
        print(structured(answer, output))
        return
    print(f"plan    {safe_text(answer['plan_id'])}")
    print(f"phase   {safe_text(answer['phase'])}")
    print(f"digest  {safe_text(answer['plan_digest'])}")
    print()
    print(
        table(("STEP", "TASK"), [(safe_text(step["step_id"]), safe_text(step["task_id"])) for step in answer["steps"]])
    )


def read_plan_file(file: Path) -> PlanFile:
    """Raises Stop for what is no YAML, no mapping or too much."""
    from metagate_operator.sources.yaml_values import YamlError, parse_document

    text = sys.stdin.read(_LARGEST_FILE + 1) if str(file) == "-" else file.read_text(encoding="utf-8")
    if len(text) > _LARGEST_FILE:
        raise Stop(f"{file}: is larger than 1 MiB", code=USAGE)
    try:
        document, lines = parse_document(text, 1)
    except YamlError as error:
        raise Stop(f"{file}:{error.line}: {error.message}", code=FAILURE) from error
    if not isinstance(document, dict):
        raise Stop(f"{file}: is no plan: a mapping with steps is expected", code=FAILURE)
    if "intent" in document:
        return PlanFile(document, lines, "body")
    if "draft" in document or "template" in document:
        return PlanFile({"intent": document}, lines, "intent")
    return PlanFile({"intent": {"draft": document}}, lines, "draft")


def _refused(error: ApiError, plan: PlanFile, file: Path) -> Stop:
    findings = error.problem.get("findings")
    if isinstance(findings, list) and findings:
        print_note(_findings(findings, plan))
        return Stop(f"{file}: is refused, {_count(len(findings), 'finding')} ({error.code})", code=FAILURE)
    return stop_for(error)


def _findings(findings: list[Mapping[str, str]], plan: PlanFile) -> str:
    rows = [
        (
            str(plan.line_of(finding["path"]) or "-"),
            safe_text(finding["path"]),
            safe_text(finding["reason"]),
            safe_text(finding["message"]),
        )
        for finding in findings
    ]
    return table(("LINE", "PATH", "REASON", "MESSAGE"), rows)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
