"""A task that a task begins: InterroGate judges it by the authority of the lease, and forwards what it admits."""

from __future__ import annotations

import json
import math
import time

from legivellum_worker.dependencies import RETRY_SECONDS
from legivellum_worker.gate_client import CALL_SECONDS, LEASE_HEADER, GateUnavailableError, call, refusal, repeat
from legivellum_worker.results import Failed, Release
from metagate_client.errors import ClientError, MisconfiguredError
from metagate_client.http_request import UnreachableError, send_request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from legivellum_worker.leased_work import LeasedWork
    from legivellum_worker.settings import GateAccess, WorkerSettings
    from metagate_client.http_request import HttpResponse

_PATIENCE_SECONDS = 60.0
_FORWARD_SECONDS = 20.0
"""An admitted request is forwarded before it is answered."""


class SpawnDeniedError(Failed):
    """InterroGate did not admit the request, or no target took it. Not caught, it ends the task as a failure."""

    def __init__(self, code: str, decision: Mapping[str, Any]) -> None:
        super().__init__(code)
        self.decision = decision
        """What InterroGate answered."""


class SpawnedTask:
    """What became of an admitted request. `answer`: what the target said, for a plan what DeleGate says of it."""

    __slots__ = ("answer", "decision", "receipt_id", "task_id")

    def __init__(self, decision: Mapping[str, Any]) -> None:
        self.decision = decision
        self.task_id = str(decision["task_id"])
        self.receipt_id = str(decision["receipt_id"])
        forwards = decision.get("forwards") or [{}]
        self.answer: Any = forwards[0].get("answer")

    def __repr__(self) -> str:
        return f"<SpawnedTask {self.task_id}>"


def spawn(
    work: LeasedWork,
    gates: WorkerSettings,
    capability: str,
    parameters: Any,
    *,
    surface: str | None,
    profile: str | None,
    key: str,
) -> SpawnedTask:
    """Repeated with the same key until it is answered. Raises SpawnDeniedError, and Release while a gate is away."""
    interrogate = gates.interrogate
    if interrogate is None:
        raise MisconfiguredError("InterroGate is not known to this worker: set METAGATE_INTERROGATE_URL")
    envelope = {
        "tenant_id": work.task["tenant_id"],
        "surface_id": surface or gates.surface,
        "policy_profile_id": profile or gates.policy_profile,
        "payload_kind": "task",
        "payload": parameters,
        "causality": {
            "root_task_id": work.root_task_id,
            "parent_task_id": work.task_id,
            "caused_by_receipt_id": _first_receipt(work, gates.memorygate),
            "spawn_depth": None,
            "capability_id": capability,
        },
    }
    try:
        return repeat(
            lambda: _decided(interrogate, _evaluate(interrogate, envelope, work.lease_id, f"{work.task_id}:{key}")),
            _PATIENCE_SECONDS,
            work.cancelled,
        )
    except GateUnavailableError as error:
        raise Release(RETRY_SECONDS, "InterroGate did not answer") from error


def _first_receipt(work: LeasedWork, ledger: GateAccess | None) -> str:
    """The receipt that opened the parent's obligation: the cause is the same under each lease of the task."""
    if ledger is None:
        raise MisconfiguredError("the ledger is not known to this worker, and names the cause of what is spawned")
    from urllib.parse import quote

    try:
        path = f"/receipts/task/{quote(work.task_id, safe='')}?limit=1"
        page = repeat(lambda: call(ledger, "GET", path), _PATIENCE_SECONDS, work.cancelled)
        return str(page["items"][0]["receipt_id"])
    except (ClientError, LookupError) as error:
        raise Release(RETRY_SECONDS, "the ledger did not name the cause of what is spawned") from error


def _evaluate(access: GateAccess, envelope: Mapping[str, Any], lease_id: str, key: str) -> HttpResponse:
    name, value = access.credential()
    try:
        return send_request(
            access.address,
            f"{access.base}/v1/evaluate",
            headers={
                "Content-Type": "application/json",
                "Accept": "application/json, application/problem+json",
                "User-Agent": "legivellum-worker",
                "Idempotency-Key": key,
                LEASE_HEADER: lease_id,
                name: value,
            },
            body=json.dumps(envelope, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass"),
            deadline=time.monotonic() + CALL_SECONDS + _FORWARD_SECONDS,
        )
    except UnreachableError as error:
        raise GateUnavailableError(access.gate, str(error)) from error


def _decided(access: GateAccess, response: HttpResponse) -> SpawnedTask:
    """A decision is an answer of whatever status; anything else is a refusal."""
    try:
        decision = json.loads(response.body)
        outcome = decision.get("outcome") if isinstance(decision, dict) else None
    except (ValueError, RecursionError):
        outcome = None
    if outcome is None:
        raise refusal(access, response)
    if outcome != "ALLOW":
        if decision.get("reason_code") == "RATE_LIMITED":
            milliseconds = float(decision.get("retry_after_ms") or 1000)
            raise Release(min(3600, math.ceil(milliseconds / 1000)), "InterroGate limits the rate of requests")
        raise SpawnDeniedError(str(decision.get("reason_code")), decision)
    if response.status >= 300:
        raise SpawnDeniedError("SPAWN_UNDELIVERED", decision)
    return SpawnedTask(decision)
