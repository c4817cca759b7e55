"""What DeleGate asks of other gates, with the tenant's credential: the ledger, DepotGate, AsyncGate, InterroGate.

Every id is derived from the plan's (DG-04), so whatever is sent may be sent again. Every method raises GateAway (a 503
that names the gate) and GateRefused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from delegate import metrics
from delegate.settings import Settings
from legivellum.gate.gate_caller import (
    GateAway,
    GateCaller,
    GateRefused,
    decoding,
    path_segment,
    read_object,
    refusal_of,
    trusting,
)
from legivellum.http import strict_json
from legivellum.identity.tenant_credentials import ServedTenant
from metagate_crds.plans.plan import MEDIA_TYPE

_BATCH_RECEIPTS: Final = 256
_BATCH_BYTES: Final = 480 * 1_024
_LOOKED_UP: Final = 256


@dataclass(frozen=True, slots=True)
class ReceiptAnswer:
    """What became of one receipt. `refusal`: the ledger's code; None where it is stored, now or before."""

    refusal: str | None
    detail: str
    replayed: bool
    receipt_id: str
    stored_at: str


@dataclass(frozen=True, slots=True)
class ObligationState:
    """An obligation as the ledger has it; one that nobody opened has state None."""

    obligation_id: str
    state: str | None
    custodian: str | None
    opened_by: str | None
    closed_by: str | None
    task_id: str | None = None
    root_task_id: str | None = None
    principal_ai: str | None = None

    @property
    def is_open(self) -> bool:
        return self.state == "open"


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """The artifact of a plan. `body` is what DepotGate keeps, whoever stored it first (DG-06)."""

    pointer: str
    sha256: str
    location: str
    receipt_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class TaskAnswer:
    """AsyncGate's answer for one task of a batch."""

    task_id: str
    status: int
    code: str | None
    detail: str

    @property
    def refused(self) -> bool:
        return self.status >= 400


@dataclass(frozen=True, slots=True)
class AdmissionVerdict:
    """InterroGate's decision, and its receipt."""

    allowed: bool
    receipt_id: str
    reason_code: str | None
    detail: str


