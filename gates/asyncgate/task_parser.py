"""A task as it is sent becomes a Task: defaults filled in, limits judged, in the form that receipts and leases show."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from asyncgate.problem_codes import Code
from asyncgate.receipt_forms import summary_findings
from asyncgate.request_bodies import TaskBody, invalid, read_body
from asyncgate.settings import Settings
from asyncgate.task import LeaseTerms, Task
from legivellum.base.canonical_json import Uncanonical, canonical, digest
from legivellum.http.problems import refuse
from legivellum.identity.caller import Caller
from metagate_crds.authority import Authority, parse_authority


def parse_task(sent: Mapping[str, Any], caller: Caller, settings: Settings) -> Task:
    """Raises INVALID_REQUEST, TENANT_MISMATCH."""
    body = read_body(TaskBody, sent)
    if body.tenant_id is not None and body.tenant_id not in {str(caller.tenant), caller.namespace}:
        raise refuse(Code.TENANT_MISMATCH, "tenant_id: is not the credential's.")
    obligation_id = body.obligation_id or body.task_id
    needs = tuple(dict.fromkeys(body.needs))
    if obligation_id in needs:
        raise invalid("needs: a task cannot need its own obligation")
    terms = _terms(body, settings)
    max_leases = settings.max_leases if body.max_leases is None else body.max_leases
    _at_most("max_leases", max_leases, settings.max_leases)
    escalation_to = (body.principal_ai,) if body.escalation_to is None else tuple(dict.fromkeys(body.escalation_to))
    authority = _authority(body.authority)
    if body.task_summary is not None and (findings := summary_findings(body.task_summary)):
        raise invalid("; ".join(map(str, findings)))
    document = {
        "task_id": body.task_id,
        "obligation_id": obligation_id,
        "tenant_id": str(caller.tenant),
        "principal_ai": body.principal_ai,
        "payload_pointer": body.payload_pointer,
        "capability": body.capability,
        "not_before": body.not_before,
        "parent_task_id": body.parent_task_id,
        "task_type": body.task_type,
        "task_summary": body.task_summary,
        "authority": authority,
        "needs": list(needs),
        "lease": {
            "ttl_seconds": terms.ttl_seconds,
            "max_renewals": terms.max_renewals,
            "max_lifetime_seconds": terms.max_lifetime_seconds,
        },
        "max_leases": max_leases,
        "escalation_to": list(escalation_to),
    }
    try:
        form, sent_digest = canonical(document, round_trip=True), digest(canonical(sent, round_trip=True))
    except Uncanonical:
        raise invalid("The task must hold only numbers and text that JSON carries unchanged") from None
    return Task(
        tenant=caller.tenant,
        task_id=body.task_id,
        obligation_id=obligation_id,
        principal_ai=body.principal_ai,
        capability=body.capability,
        not_before=_moment(body.not_before),
        parent_task_id=body.parent_task_id,
        task_type=body.task_type,
        task_summary=body.task_summary,
        authority=None if authority is None else canonical(authority).decode(),
        needs=needs,
        terms=terms,
        max_leases=max_leases,
        escalation_to=escalation_to,
        document=form.decode(),
        digest=sent_digest,
    )


def authority_of(task: Task, sent: Mapping[str, Any]) -> Authority | None:
    """What a parsed task may do. None: nothing."""
    if task.authority is None:
        return None
    parsed = parse_authority(sent["authority"])
    assert isinstance(parsed, Authority)
    return parsed


def _terms(body: TaskBody, settings: Settings) -> LeaseTerms:
    lease = body.lease
    _at_most("lease.ttl_seconds", lease.ttl_seconds, settings.max_ttl_seconds)
    _at_most("lease.max_renewals", lease.max_renewals, settings.max_renewals)
    _at_most("lease.max_lifetime_seconds", lease.max_lifetime_seconds, settings.max_lifetime_seconds)
    max_ttl = settings.max_ttl_seconds if lease.ttl_seconds is None else lease.ttl_seconds
    return LeaseTerms(
        ttl_seconds=min(settings.ttl_seconds, max_ttl) if lease.ttl_seconds is None else lease.ttl_seconds,
        max_ttl_seconds=max_ttl,
        max_renewals=settings.max_renewals if lease.max_renewals is None else lease.max_renewals,
        max_lifetime_seconds=(
            settings.max_lifetime_seconds if lease.max_lifetime_seconds is None else lease.max_lifetime_seconds
        ),
    )


def _at_most(name: str, value: int | None, most: int) -> None:
    if value is not None and value > most:
        raise invalid(f"{name}: must be at most {most} here")


def _authority(sent: dict[str, Any] | None) -> dict[str, Any] | None:
    if sent is None:
        return None
    parsed = parse_authority(sent)
    if not isinstance(parsed, Authority):
        raise invalid("; ".join(f"authority.{finding}" for finding in parsed))
    return sent


def _moment(text: str | None) -> datetime | None:
    """In UTC. The text has the shape of a time: the body was judged. Raises INVALID_REQUEST.

    Python reads six digits of a second of any number.
    """
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError:
        # Before the year 1 or after 9999: the driver cannot send it, which would fail the statement for others too.
        raise invalid("not_before: must lie in the years 1 to 9999 of UTC") from None
