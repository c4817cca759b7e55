"""What follows an admission: its targets are called, and what became of them is stored (IG-09)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from interrogate import metrics
from interrogate.admission_token import AdmissionTokens
from interrogate.database import InterrogateDatabase
from interrogate.escalation import ForwardedAdmission, escalation_receipt
from interrogate.forwarding import ForwardRequest, ForwardResult, TargetClient, header_value
from interrogate.forwards import ForwardRow, ForwardSettlement, SettledForwards
from interrogate.ruleset import TargetRule
from interrogate.targets import TargetHosts
from legivellum.http.batching import Batcher
from legivellum.postgres.errors import Unavailable


@dataclass(frozen=True, slots=True)
class AdmittedRequest:
    """An admitted request on its way to its targets."""

    tenant: UUID
    namespace: str
    principal_key: str
    root_task_id: str | None
    depth: int | None
    budget_remaining: int | None
    payload: bytes
    payload_sha256: str
    about: ForwardedAdmission
    targets: Sequence[TargetRule]


class AdmissionForwarder:
    """One per process. A forward that has begun runs to its end, whether its caller still waits or not."""

    def __init__(
        self,
        client: TargetClient,
        hosts: TargetHosts,
        tokens: AdmissionTokens | None,
        database: Callable[[], InterrogateDatabase],
        *,
        forward_seconds: float,
        settle_seconds: float,
    ) -> None:
        self._client = client
        self._hosts = hosts
        self._tokens = tokens
        self._database = database
        self._forward_seconds = forward_seconds
        self._settle_seconds = settle_seconds
        self._settling: Batcher[ForwardSettlement, SettledForwards] = Batcher(self._settle, name="settle forwards")
        self._running: dict[tuple[UUID, str], asyncio.Task[SettledForwards]] = {}

    async def forward(self, admission: AdmittedRequest) -> SettledForwards:
        """What became of each target. A second caller of the same admission waits for the first one's result.

        Raises Unavailable, DeadlineExceeded where that could not be stored: the rows stay pending.
        """
        key = (admission.tenant, admission.about.receipt_id)
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._forward(admission), name="forward an admission")
            self._running[key] = task
            task.add_done_callback(lambda _done: self._running.pop(key, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Let what has begun end; the process is given some seconds for it."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await self._client.close()

    async def _forward(self, admission: AdmittedRequest) -> SettledForwards:
        requests = [self._request(admission, target) for target in admission.targets]
        results = await self._client.deliver_all(requests, admission.payload)
        for result in results:
            metrics.FORWARDS.labels(result.state, result.reason or "").inc()
        return await self.settle(admission.tenant, admission.about, results)

    async def settle(
        self, tenant: UUID, about: ForwardedAdmission, results: Sequence[ForwardResult]
    ) -> SettledForwards:
        """Store what became of targets, with an escalate receipt where one failed. Raises Unavailable."""
        failed = any(result.state == "failed" for result in results)
        settlement = ForwardSettlement(
            tenant=tenant,
            receipt_id=about.receipt_id,
            results=tuple(_row(result) for result in results),
            escalation=escalation_receipt(about, results) if failed else None,
        )
        deadline = asyncio.get_running_loop().time() + self._settle_seconds
        settled = await self._settling.submit(settlement, deadline)
        if settled.refusal is not None:
            raise Unavailable(f"an escalation was refused: {settled.refusal}")
        return settled

    async def _settle(self, settlements: Sequence[ForwardSettlement]) -> list[SettledForwards]:
        return await self._database().settle_forwards(settlements)

    def _request(self, admission: AdmittedRequest, target: TargetRule) -> ForwardRequest:
        seconds = self._forward_seconds
        if target.timeout_ms is not None:
            seconds = min(seconds, target.timeout_ms / 1_000)
        return ForwardRequest(
            target.name, self._hosts.resolve(target.url, admission.namespace), self._headers(admission, target), seconds
        )

    def _headers(self, admission: AdmittedRequest, target: TargetRule) -> dict[str, str]:
        about = admission.about
        headers = {
            "idempotency-key": about.receipt_id,
            "legivellum-admission": about.receipt_id,
            "legivellum-task": about.task_id,
            "legivellum-root-task": admission.root_task_id,
            "legivellum-parent-task": about.parent_task_id,
            "legivellum-spawn-depth": admission.depth,
            "legivellum-budget-remaining": admission.budget_remaining,
            "legivellum-principal": admission.principal_key,
        }
        sent = {name: header_value(str(value)) for name, value in headers.items() if value is not None}
        if self._tokens is not None and target.audience is not None:
            token = self._tokens.token(
                namespace=admission.namespace,
                audience=target.audience,
                admission=about.receipt_id,
                task=about.task_id,
                payload_sha256=admission.payload_sha256,
            )
            sent["authorization"] = f"Bearer {token}"
        return sent


def _row(result: ForwardResult) -> ForwardRow:
    return ForwardRow(result.target, result.state, result.status, result.reason, result.answer)