class GateClients:
    """One per process. Every method takes the tenant whose credential is sent."""

    def __init__(self, settings: Settings) -> None:
        """Raises OSError, UnusableSettingError for a file of certificates that cannot be used."""
        self._caller = GateCaller(
            {
                "memorygate": settings.memorygate_url,
                "depotgate": settings.depotgate_url,
                "asyncgate": settings.asyncgate_url,
                "interrogate": settings.interrogate_url,
            },
            seconds=settings.gate_ms / 1_000,
            user_agent=f"delegate/{settings.version}",
            trust=trusting(settings.gates_ca_file, settings.variable("gates_ca_file")),
            observe=metrics.count_gate_call,
        )

    async def close(self) -> None:
        await self._caller.close()

    # --- the ledger

    async def post_receipts(self, tenant: ServedTenant, receipts: Sequence[bytes]) -> list[ReceiptAnswer]:
        """One answer for each, in their order; the receipts are JSON as it is sent."""
        answers: list[ReceiptAnswer] = []
        for part in _parts(receipts):
            body = b'{"receipts":[%s]}' % b",".join(part)
            answer = await self._caller.ask("memorygate", tenant.headers, "POST", "/receipts/batch", body)
            with decoding("memorygate"):
                answers += [_receipt_answer(item) for item in _items(answer, len(part))]
        return answers

    async def receipt(self, tenant: ServedTenant, receipt_id: str) -> Mapping[str, Any] | None:
        """A receipt of the tenant."""
        return await self._caller.find("memorygate", tenant.headers, f"/receipts/{path_segment(receipt_id)}")

    async def task_receipts(self, tenant: ServedTenant, task_id: str) -> list[Mapping[str, Any]]:
        """All receipts of a task, by ledger time."""
        path = f"/receipts/task/{path_segment(task_id)}"
        return [item async for item in self._caller.pages("memorygate", tenant.headers, path, {})]

    async def obligations(self, tenant: ServedTenant, obligation_ids: Sequence[str]) -> list[ObligationState]:
        """One for each, in their order: whether it is open, and with whom."""
        states: list[ObligationState] = []
        for start in range(0, len(obligation_ids), _LOOKED_UP):
            part = obligation_ids[start : start + _LOOKED_UP]
            answer = await self._caller.ask(
                "memorygate",
                tenant.headers,
                "POST",
                "/v1/obligations/lookup",
                strict_json.encode({"obligation_ids": part}),
            )
            with decoding("memorygate"):
                states += [_obligation_state(item) for item in _items(answer, len(part))]
        return states

    async def inbox(self, tenant: ServedTenant, **filters: str) -> list[Mapping[str, Any]]:
        """All open obligations in this delegate's custody."""
        return [item async for item in self._caller.pages("memorygate", tenant.headers, "/inbox", filters)]

    async def inbox_page(
        self, tenant: ServedTenant, *, limit: int, cursor: str | None, **filters: str
    ) -> tuple[list[Mapping[str, Any]], str | None]:
        """A page of them, and the cursor of the next one."""
        query = {**filters, "limit": str(limit), **({} if cursor is None else {"cursor": cursor})}
        answer = await self._caller.ask("memorygate", tenant.headers, "GET", f"/inbox?{urlencode(query)}")
        with decoding("memorygate"):
            return answer["items"], answer["next_cursor"]

    # --- DepotGate

    async def deposit_plan(
        self, tenant: ServedTenant, *, plan_id: str, artifact_id: str, body: bytes, caused_by_receipt_id: str
    ) -> StoredPlan:
        """Keep the plan. Where another one is kept under the id already, that one is what is returned (DG-06)."""
        query = urlencode(
            {
                "role": "plan",
                "task_id": plan_id,
                "artifact_id": artifact_id,
                "caused_by_receipt_id": caused_by_receipt_id,
                "name": "plan.json",
            }
        )
        try:
            answer = await self._caller.ask(
                "depotgate", tenant.headers, "POST", f"/artifacts?{query}", body, media_type=MEDIA_TYPE
            )
        except GateRefused as refused:
            if refused.code != "ARTIFACT_CONFLICT":
                raise
            stored = await self.stored_plan(tenant, plan_id=plan_id, artifact_id=artifact_id)
            if stored is None:
                raise
            return stored
        with decoding("depotgate"):
            return StoredPlan(answer["pointer"], answer["sha256"], answer["location"], answer["receipt_id"], body)

    async def stored_plan(self, tenant: ServedTenant, *, plan_id: str, artifact_id: str) -> StoredPlan | None:
        """The plan that is kept under the id; None where none is."""
        pages = self._caller.pages("depotgate", tenant.headers, "/artifacts", {"task_id": plan_id, "role": "plan"})
        async for manifest in pages:
            with decoding("depotgate"):
                pointer, sha256, receipt_id = (manifest[name] for name in ("pointer", "sha256", "receipt_id"))
            if pointer.split(":")[1:2] == [artifact_id]:
                body = await self.plan_body(tenant, pointer)
                if body is None:
                    return None
                receipt = await self.receipt(tenant, receipt_id)
                location = "" if receipt is None else receipt.get("artifact_location", "")
                return StoredPlan(pointer, sha256, location, receipt_id, body)
        return None

    async def plan_body(self, tenant: ServedTenant, pointer: str) -> bytes | None:
        """The bytes of an artifact; None where there is none, or it was retired."""
        try:
            body = await self._caller.call("depotgate", tenant.headers, "GET", f"/artifacts/{path_segment(pointer)}")
        except GateRefused as refused:
            if refused.status in {404, 410}:
                return None
            raise
        # What is minted is what the plan receipt names: bytes of another digest are no plan of anybody's.
        if hashlib.sha256(body).hexdigest() != pointer.rpartition(":")[2]:
            raise GateAway("depotgate", "answered other bytes than those of the pointer")
        return body

    # --- AsyncGate

    async def check_tasks(self, tenant: ServedTenant, tasks: Sequence[Mapping[str, Any]]) -> list[TaskAnswer]:
        """Whether AsyncGate would take them; it stores nothing."""
        answers: list[TaskAnswer] = []
        for start in range(0, len(tasks), _LOOKED_UP):
            items = [{"task": task} for task in tasks[start : start + _LOOKED_UP]]
            answers += await self._batch(tenant, {"items": items, "check": True})
        return answers

    async def enqueue(
        self, tenant: ServedTenant, tasks: Sequence[Mapping[str, Any]], admissions: Sequence[str] = ()
    ) -> list[TaskAnswer]:
        """Hand over all of them or none. `admissions`: a receipt for each task, or none at all."""
        items: list[dict[str, Any]] = [{"task": task} for task in tasks]
        if admissions:
            items = [{**item, "admission": admission} for item, admission in zip(items, admissions, strict=True)]
        return await self._batch(tenant, {"items": items, "all_or_none": True})

    async def revoke(self, tenant: ServedTenant, task_id: str, reason: str) -> None:
        """End a task that waits or runs."""
        body = strict_json.encode({"what": "task", "reason": reason})
        await self._caller.ask("asyncgate", tenant.headers, "POST", f"/tasks/{path_segment(task_id)}/revoke", body)

    async def _batch(self, tenant: ServedTenant, body: Mapping[str, Any]) -> list[TaskAnswer]:
        answer = await self._caller.ask("asyncgate", tenant.headers, "POST", "/tasks/batch", strict_json.encode(body))
        tasks = [item["task"]["task_id"] for item in body["items"]]
        with decoding("asyncgate"):
            answers = [
                TaskAnswer(task_id, int(result["status"]), result.get("code"), result.get("detail", ""))
                for task_id, result in zip(tasks, answer["items"], strict=True)
            ]
        for task in answers:
            # An item fails for itself where the gate could not judge it: that is no verdict on the plan.
            if task.status >= 500 or task.status == 429:
                raise GateAway("asyncgate", "could not judge a task")
        return answers

    # --- InterroGate

    async def admit(self, tenant: ServedTenant, envelope: Mapping[str, Any], payload: bytes) -> AdmissionVerdict:
        """Ask for a decision on the payload, which is sent byte for byte. "Too often" is no verdict: GateAway.

        Without a key: an admitted task is answered as it was however late it is asked for again, and what was refused
        for being asked too often is decided anew. Under a key that refusal would be remembered for a day.
        """
        body = strict_json.encode(envelope)[:-1] + b',"payload":' + payload + b"}"
        answer = await self._caller.exchange("interrogate", tenant.headers, "POST", "/v1/evaluate", body)
        decision = read_object("interrogate", answer.content)
        # Also 502 is an admission: only a target that was called did not answer.
        if "outcome" not in decision:
            raise refusal_of("interrogate", answer, decision)
        if decision.get("reason_code") == "RATE_LIMITED":
            raise GateAway("interrogate", "is asked too often", retry_after=answer.retry_after)
        allowed = decision["outcome"] == "ALLOW"
        with decoding("interrogate"):
            return AdmissionVerdict(
                allowed, decision["receipt_id"], decision.get("reason_code"), decision.get("detail") or ""
            )


