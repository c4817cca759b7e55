"""`legivellum abandon`: end a plan before its steps have ended, and take back what nobody has finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from metagate_cli.api_client import ApiClient, ApiError, CaFile, segment, stop_for
from metagate_cli.gate_addresses import MetaGateUrl, MyKeyFile, MyTokenFile, Packet, TenantGates, confirm
from metagate_cli.output import OutputFormat, OutputOption, safe_text, structured
from metagate_cli.terminal import FAILURE, Stop

_OVER: Final = frozenset({"TASK_ENDED", "NOT_FOUND"})
"""Refusals of a revocation that say there is nothing to revoke: it has ended, or was never parked."""
_CLOSED: Final = "OBLIGATION_ALREADY_TERMINATED"

Plan = Annotated[str, typer.Argument(metavar="PLAN", help="The plan's id.")]
Reason = Annotated[str | None, typer.Option(help="Why, kept in the receipts.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def abandon(
    plan: Plan,
    reason: Reason = None,
    yes: Yes = False,
    url: MetaGateUrl = None,
    key_file: MyKeyFile = None,
    token_file: MyTokenFile = None,
    ca_file: CaFile = None,
    packet: Packet = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Close one of your plans as canceled, and revoke those of its tasks that have not ended.

    Harmless when repeated: whatever was left the first time is revoked. Exit code 1 for a plan that was over already.
    """
    gates = TenantGates(url, key_file, token_file, ca_file, packet)
    delegate, asyncgate = gates.client("delegate"), gates.client("asyncgate")
    try:
        answer = delegate.get(f"/plans/{segment(plan)}")
        if not confirm(f"Abandon plan {plan}, which is {answer['phase']}?", yes=yes):
            raise Stop("nothing was abandoned", code=FAILURE)
        end = _close(delegate, plan, reason)
        revoked = _revoke(asyncgate, answer["steps"], reason)
    except ApiError as error:
        raise stop_for(error, plan) from error
    if output.structured:
        print(structured({"plan_id": plan, "end": end, "revoked": revoked}, output))
    else:
        state = "was over already" if end is None else f"{end['status']}, receipt {end['receipt_id']}"
        print(f"plan {safe_text(plan)}: {safe_text(state)}")
        held = answer["phase"] == "held"
        nothing = f"nothing, {'the plan had no tasks' if held else 'no task was left'}"
        print(f"revoked: {', '.join(map(safe_text, revoked)) or nothing}")
        if held:
            # Custody is the approver's alone: neither DeleGate nor the plan's principal can end what they were asked.
            print(f"{safe_text(plan)}:approval stays open until its approver ends it (`legivellum done`)")
    if end is None:
        raise typer.Exit(FAILURE)


def _close(delegate: ApiClient, plan: str, reason: str | None) -> Any:
    """The end of the plan; None for one that was over."""
    try:
        return delegate.post(
            f"/plans/{segment(plan)}/close", {"abandon": True, **({"reason": reason} if reason else {})}
        )
    except ApiError as error:
        if error.code != _CLOSED:
            raise
        return None


def _revoke(asyncgate: ApiClient, steps: Sequence[Mapping[str, Any]], reason: str | None) -> list[str]:
    """The ids of the tasks that are revoked, now or before."""
    revoked = []
    body = {"what": "task", **({"reason": reason} if reason else {})}
    for step in steps:
        try:
            asyncgate.post(f"/tasks/{segment(step['task_id'])}/revoke", body)
        except ApiError as error:
            if error.code not in _OVER:
                raise
        else:
            revoked.append(step["task_id"])
    return revoked
