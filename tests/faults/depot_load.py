"""The load on DepotGate: artifacts that are deposited and read, by clients that send again what was not answered.

A life is one artifact: a principal deposits it under an id of its own until it is answered, then reads it whole. Beside
the lives somebody lists artifacts, and strangers deposit what nobody may.
"""

import asyncio
import hashlib
import itertools
from dataclasses import dataclass
from typing import Any

from tests.faults.history import BROKEN, HUNG, Operation, RecordedCall
from tests.faults.load import FaultLoad
from tests.faults.wire import WireResponse
from tests.integration.memorygate.conftest import new_id
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal

from legivellum.identity import api_keys

SIZE = 8192


@dataclass(slots=True)
class DepositCycle:
    depositor: LedgerPrincipal
    artifact_id: str
    content: bytes
    pointer: str | None = None
    done: bool = False


@dataclass(slots=True)
class DepotLoad(FaultLoad):
    rate: float = 10.0

    def life(self) -> DepositCycle:
        number = next(self._number)
        depositors = [principal for principal in self.principals if principal.type == "principal"]
        artifact_id = new_id()
        made = DepositCycle(depositors[number % len(depositors)], artifact_id, content_of(artifact_id))
        self.lives.append(made)
        return made

    async def step(self, life: DepositCycle, *, settling: bool = False) -> bool:
        """One attempt at what is next in this life; whether it came on."""
        if life.pointer is None:
            call = await self._deposit(life, settling=settling)
            life.pointer = call.answer["pointer"] if call.acked else None
            return call.acked
        call = await self._call(
            "read", life.depositor, life.artifact_id, f"/artifacts/{life.pointer}", headers=life.depositor.headers,
            settling=settling,
        )  # fmt: skip
        life.done = call.acked
        return call.acked

    async def _deposit(self, life: DepositCycle, *, settling: bool) -> RecordedCall:
        path = f"/artifacts?role=input&artifact_id={life.artifact_id}&name={self.prefix.replace(' ', '-')}"
        return await self._call(
            "deposit", life.depositor, life.artifact_id, path, headers=life.depositor.headers, body=life.content,
            settling=settling,
        )  # fmt: skip

    async def _reads(self) -> None:
        for principal in itertools.cycle(self.principals):
            if self.stopping:
                return
            await self._call("manifests", principal, "", "/artifacts?limit=5", headers=principal.headers)
            await asyncio.sleep(0.5)

    async def _strangers(self) -> None:
        """A key of nobody, no key, a type that only reads, a role that is none: never an artifact."""
        observer = next(principal for principal in self.principals if principal.type == "observer")
        depositor = next(principal for principal in self.principals if principal.type == "principal")
        strangers: list[tuple[str, dict[str, str], str]] = [
            ("unknown key", {"X-API-Key": api_keys.mint().key}, "input"),
            ("no key", {}, "input"),
            ("observer", observer.headers, "input"),
            ("nonsense", depositor.headers, "secret"),
        ]
        for key, headers, role in itertools.cycle(strangers):
            if self.stopping:
                return
            path = f"/artifacts?role={role}"
            await self._call("stranger", observer, key, path, headers=headers, body=b"of a stranger")
            await asyncio.sleep(0.5)

    def understood(self, operation: Operation, principal: LedgerPrincipal, response: WireResponse) -> dict[str, Any]:
        """What the checker needs of an answer."""
        if response.status in {HUNG, BROKEN}:
            return dict(response.headers)
        if operation == "read" and response.status == 200:
            return {"sha256": hashlib.sha256(response.body).hexdigest()}
        body = response.json()
        if response.status == 503:
            return {"code": body.get("code"), "retry_after": int(response.headers.get("retry-after", 0))}
        if "items" in body:
            return {"pointers": [item["pointer"] for item in body["items"]]}
        replayed = response.headers.get("idempotency-replayed") == "true"
        kept = ("pointer", "receipt_id", "artifact_id", "sha256", "code")
        return {**{name: body[name] for name in kept if name in body}, "replayed": replayed}


def content_of(artifact_id: str) -> bytes:
    """Bytes that only this artifact has."""
    return (artifact_id.encode() * (SIZE // len(artifact_id) + 1))[:SIZE]
