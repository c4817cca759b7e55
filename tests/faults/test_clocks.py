"""F25, F26: clocks that are wrong, and clocks that jump."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.faults.debian import faketime, wrong_clock
from tests.faults.fairness import fairly
from tests.faults.fault_harness import FaultHarness, Trial, fault_harness, wait_until_known
from tests.faults.gate import serving, through
from tests.faults.wire import KeptConnections

from metagate_postgres import EmbeddedPostgres

pytestmark = [pytest.mark.timeout(120), pytest.mark.invariant("INV-016")]


@fairly
@pytest.mark.parametrize("minutes", [10, -10])
async def test_f25_the_gates_clock_is_wrong(shared: FaultHarness, minutes: int) -> None:
    """Deadlines and lateness are the database's; tokens that seem expired or not yet made are refused, with a code."""
    dsn = through(shared.database.api, shared.proxy.port)
    async with serving(dsn, workers=1, **wrong_clock(minutes)) as gate:
        await wait_until_known(shared, gate)
        answers: list[tuple[int, str]] = []

        async def fault(_trial: Trial) -> None:
            line = KeptConnections(gate.address)
            for _ in range(5):
                token = shared.principals[0].token(lifetime=300)
                headers = {"authorization": f"Bearer {token}"}
                answer = await line.ask("POST", "/v1/bootstrap", headers=headers, body=b'{"component_key":"token"}')
                answers.append((answer.status, answer.json().get("code", "")))
                await asyncio.sleep(0.3)
            await line.close()

        trial = await shared.trial("F25", fault, gates=(gate,))
        assert {status for status, _ in answers} == {401}
        assert all(code.startswith("CREDENTIAL_") for _, code in answers)
        trial.add_figures(code=", ".join(sorted({code for _, code in answers})))
        stored = {session.startup_id: session for session in trial.history.stored}
        now = time.time()
        for call in trial.history.calls:
            if call.operation == "bootstrap" and call.acked:
                deadline = datetime.fromisoformat(call.answer["deadline_at"]).timestamp()
                assert abs(deadline - stored[call.answer["startup_id"]].deadline_at) < 0.001
                assert abs(deadline - 120 - now) < 60
        assert not any(session.late for session in stored.values())


@fairly
async def test_f26_the_databases_clock_jumps() -> None:
    """An hour ahead, then two back, under load: nothing is mixed, doubled or refused for it."""
    library = faketime()
    with tempfile.NamedTemporaryFile(prefix="metagate-clock-", dir="/tmp", delete=False) as made:
        clock = Path(made.name)  # where the server's account can read it
    clock.write_text("+0s")
    clock.chmod(0o644)

    class Skewed(EmbeddedPostgres):
        def _command(self, *where: Any) -> Sequence[str]:
            environment = (f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={clock}", "FAKETIME_CACHE_DURATION=0")
            return [
                "/usr/bin/env",
                *environment,
                "FAKETIME_NO_CACHE=1",
                "FAKETIME_DONT_FAKE_MONOTONIC=1",
                *super()._command(*where),
            ]

    try:
        async with fault_harness(kind=Skewed) as harness:
            observations = []

            async def fault(_trial: Trial) -> None:
                for jump in ("+3600s", "-3600s", "+0s"):
                    clock.write_text(jump)
                    await asyncio.sleep(1)
                    async with harness.superuser() as connection:
                        now = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float")
                    observations.append(round((now - time.time()) / 3600))
                    await asyncio.sleep(0.5)

            trial = await harness.trial("F26", fault)
            assert observations == [1, -1, 0]
            calls = trial.during()
            share = sum(call.acked for call in calls) / len(calls)
            trial.add_figures(success_beside=round(share, 3))
            assert share >= 0.99
    finally:
        clock.unlink()
