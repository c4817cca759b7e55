"""Any process killed at any moment while fifty stories are under way: `python -m tests.integration.whole.chaos --kills 1000 --seed 7`.

The faults are planned by the seed (`fault_plan.py`) and played in pieces: each piece has a system of its own, ends when
every story has, and is judged (`chaos_verdict.py`). What was played stands in build/chaos/SEED.json after each piece, and
another call goes on behind it. With `--keep` the result is that of docs/faults.md.
"""

import argparse
import asyncio
import json
import platform
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults import page, signals, table
from tests.integration.whole.chaos_verdict import ChaosVerdict, contradictions, judged
from tests.integration.whole.fault_plan import DATABASES, LEASE_SECONDS, PlannedFault, planned_faults
from tests.integration.whole.forked_parts import PartForks, forked_parts
from tests.integration.whole.story_load import StoryLoad, open_stories
from tests.integration.whole.system import WholeSystem, whole_system

ROOT = Path(__file__).parents[3]
BUILD = ROOT / "build" / "chaos"
PIECE = 100
"""Faults of a piece."""
DRAIN_SECONDS = 150.0
"""Until the last story has ended after the last fault; a step whose gate was away is taken again after half a minute."""
OPEN_STORIES = 5
"""Stories that are open while everything is made anew from receipts."""
POINT_SECONDS = 4.0
"""Until an armed process has come to its point; then it is killed where it is."""


@dataclass(slots=True)
class ChaosRun:
    """One piece."""

    system: WholeSystem
    forks: PartForks
    load: StoryLoad
    played: Counter[str] = field(default_factory=Counter)
    busy: dict[str, asyncio.Lock] = field(default_factory=dict)

    async def play(self, faults: Sequence[PlannedFault]) -> None:
        """The faults while the stories run, at most one of a part at a time; then all stories end."""
        loading = asyncio.create_task(self.load.run())
        try:
            playing: list[asyncio.Task[None]] = []
            for fault in faults:
                await asyncio.sleep(fault.pause)
                playing.append(asyncio.create_task(self._fault(fault)))
                if sum(not task.done() for task in playing) > 3:
                    await asyncio.wait(
                        [task for task in playing if not task.done()], return_when=asyncio.FIRST_COMPLETED
                    )
            await asyncio.gather(*playing)
            self.load.stopping.set()
            async with asyncio.timeout(DRAIN_SECONDS):
                await loading
        except TimeoutError:
            print(f"stories without an end: {open_stories(self.load.stories)}", flush=True)
        finally:
            loading.cancel()
            with suppress(asyncio.CancelledError):
                await loading

    async def _fault(self, fault: PlannedFault) -> None:
        async with self.busy.setdefault(fault.part, asyncio.Lock()):
            if fault.part in DATABASES:
                await self._kill_database(fault)
                return
            process = self.system.gates.processes[fault.part]
            if fault.how == "stop":
                self.played[f"{fault.part}: stopped"] += 1
                process.send_signal(signals.signal.SIGSTOP)
                await asyncio.sleep(fault.seconds)
                process.send_signal(signals.signal.SIGCONT)
                return
            if fault.how == "kill" or not await self._died_at(fault):
                self.played[f"{fault.part}: killed"] += 1
                process.send_signal(signals.signal.SIGKILL)
            await asyncio.to_thread(process.wait, 20)
            await asyncio.sleep(fault.seconds)
            self.system.gates.launch(fault.part)

    async def _died_at(self, fault: PlannedFault) -> bool:
        arming, process = self.forks.arming(fault.part), self.system.gates.processes[fault.part]
        written = arming.with_suffix(".new")
        written.write_text(fault.point, encoding="ascii")
        written.rename(arming)
        until = time.monotonic() + POINT_SECONDS
        while process.poll() is None and time.monotonic() < until:
            await asyncio.sleep(0.02)
        arming.unlink(missing_ok=True)
        if process.poll() is None:
            return False
        self.played[f"{fault.part}: killed {fault.point}"] += 1
        return True

    async def _kill_database(self, fault: PlannedFault) -> None:
        self.played[f"{fault.part}: killed"] += 1
        database = self.system.databases[fault.part]
        pid = database.pid
        signals.kill(signals.family(pid))
        await asyncio.to_thread(signals.wait_for_end, pid)
        await asyncio.sleep(fault.seconds)
        await database.stop()
        await database.start()


