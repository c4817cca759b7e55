"""POST /tasks, /tasks/batch and /tasks/{id}/revoke: what a minter asks.

The order of refusals is D-42's: credential, body, permission, custody. The first three need no database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from asyncgate import metrics, rendering
from asyncgate.admissions import read_admissions
from asyncgate.batch_items import Item, answered_items, refused_item
from asyncgate.broker_gate import ENQUEUING_TYPES, BrokerGate, require_type
from asyncgate.lease import Revocation, RevokeRequest
from asyncgate.outcomes import ParkOutcome, RevokeOutcome, VerbOutcome
from asyncgate.problem_codes import Code
from asyncgate.request_bodies import RevokeBody, TaskBatchBody, read_body
from asyncgate.task import ParkedTask, Parking, ParkingBatch, Task, TaskAdmission
from asyncgate.task_parser import authority_of, parse_task
from legivellum.http import strict_json
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.problem_codes import ProblemCode
from legivellum.http.problems import RequestRefused, refuse
from legivellum.identity.caller import Caller
from legivellum.identity.request_authenticator import require_caller
from metagate_crds.authority import exceeded

_REPLAYED: Final = (b"idempotency-replayed", b"true")
_REFUSALS: Final[Mapping[str, tuple[ProblemCode, str]]] = {
    "TASK_CONFLICT": (Code.TASK_CONFLICT, "task_id: another task has this id."),
    "TASK_MISMATCH": (Code.TASK_MISMATCH, "obligation_id: it belongs to another task."),
    "EMITTER_MISMATCH": (Code.EMITTER_MISMATCH, "principal_ai: the obligation belongs to another principal."),
    "NOT_CUSTODIAN": (Code.NOT_CUSTODIAN, "obligation_id: svc:asyncgate does not have custody of it."),
    "OBLIGATION_NOT_ACCEPTED": (Code.OBLIGATION_NOT_ACCEPTED, "Nobody has opened it"),
    "OBLIGATION_ALREADY_TERMINATED": (Code.OBLIGATION_ALREADY_TERMINATED, "obligation_id: it is over."),
    "ADMISSION_USED": (Code.ADMISSION_USED, "Legivellum-Admission: it has admitted another task."),
    "TOO_MANY_WAIT": (Code.TOO_MANY_WAIT, "Too many tasks wait for it"),
    "GROUP_REFUSED": (Code.GROUP_REFUSED, "Another task of the batch was refused."),
}
_BATCH_KEYS: Final = 256 * 200


class JudgedTask(NamedTuple):
    """A task that was judged without the database. `admission`: the receipt id that came beside it."""

    task: Task
    minter: str
    sent: Mapping[str, Any]
    admission: str | None


class TaskHandlers:
    def __init__(self, gate: BrokerGate) -> None:
        self._gate = gate

    async def enqueue(self, exchange: Exchange) -> Response:
        caller = await self._gate.process.authenticator.authenticate(exchange)
        exchange.require_json()
        sent = strict_json.parse_object(await exchange.body())
        admission = exchange.header(b"legivellum-admission")
        text = None if admission is None else admission.decode("latin-1")
        [parking] = await self._admitted([self._judged(sent, text, require_caller(caller))])
        if isinstance(parking, RequestRefused):
            raise parking
        [outcome] = await self._gate.verbs.enqueue.submit(ParkingBatch((parking,)), exchange.deadline)
        self._count(outcome)
        task = _parked_or_refused(outcome)
        body = strict_json.encode(rendering.parked(task))
        if outcome.name == "REPLAYED":
            return json_response(200, body, _REPLAYED)
        return json_response(201, body, (b"location", b"/tasks/" + task.task_id.encode()))

    async def enqueue_batch(self, exchange: Exchange) -> Response:
        speaker = await self._gate.process.authenticator.authenticate(exchange)
        exchange.require_json()
        batch = read_body(TaskBatchBody, strict_json.parse(await exchange.body(), max_keys=_BATCH_KEYS))
        caller = require_caller(speaker)
        require_type(caller, ENQUEUING_TYPES, "enqueue")
        self._gate.process.authenticator.charge_batch(caller, len(batch.items))
        answers: list[Item | BaseException] = [{}] * len(batch.items)
        judged: list[tuple[int, JudgedTask]] = []
        parkings: list[tuple[int, Parking]] = []
        for place, item in enumerate(batch.items):
            try:
                admission = None if batch.check else item.admission
                judged.append((place, self._judged(item.task, admission, caller, check=batch.check)))
            except RequestRefused as refused:
                answers[place] = refused_item(refused.problem.code, refused.problem.detail)
        admitted = await self._admitted([task for _, task in judged])
        for (place, _), parking in zip(judged, admitted, strict=True):
            if isinstance(parking, RequestRefused):
                answers[place] = refused_item(parking.problem.code, parking.problem.detail)
            else:
                parkings.append((place, parking))
        if batch.check:
            for place, parking in parkings:
                answers[place] = {"status": 200, "task_id": parking.task.task_id}
        elif batch.all_or_none and len(parkings) < len(batch.items):
            for place, _ in parkings:
                answers[place] = refused_item(*_REFUSALS["GROUP_REFUSED"])
        elif parkings:
            outcomes = await self._parked(parkings, exchange, all_or_none=batch.all_or_none)
            for (place, _), outcome in zip(parkings, outcomes, strict=True):
                self._count(outcome)
                answers[place] = _item(outcome)
        return json_response(200, strict_json.encode({"items": answered_items(answers)}))

    async def revoke(self, exchange: Exchange) -> Response:
        speaker = await self._gate.process.authenticator.authenticate(exchange)
        exchange.require_json()
        body = read_body(RevokeBody, strict_json.parse(await exchange.body()))
        caller = require_caller(speaker)
        task_id = exchange.path_parameters["task_id"]
        row = await self._gate.process.database.owner_of(caller.tenant, task_id)
        if row is None:
            raise refuse(Code.NOT_FOUND, "There is no such task here.")
        if caller.type != "admin" and caller.principal_key not in {row.principal_ai, row.minter}:
            raise refuse(Code.ROLE_REQUIRED, "Only its principal, who enqueued it, or an admin revokes a task.")
        request = RevokeRequest(
            caller.tenant, task_id, caller.principal_key, whole_task=body.what == "task", reason=body.reason
        )
        outcome = await self._gate.verbs.revoke.submit(request, exchange.deadline)
        if outcome.name == "TASK_NOT_FOUND":
            raise refuse(Code.NOT_FOUND, "There is no such task here.")
        if outcome.name == "TASK_ENDED":
            raise refuse(Code.TASK_ENDED, "The task is over, and was not revoked.")
        if outcome.value is None:
            raise refused_by_ledger(outcome.detail)
        if outcome.name == "REVOKED":
            _count_revocation(request, outcome)
            self._gate.waiting.wake()
        return json_response(200, strict_json.encode(rendering.revocation(outcome.value)))

    def _judged(
        self, sent: Mapping[str, Any], admission: str | None, caller: Caller, *, check: bool = False
    ) -> JudgedTask:
        """A task that may be stored, as far as can be known without the database. Raises the refusals of D-42."""
        task = parse_task(sent, caller, self._gate.settings)
        require_type(caller, ENQUEUING_TYPES, "enqueue")
        if caller.type == "principal" and task.principal_ai != caller.principal_key:
            raise refuse(Code.EMITTER_MISMATCH, "principal_ai: a principal enqueues its own tasks, a delegate others'.")
        authority = authority_of(task, sent)
        beyond = authority and exceeded(authority, self._gate.ceilings.of(caller.namespace))
        if beyond:
            raise refuse(Code.AUTHORITY_EXCEEDED, f"authority.{beyond}: is beyond what this namespace may give.")
        for name in task.escalation_to:
            if name != task.principal_ai and not self._gate.is_recipient(caller, name):
                raise refuse(Code.RECIPIENT_UNKNOWN, "escalation_to: must name principals of this tenant, or gates.")
        if admission is None and not check and self._gate.requires_admission(caller.namespace):
            raise refuse(Code.ADMISSION_REQUIRED, "Legivellum-Admission: tasks of this namespace need one.")
        return JudgedTask(task, caller.principal_key, sent, admission)

    async def _admitted(self, judged: Sequence[JudgedTask]) -> list[Parking | RequestRefused]:
        """Each with its admission, where it names one. One look-up for all."""
        named = [(task.admission, task.task, task.sent) for task in judged if task.admission is not None]
        tenant = judged[0].task.tenant if judged else UUID(int=0)
        admissions = iter(await read_admissions(self._gate.process.database, tenant, named))
        return [
            Parking(task.task, task.minter) if task.admission is None else _with_admission(task, next(admissions))
            for task in judged
        ]

    async def _parked(
        self, parkings: list[tuple[int, Parking]], exchange: Exchange, *, all_or_none: bool
    ) -> list[VerbOutcome[ParkOutcome, ParkedTask]]:
        batch = ParkingBatch(tuple(parking for _, parking in parkings), all_or_none=all_or_none)
        return await self._gate.verbs.enqueue_batch.submit(batch, exchange.deadline)

    def _count(self, outcome: VerbOutcome[ParkOutcome, ParkedTask]) -> None:
        metrics.HANDOFFS.labels(outcome.name).inc()
        if outcome.name == "PARKED":
            self._gate.waiting.wake()


def _count_revocation(request: RevokeRequest, outcome: VerbOutcome[RevokeOutcome, Revocation]) -> None:
    if request.whole_task:
        metrics.ENDED.labels("revoked").inc()
        return
    live = outcome.value is not None and outcome.value.lease_ended
    metrics.LEASES.labels("expired").inc(int(bool(outcome.detail) and not live))
    metrics.ENDED.labels("escalated").inc(int(outcome.detail == "ESCALATED"))


def _with_admission(judged: JudgedTask, admission: TaskAdmission | RequestRefused) -> Parking | RequestRefused:
    if isinstance(admission, RequestRefused):
        return admission
    return Parking(judged.task, judged.minter, admission)


def refused_by_ledger(detail: str) -> Exception:
    """A receipt of this gate that the ledger refused: a defect of the gate, and nothing happened."""
    metrics.REFUSED.inc()
    return RuntimeError(f"the ledger refused a receipt of AsyncGate: {detail}")


def _refusal(outcome: VerbOutcome[Any, Any]) -> tuple[ProblemCode, str]:
    code, detail = _REFUSALS[outcome.name]
    return code, detail if detail.endswith(".") else f"{detail}: {outcome.detail}."


def _parked_or_refused(outcome: VerbOutcome[ParkOutcome, ParkedTask]) -> ParkedTask:
    if outcome.value is not None:
        return outcome.value
    if outcome.name in _REFUSALS:
        raise refuse(*_refusal(outcome))
    raise refused_by_ledger(outcome.detail)


def _item(outcome: VerbOutcome[ParkOutcome, ParkedTask]) -> Item | BaseException:
    if outcome.value is not None:
        return {"status": 200 if outcome.name == "REPLAYED" else 201, **rendering.parked(outcome.value)}
    if outcome.name in _REFUSALS:
        return refused_item(*_refusal(outcome))
    return refused_by_ledger(outcome.detail)
