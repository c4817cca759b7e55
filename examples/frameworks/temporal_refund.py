"""A workflow whose activity fails twice, on a Temporal server at 127.0.0.1:7233."""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from temporal_receipts import ReceiptInterceptor

    from legivellum_worker import AsyncLedger


@activity.defn
async def refund(amount: int) -> str:
    if activity.info().attempt < 3:
        raise ConnectionError("the bank does not answer")
    return f"{amount} EUR are on their way"


@workflow.defn
class Refunding:
    @workflow.run
    async def run(self, amount: int) -> str:
        return await workflow.execute_activity(
            refund,
            amount,
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=200)),
        )


async def main(workflow_id: str, amount: int) -> None:
    ledger = AsyncLedger("http://127.0.0.1:8001", Path("triage.key"), principal="triage")
    client = await Client.connect("127.0.0.1:7233")
    async with Worker(
        client,
        task_queue="refunds",
        workflows=[Refunding],
        activities=[refund],
        interceptors=[ReceiptInterceptor(ledger)],
    ):
        handle = await client.start_workflow(Refunding.run, amount, id=workflow_id, task_queue="refunds")
        print(await handle.result())
    for receipt in await ledger.receipts(f"{handle.result_run_id}:1"):
        print(receipt["obligation_id"].rpartition(":")[2], receipt["phase"], receipt.get("status", ""))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
