"""The load on AsyncGate: tasks that are parked, leased and returned, by clients that send again what was not answered.

A life is a task that a principal parks, and a lease of a task of the same mailbox, which a worker returns or escalates.
The worker takes whichever task comes first: workers of a tenant contend. A lease whose answer was lost is asked for with
the same Idempotency-Key; one that is over is answered `LEASE_LOST`, and the worker takes another task. Beside the lives
somebody reads the mailboxes, and strangers ask.
"""

import asyncio
import itertools
import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tests.faults.history import BROKEN, HUNG, Operation, RecordedCall
from tests.faults.load import FaultLoad
from tests.faults.wire import WireResponse
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal

from legivellum.identity import api_keys

TTL_SECONDS = 5
"""The shortest that may be asked for: longer faults outlast it."""
CLAIM = {"status": "success", "outcome_kind": "response_text", "outcome_text": "done"}
MINTER = "minter"


@dataclass(slots=True)
class WorkCycle:
    minter: LedgerPrincipal
    worker: LedgerPrincipal
    task_id: str
    escalates: bool
    parked: bool = False
    requests: int = 0
    """How many leases were asked for: the next has a new key when the last came to nothing."""
    lease_id: str | None = None
    done: bool = False


@dataclass(slots=True)
class TaskLoad(FaultLoad):
    rate: float = 10.0
    minted: dict[UUID, deque[str]] = field(default_factory=dict)
    """Obligations of each tenant that may be parked."""

    @property
    def mailbox(self) -> str:
        return self.prefix.lower().replace(" ", "-")

    def life(self) -> WorkCycle:
        number = next(self._number)
        minters = [principal for principal in self.principals if principal.name == MINTER]
        minter = minters[number % len(minters)]
        workers = [one for one in self.principals if one.tenant == minter.tenant and one is not minter]
        worker = workers[number // len(minters) % len(workers)]
        made = WorkCycle(minter, worker, self.minted[minter.tenant].popleft(), escalates=number % 7 == 3)
        self.lives.append(made)
        return made

    async def step(self, life: WorkCycle, *, settling: bool = False) -> bool:
        """One attempt at what is next in this life; whether it came on."""
        if not life.parked:
            life.parked = (await self._enqueue(life, settling=settling)).acked
            return life.parked
        if life.lease_id is None:
            call = await self._lease(life, settling=settling)
            if call.acked:
                life.lease_id = call.answer["leases"][0]["lease_id"] if call.answer["leases"] else None
                life.requests += life.lease_id is None
            return life.lease_id is not None
        call = await self._end(life, settling=settling)
        life.done = call.acked
        if call.status == 409:
            life.lease_id = None
            life.requests += 1
        return call.acked

    async def _enqueue(self, life: WorkCycle, *, settling: bool) -> RecordedCall:
        return await self._post(
            "enqueue", life.minter, life.task_id, "/tasks", task_of(life.task_id, self.mailbox), settling=settling
        )

    async def _lease(self, life: WorkCycle, *, settling: bool) -> RecordedCall:
        key = f"{life.task_id}-{life.requests}"
        body = {"capabilities": [self.mailbox], "ttl_seconds": TTL_SECONDS}
        return await self._post(
            "lease", life.worker, key, "/lease", body, settling=settling, headers={"Idempotency-Key": key}
        )

    async def _end(self, life: WorkCycle, *, settling: bool) -> RecordedCall:
        lease: dict[str, Any] = {"lease_id": life.lease_id}
        if life.escalates:
            reason = {"escalation_class": "other", "escalation_reason": "cannot"}
            return await self._post(
                "escalate", life.worker, str(life.lease_id), "/escalate", {**lease, **reason}, settling=settling
            )
        return await self._post(
            "complete", life.worker, str(life.lease_id), "/complete", {**lease, **CLAIM}, settling=settling
        )

    async def _post(
        self,
        operation: Operation,
        principal: LedgerPrincipal,
        key: str,
        path: str,
        body: dict[str, Any],
        *,
        settling: bool = False,
        headers: dict[str, str] | None = None,
    ) -> RecordedCall:
        return await self._call(
            operation,
            principal,
            key,
            path,
            headers={**principal.headers, **(headers or {})},
            body=json.dumps(body).encode(),
            settling=settling,
        )

    async def _reads(self) -> None:
        for principal in itertools.cycle(self.principals):
            if self.stopping:
                return
            await self._call("depth", principal, "", "/queue/depth", headers=principal.headers)
            await asyncio.sleep(0.5)

    async def _strangers(self) -> None:
        """A key of nobody, no key, a minter that leases, nonsense: never a lease."""
        minter = next(principal for principal in self.principals if principal.name == MINTER)
        good = json.dumps({"capabilities": [self.mailbox]}).encode()
        strangers: list[tuple[str, dict[str, str], bytes]] = [
            ("unknown key", {"X-API-Key": api_keys.mint().key}, good),
            ("no key", {}, good),
            ("minter", minter.headers, good),
            ("nonsense", self.principals[-1].headers, b'{"capabilities":7,"capabilities":[]}'),
        ]
        for key, headers, body in itertools.cycle(strangers):
            if self.stopping:
                return
            await self._call("stranger", minter, key, "/lease", headers=headers, body=body)
            await asyncio.sleep(0.5)

    def understood(self, operation: Operation, principal: LedgerPrincipal, response: WireResponse) -> dict[str, Any]:
        """What the checker needs of an answer."""
        if response.status in {HUNG, BROKEN}:
            return dict(response.headers)
        body = response.json()
        if response.status == 503:
            return {"code": body.get("code"), "retry_after": int(response.headers.get("retry-after", 0))}
        replayed = response.headers.get("idempotency-replayed") == "true"
        if "leases" in body:
            return {"leases": [_lease_of(lease) for lease in body["leases"]], "replayed": False}
        kept = ("task_id", "receipt_id", "accepted_receipt_id", "code")
        return {**{name: body[name] for name in kept if name in body}, "replayed": replayed}


def _lease_of(lease: dict[str, Any]) -> dict[str, Any]:
    return {"lease_id": lease["lease_id"], "number": lease["number"], "task_id": lease["task"]["task_id"]}


def task_of(task_id: str, capability: str) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "principal_ai": MINTER,
        "payload_pointer": f"s3://jobs/{task_id}",
        "capability": capability,
    }
