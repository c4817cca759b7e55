"""The admission beside a task (AG-09): the receipt by which InterroGate admitted exactly these bytes, not long ago."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from asyncgate.database import AsyncGateDatabase
from asyncgate.problem_codes import Code
from asyncgate.task import Task, TaskAdmission
from legivellum.base.canonical_json import canonical
from legivellum.http.problems import RequestRefused, refuse

LONGEST_AGE: Final = timedelta(minutes=10)
_TARGET: Final = "asyncgate"
_INTERROGATE: Final = "svc:interrogate"


async def read_admissions(
    database: AsyncGateDatabase, tenant: UUID, wanted: Sequence[tuple[str, Task, Mapping[str, Any]]]
) -> list[TaskAdmission | RequestRefused]:
    """Of each receipt id and its task, as parsed and as sent: the admission, or ADMISSION_REFUSED. One look-up for all.

    That it was used before is judged where it is stored.
    """
    if not wanted:
        return []
    forms = await database.admissions(tenant, [receipt_id for receipt_id, _, _ in wanted])
    admissions: list[TaskAdmission | RequestRefused] = []
    for form, (receipt_id, task, sent) in zip(forms, wanted, strict=True):
        try:
            admissions.append(_admission(form, receipt_id, task, sent))
        except RequestRefused as refused:
            admissions.append(refused)
    return admissions


def _admission(form: str | None, receipt_id: str, task: Task, sent: Mapping[str, Any]) -> TaskAdmission:
    if form is None:
        raise _refused("it is no admission of this tenant, or too old")
    receipt = json.loads(form)
    body = receipt.get("body") or {}
    if (receipt.get("emitter"), receipt.get("kind"), receipt.get("phase")) != (_INTERROGATE, "admission", "accepted"):
        raise _refused("it admits nothing")
    if receipt.get("task_id") != task.task_id:
        raise _refused("it admits another task")
    if _TARGET not in (body.get("targets") or ()):
        raise _refused("it was not made for asyncgate")
    if body.get("payload_sha256") != hashlib.sha256(canonical(sent)).hexdigest():
        raise _refused("it admits other bytes: the payload is the task in RFC 8785")
    depth = (body.get("derived") or {}).get("depth")
    return TaskAdmission(receipt_id, depth if isinstance(depth, int) else 0)


def _refused(why: str) -> RequestRefused:
    return refuse(Code.ADMISSION_REFUSED, f"Legivellum-Admission: {why}.")
