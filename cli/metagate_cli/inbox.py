"""`legivellum done`: what waits for a person, and ending it. An approval of a plan is shown whole before it is given.

Whoever approves signs the digest of the document that was shown, which is computed here and not taken from the gate:
what DeleGate then dispatches is these bytes or nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from metagate_cli.api_client import ApiClient, ApiError, CaFile, segment, stop_for
from metagate_cli.gate_addresses import MetaGateUrl, MyKeyFile, MyTokenFile, Packet, TenantGates, confirm
from metagate_cli.listing import age
from metagate_cli.output import OutputFormat, OutputOption, safe_text, structured, table
from metagate_cli.terminal import FAILURE, Stop, print_note

APPROVAL: Final = "plan.approval"
_DISPATCHABLE: Final = frozenset({"held", "running"})
"""Phases of a plan that was decided and perhaps not acted on; a dispatch changes nothing about one that was."""
_OVER: Final = "closed"
_NO_PLAN: Final = frozenset({"PLAN_NOT_FOUND", "NOT_FOUND", "INVALID_REQUEST"})

Task = Annotated[str | None, typer.Argument(metavar="TASK", help="A task or obligation of your inbox.")]
Text = Annotated[str | None, typer.Option(help="What came of it, kept in the receipt.")]
Fail = Annotated[bool, typer.Option("--fail", help="It ended in failure; of a plan: it is refused.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def done(
    task: Task = None,
    text: Text = None,
    fail: Fail = False,
    yes: Yes = False,
    url: MetaGateUrl = None,
    key_file: MyKeyFile = None,
    token_file: MyTokenFile = None,
    ca_file: CaFile = None,
    packet: Packet = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List what waits for you, or end one of it. A plan to approve is shown first, then dispatched."""
    gates = TenantGates(url, key_file, token_file, ca_file, packet)
    ledger = gates.client("memorygate")
    try:
        obligations = list(ledger.items("/inbox"))
        if task is None:
            _show_inbox(obligations, output)
        elif (obligation := _chosen(obligations, task)) is None:
            _dispatch_again(gates, task, output)
        elif obligation["receipt"].get("task_type") == APPROVAL:
            _decide(gates, obligation, text, fail=fail, yes=yes, output=output)
        else:
            _complete(ledger, obligation, text, fail=fail, output=output)
    except ApiError as error:
        raise stop_for(error) from error


def _show_inbox(obligations: Sequence[Mapping[str, Any]], output: OutputFormat) -> None:
    if output.structured:
        print(structured(list(obligations), output))
        return
    rows = [
        (
            safe_text(obligation["obligation_id"]),
            safe_text(obligation["receipt"].get("task_type") or "-"),
            safe_text(obligation["principal_ai"]),
            age(obligation["custody_at"]),
            safe_text(_summary(obligation["receipt"])),
        )
        for obligation in obligations
    ]
    print(table(("TASK", "TYPE", "FOR", "SINCE", "SUMMARY"), rows) if rows else "nothing waits for you")


def _summary(receipt: Mapping[str, Any]) -> str:
    return str(receipt.get("escalation_reason") or receipt.get("task_summary") or "-")


