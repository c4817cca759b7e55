"""What the log says of a database that cannot be used, from the first attempt on."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from legivellum.gate.identity_poller import IdentityReplica
from legivellum.gate.process import GateProcess
from legivellum.gate.snapshot_poller import SnapshotPoller
from legivellum.postgres.errors import SchemaMismatch, Unavailable
from memorygate.gate import GATE
from memorygate.settings import Settings


class Unreachable:
    """A connection that fails as it is told."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def __call__(self) -> Any:
        raise self.errors.pop(0)


def poller(name: str, connect: Unreachable) -> SnapshotPoller:
    definition = replace(GATE, connect=lambda _settings: connect())
    process = GateProcess(definition, Settings(database_url=SecretStr("postgresql://unused")))
    if name == "ledger":
        return process.database_poller()
    return process.identity_poller(IdentityReplica(process.credentials, process.directory, connect))


@pytest.mark.parametrize("name", ["ledger", "identity"])
async def test_a_gate_that_is_never_ready_says_why(name: str):
    """The first failure is one line with its reason, the same again is none, another one is a line again."""
    with capture_logs() as logs:
        unready = poller(name, Unreachable(Unavailable("no login"), Unavailable("no login"), SchemaMismatch("too old")))
        for _ in range(3):
            await unready.step()
    assert [(line["event"], line["error"], line["reason"]) for line in logs] == [
        (f"{name}_lost", "Unavailable", "no login"), (f"{name}_lost", "SchemaMismatch", "too old"),
    ]  # fmt: skip
