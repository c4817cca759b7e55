"""Tasks, leases and their ends as they are answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from asyncgate.lease import EndedTask, Lease, ReleasedTask, Renewal, Revocation
from asyncgate.task import ParkedTask, QueueDepth, TaskView
from legivellum.base.timestamps import rfc3339
from legivellum.http import strict_json


def time_or_null(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def parked(task: ParkedTask) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "obligation_id": task.obligation_id,
        "accepted_receipt_id": task.accepted_receipt_id,
        "accepted_at": time_or_null(task.accepted_at),
        "available_at": time_or_null(task.available_at),
        "waits_for": list(task.waits_for),
    }


def lease(issued: Lease) -> bytes:
    """With the task as it stands in its receipt, byte for byte."""
    members = {
        "lease_id": issued.lease_id,
        "number": issued.number,
        "issued_at": rfc3339(issued.issued_at),
        "expires_at": rfc3339(issued.expires_at),
        "expires_in_ms": issued.expires_in_ms,
        "latest_expiry": rfc3339(issued.latest_expiry),
        "renewals_left": issued.renewals_left,
        "evidence": list(issued.evidence),
        "root_task_id": issued.root_task_id,
        "depth": issued.depth,
    }
    return strict_json.encode(members)[:-1] + b',"task":' + issued.task.encode() + b"}"


def renewal(renewed: Renewal) -> dict[str, Any]:
    return {
        "expires_at": rfc3339(renewed.expires_at),
        "expires_in_ms": renewed.expires_in_ms,
        "renewals_left": renewed.renewals_left,
    }


def released(task: ReleasedTask) -> dict[str, Any]:
    return {"task_id": task.task_id, "available_at": time_or_null(task.available_at)}


def ended(task: EndedTask) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "obligation_id": task.obligation_id,
        "receipt_id": task.receipt_id,
        "stored_at": rfc3339(task.stored_at),
    }


def revocation(revoked: Revocation) -> dict[str, Any]:
    return {"task_id": revoked.task_id, "lease_ended": revoked.lease_ended}


def task(view: TaskView) -> bytes:
    document: Mapping[str, Any] = {} if view.document is None else json.loads(view.document)
    return strict_json.encode(
        {
            # `lease` of the document are the terms; of a task that is shown it is who holds it now.
            **{name: value for name, value in document.items() if name != "lease"},
            "task_id": view.task_id,
            "obligation_id": view.obligation_id,
            "principal_ai": view.principal_ai,
            "capability": view.capability,
            "state": view.state,
            "accepted_receipt_id": view.accepted_receipt_id,
            "accepted_at": time_or_null(view.accepted_at),
            "available_at": time_or_null(view.available_at),
            "waits_for": list(view.waits_for),
            "lease": None
            if view.lease is None
            else {
                "holder": view.lease.holder,
                "number": view.lease.number,
                "expires_at": rfc3339(view.lease.expires_at),
            },
            "ended": None
            if view.ended is None
            else {"how": view.ended.how, "at": rfc3339(view.ended.at), "receipt_id": view.ended.receipt_id},
        }
    )


def depth(counted: QueueDepth) -> dict[str, Any]:
    return {
        "capability": counted.capability,
        "waiting": counted.waiting,
        "held_back": counted.held_back,
        "leased": counted.leased,
        "oldest_available_at": time_or_null(counted.oldest_available_at),
        "capped": counted.capped,
    }
