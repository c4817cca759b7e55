"""Temporal: each attempt of an activity is an obligation. Give `ReceiptInterceptor(ledger)` to a worker."""

from typing import Any

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from legivellum_worker import AsyncLedger


class ReceiptInterceptor(Interceptor):
    def __init__(self, ledger: AsyncLedger) -> None:
        self.ledger = ledger

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return ReceiptedActivity(next, self.ledger)


class ReceiptedActivity(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, ledger: AsyncLedger) -> None:
        super().__init__(next)
        self.ledger = ledger

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        task_id = f"{info.workflow_run_id}:{info.activity_id}"
        async with self.ledger.obligation(
            task_id=task_id, attempt=info.attempt, task_type=info.activity_type, summary=info.workflow_id
        ):
            return await self.next.execute_activity(input)
