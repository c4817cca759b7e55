"""Tools of a job: listed, judged and recorded by a real InterroGate in front of a real MCP server, under a real lease."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.cognigate.cogni_process import AUTHORITY, COGNITION
from tests.integration.cognigate.model_server import ModelServer, completion, replies
from tests.integration.interrogate.conftest import AdmissionDatabase, make_admissions
from tests.integration.interrogate.leases import LeaseIssuer, issuing
from tests.integration.interrogate.mcp.gateway_fixture import GatewayFixture, serving_gateway
from tests.integration.memorygate.ledger_fixture import free_port

from cognigate.cognition import CognitionRunner
from cognigate.model_catalog import ModelCatalog
from legivellum.base.timestamps import rfc3339
from legivellum_worker import Failed, Output, Release, Work, WorkerSettings
from legivellum_worker.gate_client import GateUnavailableError
from legivellum_worker.leased_work import WorkerLease, boot_clock


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tool_database(postgres: Server) -> AsyncIterator[AdmissionDatabase]:
    made = await make_admissions(postgres)
    yield made
    await postgres.drop(made.database)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tool_issuer(tool_database: AdmissionDatabase) -> AsyncIterator[LeaseIssuer]:
    async with issuing(tool_database) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tool_gateway(tool_database: AdmissionDatabase, tool_issuer: LeaseIssuer) -> AsyncIterator[GatewayFixture]:
    async with serving_gateway(tool_database) as served:
        yield served


@dataclass
class ToolJob:
    """One job of bob's under a lease of a task of alice's."""

    gateway: GatewayFixture
    issuer: LeaseIssuer
    model: ModelServer
    folder: Path

    async def run(
        self, *globs: str, lease_id: str | None = None, key: str | None = None, interrogate: str | None = None
    ) -> Output:
        """Raises what a handler raises."""
        task = (await self.gateway.alice.ask({"n": 1}))["structuredContent"]["task_id"]
        authority = {**AUTHORITY, "exposeTools": list(globs), "cognition": {**COGNITION, "calls": 6}}
        lease = await self.issuer.issue(
            self.gateway.world.tenant, task, holder="bob", principal="alice", authority={"exposeTools": list(globs)}
        )
        key_file = self.folder / "bob.key"
        key_file.write_text(key or self.gateway.bob.principal.key)
        settings = WorkerSettings(
            url=f"http://127.0.0.1:{free_port()}",
            api_key_file=str(key_file),
            interrogate_url=interrogate or str(self.gateway.http.base_url).rstrip("/"),
            environ={},
        )
        content = {
            "lease_id": lease_id or lease.lease_id,
            "number": lease.number,
            "issued_at": rfc3339(lease.issued_at),
            "expires_in_ms": 60_000,
            "task": {"task_id": task, "principal_ai": "alice", "payload_pointer": "s3://x", "authority": authority},
        }
        runner = CognitionRunner(
            ModelCatalog.of_endpoint(self.model.url, "scripted-1", None), settings, policy={}, ask_seconds=5
        )
        return await asyncio.to_thread(runner.run, Work(WorkerLease(content, boot_clock()), settings))

    @property
    def offered(self) -> list[str]:
        """The tools that the model was offered at its first question."""
        return [tool["function"]["name"] for tool in self.model.asked[0].get("tools", ())]


@pytest.fixture
def job(tool_gateway: GatewayFixture, tool_issuer: LeaseIssuer, model: ModelServer, tmp_path: Path) -> ToolJob:
    tool_gateway.upstream.calls.clear()
    return ToolJob(tool_gateway, tool_issuer, model, tmp_path)


def wants(*calls: tuple[str, Any]) -> Any:
    return replies(completion(None, calls=list(calls)))


@pytest.mark.invariant("INV-091")
@pytest.mark.parametrize(
    ("globs", "offered"),
    [(["desk/echo"], ["desk__echo"]), (["desk/s*"], ["desk__slow"]), (["other/*"], []), ([], [])],
)
async def test_only_what_the_lease_exposes_is_offered(job: ToolJob, globs: list[str], offered: list[str]) -> None:
    await job.run(*globs)
    assert job.offered == offered


@pytest.mark.invariant("INV-091")
async def test_a_granted_tool_is_called_and_counted(job: ToolJob) -> None:
    """Its result comes back to the model; its key names task, lease and call."""
    job.model.script = [wants(("desk__echo", {"text": "one"})), wants(("desk__echo", {"text": "two"}))]
    output = await job.run("desk/echo")
    assert [call for call in job.gateway.upstream.calls if call[0] == "echo"] == [
        ("echo", {"text": "one"}),
        ("echo", {"text": "two"}),
    ]
    assert output.usage is not None
    assert output.usage["tools"] == {"desk.echo": 2}
    assert output.usage["calls"] == 3
    told = job.model.asked[2]["messages"]
    assert [message["content"] for message in told if message["role"] == "tool"] == ["one", "two"]


@pytest.mark.invariant("INV-091")
async def test_a_tool_that_the_lease_does_not_expose_is_refused(job: ToolJob) -> None:
    """Three times, and the job is over; nothing of it reached InterroGate or the server."""
    job.model.otherwise = wants(("desk__fail", {}))
    with pytest.raises(Failed, match="TOOL_NOT_GRANTED") as failed:
        await job.run("desk/echo")
    assert job.gateway.upstream.calls == []
    assert len(job.model.asked) == 3
    assert failed.value.usage is not None
    assert failed.value.usage["tools"] == {}


async def test_what_a_tool_says_wrong_is_told_to_the_model(job: ToolJob) -> None:
    """An error of the tool, arguments that are no object, arguments beyond its schema: the model may do better."""
    job.model.script = [wants(("desk__fail", {}), ("desk__echo", [1]), ("desk__echo", {"text": 5}))]
    output = await job.run("desk/echo", "desk/fail")
    told = [message["content"] for message in job.model.asked[1]["messages"] if message["role"] == "tool"]
    assert len(told) == 3
    assert told[1] == "The arguments are no JSON object."
    assert all(told)
    assert output.content == b"done"


async def test_a_lost_lease_offers_nothing(job: ToolJob) -> None:
    await job.run("desk/echo", lease_id="no-such-lease")
    assert job.offered == []


async def test_an_interrogate_that_refuses_gives_the_job_back(job: ToolJob) -> None:
    """Before a model is asked: without its tools the job would be another one."""
    with pytest.raises(Release):
        await job.run("desk/echo", key="mgk_unknown")
    assert job.model.asked == []


async def test_an_interrogate_that_is_away_gives_the_job_back(job: ToolJob) -> None:
    with pytest.raises(GateUnavailableError):
        await job.run("desk/echo", interrogate=f"http://127.0.0.1:{free_port()}")
    assert job.model.asked == []
