"""The load: 50 requests a second of bootstrap, ready and failed by clients that retry with an Idempotency-Key.

A life is one component that starts: it boots until it is answered, then reports READY (or FAILED) until that is
answered. Its component key is its own, so that what is stored can be matched with it. Beside the lives somebody reads
the tenant's list, and strangers ask what nobody may.
"""

import asyncio
import itertools
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.faults.history import BROKEN, HUNG, Operation, RecordedCall
from tests.faults.wire import KeptConnections, WireResponse
from tests.integration.api.gate_fixture import PrincipalFixture

from legivellum.identity import api_keys
from metagate_crds.canonical_json import canonical, digest
from metagate_crds.packet import SHARED_FIELDS

MOST_LIVES = 600


def client_of(principal: PrincipalFixture) -> str:
    return f"{principal.tenant}/{principal.name}"


def backing_off(attempt: int) -> float:
    """Seconds until the next attempt: doubling, with jitter, a second and a half at most."""
    return min(1.0, 0.1 * 2**attempt) * random.uniform(0.5, 1.5)


def at_once(attempt: int) -> float:
    """What nobody should do (F24)."""
    return 0.0


@dataclass(slots=True)
class BootCycle:
    principal: PrincipalFixture
    key: str
    report: Operation
    startup: str | None = None
    done: bool = False


@dataclass(slots=True)
class FaultLoad:
    """Calls `made` are in the order of their ends."""

    line: KeptConnections
    principals: list[PrincipalFixture]
    prefix: str
    pause: Callable[[int], float] = backing_off
    keep: bool = True
    """Connections are kept; else each request has a fresh one."""
    rate: float = 25.0
    made: list[RecordedCall] = field(default_factory=list)
    lives: list[BootCycle] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    stopping: bool = False
    held: bool = False
    """Nobody asks anything: everybody is suspended."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _number: Any = field(default_factory=itertools.count)

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    # ── driving ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        for driving in (self._births(), self._reads(), self._strangers()):
            self._own(driving)

    async def stop(self) -> None:
        """No new lives and no further attempts; what is in flight is waited for."""
        self.stopping = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def settle(self) -> None:
        """Ask again for everything that nobody answered."""
        for life in self.lives:
            for _ in range(20):
                if life.done:
                    break
                await self.step(life, settling=True)

    def life(self) -> BootCycle:
        number = next(self._number)
        report: Operation = "failed" if number % 7 == 3 else "ready"
        made = BootCycle(self.principals[number % len(self.principals)], f"{self.prefix}-{number}", report)
        self.lives.append(made)
        return made

    def _own(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _births(self) -> None:
        due = time.monotonic()
        while not self.stopping:
            if not self.held and len(self._tasks) < MOST_LIVES:
                self._own(self.live(self.life()))
            due += 1 / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - 0.2)  # after a stall of ours the past is not made up for

    async def live(self, life: BootCycle) -> None:
        """Until it is told, or the load stops."""
        attempt = 0
        while not life.done and not self.stopping:
            while self.held:
                await asyncio.sleep(0.02)
            attempt = 0 if await self.step(life) else attempt + 1
            if attempt:
                await asyncio.sleep(self.pause(attempt - 1))

    async def step(self, life: BootCycle, *, settling: bool = False) -> bool:
        """One attempt at what is next in this life; whether it succeeded."""
        if life.startup is None:
            call = await self._boot(life, settling=settling)
            if call.acked:
                life.startup = call.answer["startup_id"]
            return call.acked
        call = await self._report(life, settling=settling)
        life.done = call.acked or call.status in {404, 409}
        return life.done

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _boot(self, life: BootCycle, *, settling: bool) -> RecordedCall:
        body = json.dumps({"component_key": life.key}).encode()
        headers = {**life.principal.by_key, "Idempotency-Key": life.key}
        return await self._call(
            "bootstrap", life.principal, life.key, "/v1/bootstrap", headers=headers, body=body, settling=settling
        )

    async def _report(self, life: BootCycle, *, settling: bool) -> RecordedCall:
        output = {"error": "no disk"} if life.report == "failed" else {"build_version": "1.2.3"}
        body = json.dumps({"startup_id": life.startup, **output}).encode()
        path = f"/v1/startup/{life.report}"
        key = life.startup or ""
        return await self._call(
            life.report, life.principal, key, path, headers=life.principal.by_key, body=body, settling=settling
        )

    async def _reads(self) -> None:
        for principal in itertools.cycle(self.principals):
            if self.stopping:
                return
            while self.held:
                await asyncio.sleep(0.02)
            await self._call("list", principal, "", "/v1/startups?limit=20", headers=principal.by_key)
            await asyncio.sleep(0.5)

    async def _strangers(self) -> None:
        """A key of nobody, no key, somebody else's name, nonsense: never an answer that somebody may have."""
        principal, other = self.principals[0], self.principals[-1]
        good = b'{"component_key":"stranger"}'
        for key, headers, body in itertools.cycle(
            [
                ("unknown key", {"X-API-Key": api_keys.mint().key}, good),
                ("no key", {}, good),
                (
                    "other name",
                    principal.by_key,
                    json.dumps({"component_key": "c", "principal_key": "somebody"}).encode(),
                ),
                ("nonsense", other.by_key, b'{"component_key":7,"component_key":[]}'),
            ]
        ):
            if self.stopping:
                return
            while self.held:
                await asyncio.sleep(0.02)
            await self._call("stranger", principal, key, "/v1/bootstrap", headers=headers, body=body)
            await asyncio.sleep(0.5)

    async def _call(
        self,
        operation: Operation,
        principal: PrincipalFixture,
        key: str,
        path: str,
        *,
        headers: dict[str, str],
        body: bytes | None = None,
        settling: bool = False,
    ) -> RecordedCall:
        start = self.now
        response = await self.line.ask(
            "GET" if body is None else "POST", path, headers=headers, body=body, keep=self.keep
        )
        call = RecordedCall(
            operation,
            client_of(principal),
            key,
            start,
            self.now,
            response.status,
            self.understood(operation, principal, response),
            settling=settling,
        )
        self.made.append(call)
        return call

    def understood(self, operation: Operation, principal: PrincipalFixture, response: WireResponse) -> dict[str, Any]:
        """What the checker needs of an answer."""
        return understood(operation, principal, response)


