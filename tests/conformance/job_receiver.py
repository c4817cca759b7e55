"""A receiver of forwarded requests: it takes a job with 202, and ends it by receipts in the ledger as a real one does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.integration.memorygate.conftest import new_id
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal, free_port


@asynccontextmanager
async def serving_application(application: Starlette) -> AsyncIterator[str]:
    """The address of an application that is served in the test's loop."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(application, port=port, log_level="error"))
    running = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await running


@dataclass(slots=True)
class JobReceiver:
    """`POST /jobs` with `{"seconds": …, "status": "success" | "failure"}`. It has custody of the task as `delegate`."""

    ledger_url: str
    delegate: LedgerPrincipal
    url: str = ""
    _jobs: set["asyncio.Task[None]"] = field(default_factory=set)

    async def take(self, request: Request) -> Response:
        job = await request.json()
        task_id, principal = (request.headers[f"legivellum-{name}"] for name in ("task", "principal"))
        receipt = {"task_id": task_id, "principal_ai": principal, "recipient_ai": self.delegate.name}
        await self._emit({**receipt, "phase": "accepted"})
        running = asyncio.create_task(self._work(receipt, job))
        self._jobs.add(running)
        running.add_done_callback(self._jobs.discard)
        return Response(status_code=202)

    async def take_nothing(self, _request: Request) -> Response:
        await asyncio.sleep(1)
        return Response(status_code=500)

    async def _work(self, receipt: dict[str, Any], job: dict[str, Any]) -> None:
        await asyncio.sleep(job["seconds"])
        completed_at = datetime.now(UTC).isoformat()
        ending = {
            "completed_at": completed_at,
            "status": job["status"],
            "outcome_kind": "response_text",
            "outcome_text": f"after {job['seconds']} s",
        }
        await self._emit({**receipt, "phase": "complete", **ending})

    async def _emit(self, receipt: dict[str, Any]) -> None:
        async with httpx.AsyncClient(base_url=self.ledger_url, headers=self.delegate.headers) as client:
            answer = await client.post("/receipts", json={"receipt_id": new_id(), **receipt})
            assert answer.status_code == 201, answer.text

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["JobReceiver"]:
        routes = [
            Route("/jobs", self.take, methods=["POST"]),
            Route("/jobs/broken", self.take_nothing, methods=["POST"]),
        ]
        async with serving_application(Starlette(routes=routes)) as address:
            self.url = f"{address}/jobs"
            try:
                yield self
            finally:
                for job in self._jobs:
                    job.cancel()
                await asyncio.gather(*self._jobs, return_exceptions=True)