async def play_piece(faults: Sequence[PlannedFault], directory: Path) -> tuple[ChaosVerdict, Counter[str], float]:
    """A system of its own, the faults, the verdict; what was played, and seconds from the first fault to the last end."""
    directory.mkdir(exist_ok=True)
    with forked_parts(directory / "arms") as forks:
        async with whole_system(directory, forks.spawn, ASYNCGATE_TTL_SECONDS=str(LEASE_SECONDS)) as system:
            tenant = await system.tenant("team-story", forwards=True)
            for gate in ("memorygate", "asyncgate", "depotgate", "interrogate", "admitting"):
                await tenant.until(lambda answer: answer.status_code == 200, "delegate", "GET", gate, "/v1/interview")
            await system.start_workers(tenant, *(system.another(kind) for kind in ("worker", "cognigate")))
            run = ChaosRun(system, forks, await StoryLoad.prepared(tenant))
            began = time.monotonic()
            await run.play(faults)
            seconds = time.monotonic() - began
            tail = await with_open_stories(system, run.load)
            verdict = await judged(system, run.load.stories)
            verdict.contradicting += tail
            await run.load.client.aclose()
            return verdict, run.played, seconds


async def with_open_stories(system: WholeSystem, load: StoryLoad) -> list[str]:
    """What contradicts the receipts while tasks are parked and nobody works; then they are worked on and end."""
    workers = [name for name in system.gates.processes if "worker" in name or "cognigate" in name]
    for name in workers:
        await system.gates.kill(name)
    for _ in range(OPEN_STORIES):
        await load.begin()
    result = await contradictions(system)
    await system.start(*workers)
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            await load.run_to_the_end()
    return result


@dataclass(slots=True)
class ChaosResult:
    """What is kept of all pieces."""

    seed: int
    date: str = ""
    machine: str = ""
    python: str = ""
    faults: int = 0
    seconds: float = 0.0
    stories: int = 0
    receipts: int = 0
    lost: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    contradicting: list[str] = field(default_factory=list)
    played: dict[str, int] = field(default_factory=dict)

    def add(self, count: int, verdict: ChaosVerdict, played: Counter[str], seconds: float) -> None:
        self.date = datetime.now(UTC).date().isoformat()
        self.machine, self.python = table.machine(), platform.python_version()
        self.faults += count
        self.seconds = round(self.seconds + seconds, 1)
        self.stories += verdict.stories
        self.receipts += verdict.receipts
        for name in ("lost", "double", "contradicting"):
            getattr(self, name).extend(getattr(verdict, name))
        self.played = dict(sorted((Counter(self.played) + played).items()))

    @property
    def line(self) -> str:
        counts = ", ".join(f"{len(getattr(self, name))} {name}" for name in ("lost", "double", "contradicting"))
        return f"seed {self.seed}: {self.faults} faults, {self.stories} stories, {self.receipts} receipts in {self.seconds:.0f} s: {counts}"


def result_of(seed: int) -> ChaosResult:
    """What has been played of this seed."""
    with suppress(OSError):
        content: dict[str, Any] = json.loads((BUILD / f"{seed}.json").read_text(encoding="utf-8"))
        return ChaosResult(**content)
    return ChaosResult(seed)


def write(result: ChaosResult, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=None, help="without one: any")
    parser.add_argument("--keep", action="store_true", help="into docs/faults/chaos.json")
    arguments = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    result = result_of(seed)
    print(f"seed {seed}: make chaos KILLS={arguments.kills} SEED={seed}", flush=True)
    while result.faults < arguments.kills:
        faults = planned_faults(seed, min(PIECE, arguments.kills - result.faults), result.faults)
        directory = Path(tempfile.mkdtemp(prefix="chaos-"))
        verdict, played, seconds = asyncio.run(play_piece(faults, directory))
        result.add(len(faults), verdict, played, seconds)
        write(result, BUILD / f"{seed}.json")
        print(result.line, flush=True)
        if not verdict.clean:
            print(f"the logs: {directory}", *verdict.lost, *verdict.double, *verdict.contradicting, sep="\n  ")
            return 1
        shutil.rmtree(directory, ignore_errors=True)
    if arguments.keep:
        write(result, page.CHAOS)
        print("docs/faults.md is written by: python -m tests.faults.page")
    return 0


if __name__ == "__main__":
    sys.exit(main())