def understood(operation: Operation, principal: PrincipalFixture, response: WireResponse) -> dict[str, Any]:
    """What the checker needs of an answer."""
    if response.status in {HUNG, BROKEN}:
        return dict(response.headers)
    body = response.json()
    if response.status == 503:
        return {"code": body.get("code"), "retry_after": int(response.headers.get("retry-after", 0))}
    if response.status != 200:
        return {"code": body.get("code")}
    if operation == "list":
        return {
            "tenants": sorted({item["tenant"] for item in body["items"]}),
            "startups": [item["startup_id"] for item in body["items"]],
        }
    if operation == "bootstrap":
        return _packet(principal, body, response)
    return {key: body[key] for key in ("startup_id", "acknowledged_at", "late") if key in body}


def _packet(principal: PrincipalFixture, packet: dict[str, Any], response: WireResponse) -> dict[str, Any]:
    snapshot = packet["snapshot"]
    same = packet["principal_key"] == principal.name
    return {
        "startup_id": packet["startup"]["startup_id"],
        "deadline_at": packet["startup"]["deadline_at"],
        "digest": snapshot["digest"],
        "revision": snapshot["revision"],
        "compiled_at": datetime.fromisoformat(snapshot["compiled_at"]).timestamp(),
        "replayed": response.headers.get("idempotency-replayed") == "true",
        "whole": digest(canonical({name: packet[name] for name in SHARED_FIELDS})) == snapshot["digest"],
        "marks": [
            packet["environment"]["edition"],
            packet["capabilities"]["edition"],
            int(packet["services"]["memorygate"]["endpoint"].rpartition("-")[2]),
        ],
        "tenants": [packet["environment"]["tenant"] if same else packet["principal_key"]],
    }