def _items(answer: Mapping[str, Any], number: int) -> list[Mapping[str, Any]]:
    """One for each that was sent. Raises ValueError."""
    items: list[Mapping[str, Any]] = answer["items"]
    if len(items) != number:
        raise ValueError("another number of answers")
    return items


def _receipt_answer(item: Mapping[str, Any]) -> ReceiptAnswer:
    if item["status"] >= 500:
        raise GateAway("memorygate", "could not store a receipt")
    if item["status"] >= 400:
        return ReceiptAnswer(item["code"], item.get("detail", ""), replayed=False, receipt_id="", stored_at="")
    return ReceiptAnswer(None, "", item["replayed"], item["receipt_id"], item["stored_at"])


def _obligation_state(item: Mapping[str, Any]) -> ObligationState:
    names = ("state", "custodian", "opened_by", "closed_by", "task_id", "root_task_id", "principal_ai")
    return ObligationState(item["obligation_id"], **{name: item.get(name) for name in names})


def _parts(receipts: Sequence[bytes]) -> Iterator[list[bytes]]:
    """As many at once as the ledger takes, by number and by bytes."""
    part: list[bytes] = []
    size = 0
    for receipt in receipts:
        if part and (len(part) == _BATCH_RECEIPTS or size + len(receipt) > _BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(receipt)
        size += len(receipt) + 1
    if part:
        yield part
