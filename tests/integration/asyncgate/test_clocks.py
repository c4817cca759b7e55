"""Clocks that are ten minutes wrong, the gate's and the worker's: a lease lasts as long as the database says (§6.7)."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
import pytest_asyncio
from tests.faults.debian import wrong_clock
from tests.integration.asyncgate.conftest import TaskDatabase
from tests.integration.asyncgate.gate_fixture import TaskTenant
from tests.integration.asyncgate.worker_fixture import RunningGate, WorkersGate, workers_gate

TTL_SECONDS = 5
"""The shortest a lease may be."""
HANDLER = "#!/bin/sh\nsleep 6\necho done > $LEGIVELLUM_WORK_DIR/output\n"
"""Works for longer than a lease that nobody renews."""


@pytest_asyncio.fixture(loop_scope="session")
async def tenant(task_database: TaskDatabase) -> TaskTenant:
    made = TaskTenant(task_database)
    await made.publish()
    return made


@contextmanager
def serving_with(tenant: TaskTenant, environment: dict[str, str]) -> Iterator[WorkersGate]:
    process = RunningGate(tenant, environment=environment)
    process.start()
    try:
        with workers_gate(process) as gate:
            gate.ttl = TTL_SECONDS
            yield gate
    finally:
        process.stop()


@contextmanager
def working(gate: WorkersGate, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """A worker's process on the mailbox `index`."""
    key, handler = folder / "key", folder / "handler.sh"
    key.write_text(gate.tenant.principals["worker"].key)
    handler.write_text(HANDLER)
    handler.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "legivellum_worker", "--capability", gate.box("index"), "--", str(handler)],
        env={
            "PATH": os.environ["PATH"],  # noqa: TID251
            "TMPDIR": str(folder),
            "METAGATE_ASYNCGATE_URL": gate.url,
            "METAGATE_API_KEY_FILE": str(key),
            **environment,
        },
    )
    try:
        yield
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.invariant("INV-067", "INV-123")
@pytest.mark.parametrize("minutes", [10, -10])
def test_no_lease_ends_early_or_lasts_longer(tenant: TaskTenant, tmp_path: Path, minutes: int) -> None:
    """The gate's clock is ahead and the worker's behind, or the other way round: a lease that is renewed outlasts its first
    length, and one that nobody renews is over after exactly that.
    """
    with serving_with(tenant, wrong_clock(minutes)) as gate:
        gate.put("renewed")
        gate.put("left", "left")
        status, answer = gate.ask("other", "/lease", {"capabilities": [gate.box("left")]})
        assert (status, len(answer["leases"])) == (200, 1)
        [lease] = answer["leases"]
        assert TTL_SECONDS - 2 < lease["expires_in_ms"] / 1_000 <= TTL_SECONDS
        with working(gate, tmp_path, wrong_clock(-minutes)):
            assert gate.wait_for_end("renewed")["outcome_text"] == "done\n"
        assert "/lease/renew" in gate.paths()
        assert gate.phases("renewed") == ["accepted", "accepted", "queued", "lease_issued", "complete"]
        status, again = gate.ask("third", "/lease", {"capabilities": [gate.box("left")], "wait_seconds": 20})
        assert (status, [next_lease["number"] for next_lease in again["leases"]]) == (200, [2])
        stored = gate.stored_at("left")
        assert TTL_SECONDS <= (stored["expired"] - stored["lease_issued"]).total_seconds() < TTL_SECONDS + 15
        assert abs((datetime.fromisoformat(lease["issued_at"]) - stored["lease_issued"]).total_seconds()) < 2
