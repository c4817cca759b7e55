"""What a start does: one look at what is open, and no other look by itself ever (INV-084).

A plan that has been open for a minute may be one whose process died. Going on with it does nothing where nothing is
missing. Whatever is younger is another replica's, or will be asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from delegate.delegate_gate import DeleGate
from delegate.plan_receipts import RUN
from delegate.planning import PlanFlow
from legivellum.base.backoff import Backoff
from legivellum.gate.gate_caller import GateRefused
from legivellum.http.problems import RequestRefused
from legivellum.identity.tenant_credentials import ServedTenant
from legivellum.postgres.errors import Unavailable

OLD_ENOUGH: Final = timedelta(seconds=60)
_ATTEMPTS: Final = 10
"""Until the ledger answered for the first time. What stays undone is done by `dispatch` or by the next start."""

_log = structlog.get_logger("delegate.repairing")


class StartRepair:
    """One per process."""

    def __init__(self, gate: DeleGate, flow: PlanFlow) -> None:
        self._gate = gate
        self._flow = flow

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look once beside the requests."""
        task = asyncio.create_task(self._look(), name="repair plans")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _look(self) -> None:
        backoff = Backoff(0.2, 30.0)
        for _ in range(_ATTEMPTS):
            try:
                for tenant in await self._gate.credentials.all():
                    await self._repair(tenant)
            except (RequestRefused, GateRefused, Unavailable) as error:
                _log.warning("repair_delayed", reason=str(error))
                await asyncio.sleep(backoff.pause())
            else:
                return

    async def _repair(self, tenant: ServedTenant) -> None:
        """Raises GateAway where the inbox cannot be read; what hinders one plan does not hinder others."""
        before = datetime.now(UTC) - OLD_ENOUGH
        for obligation in await self._gate.clients.inbox(tenant):
            opened = datetime.fromisoformat(obligation["opened_at"])
            if obligation["receipt"].get("task_type") != RUN or opened > before:
                continue
            plan_id = obligation["task_id"]
            try:
                record = await self._flow.record(tenant, plan_id)
                if record.accepted is not None:
                    await self._flow.resume(tenant, record)
            except (RequestRefused, GateRefused) as error:
                _log.warning("plan_unrepaired", plan_id=plan_id, reason=str(error))
