"""The gates as processes, a scripted model, and CogniGate as a process that asks both: started once for a module."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.asyncgate.gate_fixture import TaskTenant
from tests.integration.cognigate.cogni_process import CEILING, CogniProcess
from tests.integration.cognigate.model_server import ModelServer
from tests.integration.depotgate.conftest import make_depot
from tests.integration.worker.plan_fixture import PlanGates, gates_of


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cogni_gates(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PlanGates]:
    database = await make_depot(postgres)
    tenant = TaskTenant(database.tasks)
    await tenant.publish()
    folder = tmp_path_factory.mktemp("gates")
    gates = gates_of(tenant, database, folder)
    (folder / "ceilings.yaml").write_text(json.dumps([{"namespaces": ["*"], "authority": CEILING}]))
    await asyncio.gather(*(asyncio.to_thread(gate.start) for gate in gates.all))
    with ExitStack() as relays:
        for gate in gates.all:
            relays.enter_context(gate.relayed())
        yield gates
    await asyncio.gather(*(asyncio.to_thread(gate.stop) for gate in gates.all))
    await postgres.drop(database.database)


@pytest.fixture(scope="module")
def model_server() -> Iterator[ModelServer]:
    with ModelServer().serving() as server:
        yield server


@pytest.fixture
def model(model_server: ModelServer) -> Iterator[ModelServer]:
    model_server.reset()
    yield model_server
    model_server.reset()


@pytest.fixture(scope="module")
def cogni_process(
    cogni_gates: PlanGates, model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CogniProcess]:
    process = CogniProcess(cogni_gates, tmp_path_factory.mktemp("cognigate"), settings_of(model_server))
    process.start()
    yield process
    process.stop()


def settings_of(model: ModelServer, **more: str) -> dict[str, str]:
    return {"LLM_URL": model.url, "LLM_MODEL": "scripted-1", "COGNIGATE_ASK_SECONDS": "3", **more}


@pytest.fixture
def cogni(cogni_process: CogniProcess, model: ModelServer) -> CogniProcess:
    """With a model that answers `done`."""
    for gate in cogni_process.gates.all:
        gate.calls.clear()
        gate.kills.clear()
    return cogni_process


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    return tmp_path