def _chosen(obligations: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """The obligation of this id, or the only one of this task; None where there is none. Raises Stop for several."""
    for obligation in obligations:
        if obligation["obligation_id"] == name:
            return obligation
    matching = [obligation for obligation in obligations if obligation["task_id"] == name]
    if len(matching) > 1:
        ids = ", ".join(safe_text(obligation["obligation_id"]) for obligation in matching)
        raise Stop(f"{safe_text(name)}: which of {ids}?", code=FAILURE)
    return matching[0] if matching else None


def _complete(
    ledger: ApiClient, obligation: Mapping[str, Any], text: str | None, *, fail: bool, output: OutputFormat
) -> None:
    receipt = completion(obligation, text, status="failure" if fail else "success", metadata={})
    answer = ledger.post("/receipts", receipt)
    if output.structured:
        print(structured(answer, output))
    else:
        print(f"{safe_text(obligation['obligation_id'])}: {receipt['status']}, receipt {answer['receipt_id']}")


def completion(
    obligation: Mapping[str, Any], text: str | None, *, status: str, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """The receipt with which its custodian ends an obligation."""
    from legivellum_worker.ulids import new_ulid

    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "receipt_id": new_ulid(),
        "kind": "obligation",
        "phase": "complete",
        "status": status,
        "task_id": obligation["task_id"],
        "obligation_id": obligation["obligation_id"],
        "principal_ai": obligation["principal_ai"],
        "caused_by_receipt_id": obligation["custody_by"],
        "task_type": obligation["receipt"].get("task_type"),
        "outcome_kind": "none" if text is None else "response_text",
        "outcome_text": text,
        "created_at": now,
        "completed_at": now,
        "metadata": dict(metadata),
    }


def _decide(
    gates: TenantGates,
    obligation: Mapping[str, Any],
    text: str | None,
    *,
    fail: bool,
    yes: bool,
    output: OutputFormat,
) -> None:
    """Show the plan, ask, write the receipt, and have DeleGate act on it."""
    plan_id = obligation["task_id"]
    delegate = gates.client("delegate")
    plan = delegate.get(f"/plans/{segment(plan_id)}", body="true")
    if plan["phase"] == _OVER:
        _withdraw(gates, obligation, text, yes=yes, output=output)
        return
    document = plan["plan"]
    if document is None:
        raise Stop(f"DepotGate does not have the plan {safe_text(plan_id)}: nothing can be approved", code=FAILURE)
    digest = shown_digest(document)
    if not output.structured:
        print("\n".join(plan_lines(document, digest)), flush=True)
    if not confirm("Refuse this plan?" if fail else "Approve exactly this plan?", yes=yes):
        raise Stop("nothing was decided", code=FAILURE)
    status = "failure" if fail else "success"
    receipt = completion(obligation, text, status=status, metadata={"plan_digest": digest})
    gates.client("memorygate").post("/receipts", receipt)
    if not output.structured:
        print_note(f"{'refused' if fail else 'approved'}: receipt {receipt['receipt_id']}")
    _show_dispatched(delegate.post(f"/plans/{segment(plan_id)}/dispatch", {}), output)


def _withdraw(
    gates: TenantGates, obligation: Mapping[str, Any], text: str | None, *, yes: bool, output: OutputFormat
) -> None:
    """End the approval of a plan that ended meanwhile: no approval may be on record of what can never run."""
    if not output.structured:
        print(f"plan {safe_text(obligation['task_id'])} is over: there is nothing to approve", flush=True)
    if not confirm("End this approval as canceled?", yes=yes):
        raise Stop("nothing was ended", code=FAILURE)
    receipt = completion(obligation, text, status="canceled", metadata={})
    answer = gates.client("memorygate").post("/receipts", receipt)
    if output.structured:
        print(structured(answer, output))
    else:
        print(f"{safe_text(obligation['obligation_id'])}: canceled, receipt {answer['receipt_id']}")


def _dispatch_again(gates: TenantGates, task: str, output: OutputFormat) -> None:
    """A plan that was decided already, and not acted on because something failed in between."""
    plan_id = task.removesuffix(":approval")
    delegate = gates.client("delegate")
    try:
        is_dispatchable = delegate.get(f"/plans/{segment(plan_id)}")["phase"] in _DISPATCHABLE
    except ApiError as error:
        if error.code not in _NO_PLAN:
            raise
        is_dispatchable = False
    if not is_dispatchable:
        raise Stop(f"{safe_text(task)}: is not in your inbox (`legivellum done` lists it)", code=FAILURE)
    _show_dispatched(delegate.post(f"/plans/{segment(plan_id)}/dispatch", {}), output)


def _show_dispatched(answer: Mapping[str, Any], output: OutputFormat) -> None:
    if output.structured:
        print(structured(answer, output))
    else:
        print(f"plan {safe_text(answer['plan_id'])}: {safe_text(answer['phase'])}")


def shown_digest(document: Mapping[str, Any]) -> str:
    """The digest of what is shown. Raises Stop where the document says another one of itself."""
    from metagate_crds.plans.plan import plan_digest

    digest = plan_digest(document)
    if digest != document["plan_digest"]:
        raise Stop("the plan is not the one that its digest names: nothing can be approved", code=FAILURE)
    return digest


def plan_lines(document: Mapping[str, Any], digest: str) -> list[str]:
    """A plan for whoever decides about it: what is done in which order, with what, and what it may do beyond that."""
    lines = [
        f"plan    {safe_text(document['plan_id'])}, asked for by {safe_text(document['principal_ai'])}",
        f"digest  {safe_text(digest)}",
    ]
    for step in flat_steps(document["steps"]):
        needs = ", ".join(map(safe_text, step["depends_on"]))
        lines += [
            "",
            f"{safe_text(step['step_id'])}: {safe_text(step['capability'])}{f' after {needs}' if needs else ''}",
        ]
        lines += [f"  {name:9} {safe_text(value)}" for name, value in _step_facts(step)]
    return lines


def flat_steps(steps: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The task steps, those of sub-plans in their place."""
    return [inner for step in steps for inner in (flat_steps(step["steps"]) if step["kind"] == "plan" else [step])]


def _step_facts(step: Mapping[str, Any]) -> list[tuple[str, str]]:
    job = step["job"]
    facts = [
        (f"{'do' if not number else ''}", line) for number, line in enumerate(job.get("instruction", "").splitlines())
    ]
    facts += [("input", f"{given['name']}: {_source(given)}") for given in job.get("inputs", ())]
    facts += [(name, json.dumps(job[name], ensure_ascii=False)) for name in ("output", "settings") if name in job]
    authority = {name: value for name, value in step["authority"].items() if value not in (None, False, [], {})}
    facts += [("may", f"{name}: {json.dumps(value, ensure_ascii=False)}") for name, value in authority.items()]
    facts += [("escalates", f"on {', '.join(rule['on'])} to {rule['to']}") for rule in step["escalation"]]
    return facts


def _source(given: Mapping[str, Any]) -> str:
    if "step" in given:
        return f"what {given['step']} makes"
    return str(given["pointer"]) if "pointer" in given else json.dumps(given.get("value"), ensure_ascii=False)
