"""The load on InterroGate: tasks that begin and spawn, by clients that retry with an Idempotency-Key.

A life is one root task and its child: each is asked for until it is decided. Every fifth root asks for what its policy
denies, because a denial is a decision too. Beside the lives somebody checks without deciding, and strangers ask.
"""

import asyncio
import itertools
import json
from dataclasses import dataclass, field
from typing import Any

from tests.faults.history import BROKEN, HUNG, Operation
from tests.faults.load import FaultLoad
from tests.faults.wire import WireResponse
from tests.integration.memorygate.conftest import new_id
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal

from legivellum.identity import api_keys

EVALUATE = "/v1/evaluate"


@dataclass(slots=True)
class TaskLife:
    principal: LedgerPrincipal
    denied: bool
    root: str = field(default_factory=new_id)
    child: str = field(default_factory=new_id)
    decision: dict[str, Any] | None = None
    """Of the root."""
    done: bool = False


@dataclass(slots=True)
class AdmissionLoad(FaultLoad):
    rate: float = 15.0

    def life(self) -> TaskLife:
        number = next(self._number)
        made = TaskLife(self.principals[number % len(self.principals)], denied=number % 5 == 3)
        self.lives.append(made)
        return made

    async def step(self, life: TaskLife, *, settling: bool = False) -> bool:
        """One attempt at what is next in this life; whether it was decided."""
        if life.decision is None:
            envelope = root_envelope(life.principal, life.root, "mail.send" if life.denied else "doc.write")
            call = await self._evaluate(life.principal, life.root, envelope, settling=settling)
            life.decision = dict(call.answer) if call.acked else None
            life.done = life.decision is not None and life.denied
            return call.acked
        call = await self._evaluate(life.principal, life.child, child_envelope(life), settling=settling)
        life.done = call.acked
        return call.acked

    async def _evaluate(
        self, principal: LedgerPrincipal, key: str, envelope: dict[str, Any], *, settling: bool = False
    ) -> Any:
        headers = {**principal.headers, "Idempotency-Key": key}
        return await self._call(
            "evaluate",
            principal,
            key,
            EVALUATE,
            headers=headers,
            body=json.dumps(envelope).encode(),
            settling=settling,
        )

    async def _reads(self) -> None:
        for principal in itertools.cycle(self.principals):
            body = json.dumps(root_envelope(principal, new_id(), "doc.write")).encode()
            if not await self._side_call("check", principal, "", "/v1/check", principal.headers, body):
                return

    async def _strangers(self) -> None:
        """A key of nobody, no key, nonsense: never a decision."""
        principal = self.principals[0]
        good = json.dumps(root_envelope(principal, new_id(), "doc.write")).encode()
        strangers: list[tuple[str, dict[str, str], bytes]] = [
            ("unknown key", {"X-API-Key": api_keys.mint().key}, good),
            ("no key", {}, good),
            ("nonsense", principal.headers, b'{"tenant_id":7,"tenant_id":[]}'),
        ]
        for key, headers, body in itertools.cycle(strangers):
            if not await self._side_call("stranger", principal, key, EVALUATE, headers, body):
                return

    async def _side_call(
        self,
        operation: Operation,
        principal: LedgerPrincipal,
        key: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
    ) -> bool:
        """Whether to go on."""
        if self.stopping:
            return False
        await self._call(operation, principal, key, path, headers=headers, body=body)
        await asyncio.sleep(0.5)
        return True

    def understood(self, operation: Operation, principal: LedgerPrincipal, response: WireResponse) -> dict[str, Any]:
        """What the checker needs of an answer."""
        if response.status in {HUNG, BROKEN}:
            return dict(response.headers)
        body = response.json()
        if response.status == 503:
            return {"code": body.get("code"), "retry_after": int(response.headers.get("retry-after", 0))}
        if operation != "evaluate" or "outcome" not in body:
            return {"code": body.get("code")}
        kept = ("outcome", "receipt_id", "task_id", "root_task_id", "depth")
        replayed = response.headers.get("idempotency-replayed") == "true"
        return {**{name: body[name] for name in kept}, "replayed": replayed}


def root_envelope(principal: LedgerPrincipal, root: str, capability: str) -> dict[str, Any]:
    return {
        "tenant_id": str(principal.tenant),
        "surface_id": "public",
        "policy_profile_id": "strict",
        "payload_kind": "task",
        "payload": {"text": "hello"},
        "causality": {
            "root_task_id": root,
            "parent_task_id": None,
            "caused_by_receipt_id": None,
            "spawn_depth": 0,
            "capability_id": capability,
            "task_id": root,
        },
    }


def child_envelope(life: TaskLife) -> dict[str, Any]:
    assert life.decision is not None
    envelope = root_envelope(life.principal, life.root, "doc.write")
    below = {
        "parent_task_id": life.root,
        "caused_by_receipt_id": life.decision["receipt_id"],
        "spawn_depth": 1,
        "task_id": life.child,
    }
    return {**envelope, "causality": {**envelope["causality"], **below}}
