"""The examples, killed as the ledger answers one of their calls, and started again until they are done."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.frameworks.programs import PYTHON, environment, examples_at, run
from tests.integration.receipted.relayed_ledger import RelayedLedger

pytestmark = pytest.mark.timeout(240)

EVERY = os.environ.get("FRAMEWORK_KILLS") == "all"  # noqa: TID251 - `make test-frameworks KILLS=all`, minutes
AT_CALLS = range(1, 20) if EVERY else range(2, 20, 4)
PROGRAMS = {"langgraph_refund.py": "refunded: yes", "agents_refund.py": "The tool said: 400 EUR are on their way"}


class KilledProgram:
    """One of the examples in a folder of its own, behind the relay."""

    def __init__(self, folder: Path, relayed: RelayedLedger, name: str) -> None:
        self.folder, self.relayed, self.name = folder, relayed, name
        examples_at(folder, p8001=relayed.port)
        (folder / "triage.key").write_text(relayed.served.principals["triage"].key)

    def words(self, task: str) -> list[str]:
        return [f"examples/frameworks/{self.name}", self.relayed.task(task), "400"]

    def run(self, task: str) -> str:
        return run(self.folder, *self.words(task)).strip()

    def killed_at(self, task: str, number: int) -> bool:
        """Whether it was: False when it ended before its call of this number."""
        with subprocess.Popen(
            [str(PYTHON), *self.words(task)], cwd=self.folder, env=environment(), stdout=subprocess.PIPE
        ) as program:
            before = len(self.relayed.calls)

            def kill(calls: int) -> None:
                if calls - before == number:
                    program.kill()
                    program.wait(20)

            self.relayed.on_stored = kill
            code = program.wait(60)
            self.relayed.on_stored = None
        assert code in {0, -signal.SIGKILL}
        return code != 0

    def answer(self, task: str) -> None:
        lead = self.relayed.ledger("lead")
        [question] = lead.inbox(task_id=self.relayed.task(task))
        lead.complete(question, text="yes")


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_program_that_is_killed_at_a_call(tmp_path: Path, relayed: RelayedLedger, name: str) -> None:
    """Before the question is answered, and after it: one question, no attempt that ends twice, and the work is done."""
    program = KilledProgram(tmp_path, relayed, name)
    kills = await asyncio.to_thread(_kill_everywhere, program)
    assert set(kills) == {"asking", "answered"}
    assert min(kills.values()) >= 2, kills
    for moment, number in kills.items():
        for at in (at for at in AT_CALLS if at <= number):
            await _told_whole(relayed, f"{moment}-{at}")


def _kill_everywhere(program: KilledProgram) -> dict[str, int]:
    """The last call of each half at which a process was killed."""
    kills = {}
    for moment in ("asking", "answered"):
        for number in AT_CALLS:
            task = f"{moment}-{number}"
            if moment == "answered":
                assert program.run(task) == "waits"
                program.answer(task)
            if not program.killed_at(task, number):
                break
            kills[moment] = number
            if moment == "asking":
                assert program.run(task) == "waits"
                program.answer(task)
            if program.run(task) == "waits":  # killed after it asked and before it had kept its state: it asks again
                assert program.run(task) == PROGRAMS[program.name]
    return kills


async def _told_whole(relayed: RelayedLedger, task: str) -> None:
    receipts = await relayed.stored(task)
    by_obligation: dict[str, list[str]] = {}
    for receipt in receipts:
        by_obligation.setdefault(receipt["obligation_id"], []).append(receipt["phase"])
    questions = {name: phases for name, phases in by_obligation.items() if ":ask:" in name}
    assert list(questions.values()) == [["accepted", "complete"]]
    assert {tuple(phases) for phases in by_obligation.values()} <= {("accepted",), ("accepted", "complete")}
    open_ones = [name for name, phases in by_obligation.items() if phases == ["accepted"]]
    assert len(open_ones) <= 1, "one process was killed"
    ended = [
        receipt for receipt in receipts if receipt["phase"] == "complete" and ":ask:" not in receipt["obligation_id"]
    ]
    assert ended[-1]["status"] == "success"
    assert ended[-1]["outcome_text"] != "waits for lead"
