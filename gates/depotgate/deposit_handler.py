"""POST /artifacts: bytes first; then row and receipt, one commit (DP-03).

What can be refused is refused before the body is asked for, so a client that waits for `100 Continue` sends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ulid import ULID

from depotgate import rendering
from depotgate.artifact import Artifact, Deposit, Upload
from depotgate.blobs import StoreError, StoreFull
from depotgate.deposit_requests import DepositHead, read_head
from depotgate.deposit_rules import DepositRefusal, may_deposit, within_lease
from depotgate.depot_gate import DepotGate
from depotgate.metrics import DEPOSITS, ORPHANS
from depotgate.outcomes import StoreResult
from depotgate.problem_codes import Code
from depotgate.receipt_forms import InvalidDeposit
from depotgate.transfers import now
from depotgate.uploading import Received, receive
from legivellum.gate.event_stream import run_while_allowed
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.problem_codes import ProblemCode
from legivellum.http.problems import RequestRefused, refuse
from legivellum.identity.caller import Caller

_REPLAYED: Final = (b"idempotency-replayed", b"true")
_CODES: Final[Mapping[str, ProblemCode]] = {
    "ROLE_NOT_PERMITTED": Code.ROLE_NOT_PERMITTED,
    "LEASE_REQUIRED": Code.LEASE_REQUIRED,
    "LEASE_LOST": Code.LEASE_LOST,
    "LEASE_AUTHORITY": Code.LEASE_AUTHORITY,
    "ARTIFACT_CONFLICT": Code.ARTIFACT_CONFLICT,
    "CAUSE_UNKNOWN": Code.CAUSE_UNKNOWN,
}
_DETAILS: Final[Mapping[str, str]] = {
    "LEASE_LOST": "The lease ended before the artifact was stored.",
    "ARTIFACT_CONFLICT": "artifact_id: another content was stored under it.",
    "CAUSE_UNKNOWN": "caused_by_receipt_id: it is no receipt of task_id.",
}


class DepositHandler:
    def __init__(self, gate: DepotGate) -> None:
        self._gate = gate

    async def __call__(self, exchange: Exchange) -> Response:
        try:
            response, outcome = await self._deposit(exchange)
        except RequestRefused as refused:
            DEPOSITS.labels(refused.problem.code.name).inc()
            raise
        DEPOSITS.labels(outcome).inc()
        return response

    async def _deposit(self, exchange: Exchange) -> tuple[Response, str]:
        gate = self._gate
        caller = await gate.process.authenticator.caller(exchange)
        head = read_head(exchange, limit=gate.settings.max_bytes)
        deposit = await self._judged(head, caller)
        with gate.uploads.taken():
            key = f"{caller.tenant}/{ULID()}"
            received = await self._received(exchange, key, head, caller)
            stored = await self._stored(exchange, Upload(deposit, key, received.sha256, received.size_bytes))
        return self._answer(stored, key), stored.name

    async def _judged(self, head: DepositHead, caller: Caller) -> Deposit:
        required = self._gate.settings.leases == "required"
        _allow(may_deposit(caller.type, head.role, leased=head.lease_id is not None, lease_required=required))
        task_id = head.task_id
        if head.lease_id is not None:
            lease = await self._gate.process.database.live_lease(caller.tenant, head.lease_id, caller.principal_key)
            earlier = await self._earlier(head, caller) if lease is None else None
            if earlier is None:
                _allow(within_lease(lease, head.role, head.task_id))
            known = lease or earlier
            task_id = head.task_id or (None if known is None else known.task_id)
        return Deposit(
            tenant=caller.tenant,
            depositor=caller.principal_key,
            role=head.role,
            media_type=head.media_type,
            task_id=task_id,
            caused_by_receipt_id=head.caused_by_receipt_id,
            # Chosen here: a statement that is run again, because its answer was lost, finds what it stored.
            artifact_id=head.artifact_id or str(ULID()),
            name=head.name,
            lease_id=head.lease_id,
        )

    async def _earlier(self, head: DepositHead, caller: Caller) -> Artifact | None:
        """What this caller stored under the same id. Whoever lost the answer may ask again when the lease is over: the
        statement compares the content and stores nothing.
        """
        if head.artifact_id is None:
            return None
        artifact = await self._gate.process.database.artifact_of_id(caller.tenant, head.artifact_id)
        return artifact if artifact is not None and artifact.depositor == caller.principal_key else None

    async def _received(self, exchange: Exchange, key: str, head: DepositHead, caller: Caller) -> Received:
        """A long upload rests on its credential like any answer that lasts (D-67)."""
        gate = self._gate
        results: list[Received] = []

        async def take() -> None:
            received = await receive(exchange, gate.blobs, key, limit=gate.settings.max_bytes, digests=head.digests)
            results.append(received)

        async def is_allowed() -> bool:
            return await gate.process.authenticator.current(exchange, caller) is not None

        try:
            if await run_while_allowed(take(), is_allowed):
                return results[0]
            await self._remove(key)
            raise refuse(Code.CREDENTIAL_REVOKED, "The credential ended while the bytes were sent.")
        except StoreFull as error:
            raise refuse(Code.STORE_FULL, f"Nothing was stored: {error}.") from error
        except StoreError as error:
            raise refuse(Code.UNAVAILABLE, f"Nothing was stored: {error}.") from error

    async def _stored(self, exchange: Exchange, upload: Upload) -> StoreResult:
        """Row and receipt. The answer's time begins when the bytes are durable."""
        try:
            stored = await self._gate.deposits.submit(upload, now() + exchange.seconds)
        except InvalidDeposit as error:
            await self._remove(upload.key)
            raise refuse(Code.INVALID_REQUEST, f"{error}.") from error
        except Exception:
            # Perhaps it was committed: bytes that a row has may not be removed. `sweep` finds those that none has.
            ORPHANS.inc()
            raise
        if stored.artifact is None or stored.artifact.key != upload.key:
            await self._remove(upload.key)
        return stored

    async def _remove(self, key: str) -> None:
        try:
            await self._gate.blobs.remove(key)
        except StoreError:
            ORPHANS.inc()

    def _answer(self, stored: StoreResult, key: str) -> Response:
        artifact = stored.artifact
        if artifact is None:
            raise _refusal(stored)
        if artifact.state == "retired":
            raise refuse(Code.ARTIFACT_RETIRED, "artifact_id: the artifact was stored before, and is retired.")
        body = rendering.deposited(artifact, self._gate.settings.public_url)
        if stored.name == "REPLAYED" and artifact.key != key:
            return json_response(200, body, _REPLAYED)
        return json_response(201, body, _location(artifact))


def _allow(refusal: DepositRefusal | None) -> None:
    if refusal is not None:
        raise refuse(_CODES[refusal.code], f"{refusal.detail[:1].upper()}{refusal.detail[1:]}.")


def _refusal(stored: StoreResult) -> RequestRefused:
    if stored.name == "REFUSED":
        return refuse(Code.INTERNAL_ERROR, f"The ledger refused the receipt: {stored.detail}.")
    return refuse(_CODES[stored.name], _DETAILS[stored.name])


def _location(artifact: Artifact) -> tuple[bytes, bytes]:
    return b"location", f"/artifacts/{artifact.pointer}".encode()
