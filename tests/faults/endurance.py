"""Faults at random for as long as one likes: `python -m tests.faults.endurance --seed 7 --minutes 10`.

One harness under the load of all rows, one history, one check of I1…I11 at the end; after each turn the load must succeed
again (I5) before the next one. What the gate holds is read all the time and must not grow again and again. A run that failed says its seed and keeps its history.

Its result, `build/faults/random-SEED.json` and a drawing beside it, becomes part of docs/faults.md with `--keep`.
"""

import argparse
import asyncio
import json
import platform
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from tests.faults import fairness, page, plot, table
from tests.faults.fault_harness import HISTORIES, FaultHarness, Trial, fault_harness
from tests.faults.history import BROKEN, RecordedCall, RequestHistory
from tests.faults.holding import ResourceGrowth, ResourceReading, growth, read
from tests.faults.load import backing_off
from tests.faults.promises import Bounds, broken, figures, recovery
from tests.faults.repertoire import GONE, REPERTOIRE, heal
from tests.faults.schedule import ScheduledTurn, draw_turns

BOUNDS = Bounds(recovery=5.0, files=1_500, connections=40)
CACHE = 1 << 20
"""Bytes of the gate's cache of packets: full within the warm-up, so that filling it is not taken for a leak."""
CALM = 1.0
"""Seconds of calm between the load's success and the next turn, in which what is held is compared."""


@dataclass(slots=True)
class PlayedTurn:
    """A turn as it went. Seconds into the run; `calm`: when the load succeeded again."""

    turn: ScheduledTurn
    began: float
    ended: float = 0.0
    calm: float = 0.0
    recovery: float = 0.0

    @property
    def breaks(self) -> bool:
        return any(REPERTOIRE[name].breaks for name in self.turn.faults)


@dataclass(slots=True)
class RandomRun:
    seed: int
    seconds: float
    trial: Trial
    played: list[PlayedTurn] = field(default_factory=list)
    readings: list[ResourceReading] = field(default_factory=list)

    async def play(self) -> None:
        harness, trial = self.trial.harness, self.trial
        async with trial.playing(publishing=True):
            watching = asyncio.create_task(self._watch())
            try:
                await trial.warm()
                drawn = draw_turns(self.seed, {name: fault.holds for name, fault in REPERTOIRE.items()})
                while trial.load.now < self.seconds:
                    await self._turn(harness, next(drawn))
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def _turn(self, harness: FaultHarness, turn: ScheduledTurn) -> None:
        trial = self.trial
        played_turn = PlayedTurn(turn, trial.load.now)
        self.played.append(played_turn)
        print(f"{played_turn.began:6.1f} s  turn {turn.number}: {', '.join(turn.faults)}", flush=True)
        try:
            results = await asyncio.gather(
                *(REPERTOIRE[name].play(harness, trial, turn.random(name)) for name in turn.faults),
                return_exceptions=True,
            )
        finally:
            await heal(harness, trial, backing_off)
        for error in results:
            if isinstance(error, BaseException) and not isinstance(error, GONE):
                raise error
        played_turn.ended = trial.fault_ended = trial.load.now
        await trial.recovered()
        played_turn.calm = trial.load.now
        await asyncio.sleep(CALM)

    async def _watch(self) -> None:
        trial = self.trial
        while True:
            calm = not self.played or self.played[-1].calm > 0
            workers = await asyncio.to_thread(lambda: trial.gates[0].workers)
            if (text := read(trial.load.now, workers, trial.harness.proxy.connections, calm=calm)) is not None:
                self.readings.append(text)
            await asyncio.sleep(CALM / 2)


def between(calls: Sequence[RecordedCall], played: Sequence[PlayedTurn]) -> Iterator[tuple[PlayedTurn, RequestHistory]]:
    """What was asked and answered between each turn and the next."""
    ordered = sorted(calls, key=lambda call: call.start)
    for item, following in zip(played, [*played[1:], None], strict=True):
        until = following.began if following else float("inf")
        calm = [call for call in ordered if item.ended <= call.start and call.end <= until]
        yield item, RequestHistory(calm, fault=(item.began, item.ended))


def excused(call: RecordedCall, played: Sequence[PlayedTurn]) -> bool:
    """A connection may break when somebody killed the worker that it led to."""
    return call.status == BROKEN and any(
        item.breaks and call.end >= item.began and call.start <= item.ended + 0.5 for item in played
    )


def judged(
    history: RequestHistory, played: Sequence[PlayedTurn], grown: Sequence[ResourceGrowth]
) -> dict[str, list[str]]:
    """What broke each promise, with the turn after which the load did not come back."""
    for item, after in between(history.calls, played):
        item.recovery = round(recovery(after, BOUNDS.success), 2)
    calls = [call for call in history.calls if not excused(call, played)]
    result = broken(replace(history, calls=calls), replace(BOUNDS, recovery=float("inf")))
    late = [
        f"turn {item.turn.number} ({', '.join(item.turn.faults)}): {item.recovery} s"
        for item in played
        if item.recovery > BOUNDS.recovery
    ]
    if late:
        result["I5"] = result.get("I5", []) + late
    leaks = [f"{item.what}: {item.first:.0f}, {item.second:.0f}, {item.last:.0f}" for item in grown if not item.flat]
    if not grown:
        leaks = ["nothing to compare: a third of the run had no calm moment"]
    if leaks:
        result["I11"] = result.get("I11", []) + leaks
    return result


async def run(seed: int, minutes: float) -> dict[str, Any]:
    """Play, judge, and what is told of it."""
    async with fault_harness(METAGATE_CACHE_BYTES=str(CACHE)) as harness:
        trial = Trial(harness, f"random-{seed}", BOUNDS, backing_off, (harness.gate,))
        made = RandomRun(seed, minutes * 60, trial)
        began = time.monotonic()
        # Every turn is bounded; this is for what nobody thought of.
        async with asyncio.timeout(minutes * 60 + 180):
            await made.play()
        history = await trial.collect_history()
        grown = growth(made.readings)
        result = judged(history, made.played, grown)
    history.write(HISTORIES / f"random-{seed}.jsonl")
    return {
        "seed": seed,
        "minutes": minutes,
        "seconds": round(time.monotonic() - began),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": table.machine(),
        "python": platform.python_version(),
        "broken": {name: says[:5] for name, says in result.items()},
        "figures": {**asdict(figures(history)), "recovery": max((item.recovery for item in made.played), default=0.0)},
        "machine_kept_away": round(trial.starved, 2),
        "faults": dict(sorted(Counter(name for item in made.played for name in item.turn.faults).items())),
        "growth": [item.as_row() for item in grown],
        "turns": [
            [round(item.began, 1), round(item.ended, 1), round(item.calm, 1), item.recovery, list(item.turn.faults)]
            for item in made.played
        ],
        "readings": [list(asdict(reading).values()) for reading in made.readings[:: max(1, len(made.readings) // 300)]],
    }


def unclear(record: dict[str, Any]) -> bool:
    """Only promises about time broke, on a machine that had none (see fairness)."""
    return set(record["broken"]) <= fairness.OF_TIME and record["machine_kept_away"] >= fairness.MOST


def lines(record: dict[str, Any]) -> Iterator[str]:
    numbers = record["figures"]
    yield (
        f"seed {record['seed']}: {len(record['turns'])} turns, {sum(record['faults'].values())} faults in {record['seconds']} s; "
        + " ".join(f"{name} {numbers[name]}" for name in ("calls", *table.EVERY_ROW))
        + f"  worst {numbers['worst'] * 1_000:.0f} ms  recovery {numbers['recovery']:.2f} s"
        + f"  machine kept away {record['machine_kept_away']}"
    )
    for item in record["growth"]:
        floors = ", ".join(f"{item[third]:.0f}" for third in ("first", "second", "last"))
        yield f"  {item['what']}: {floors} at least, {item['most']:.0f} at most"
    for name, says in record["broken"].items():
        yield f"  {name} broke: {says}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=None, help="without one: any")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--keep", action="store_true", help="into docs/faults, as a chapter of docs/faults.md")
    arguments = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    again = f"make faults SEED={seed} MINUTES={arguments.minutes:g}"
    print(f"seed {seed}: {again}", flush=True)
    try:
        record = asyncio.run(run(seed, arguments.minutes))
    except BaseException:
        print(f"seed {seed} failed; again: {again}", flush=True)
        raise
    for directory in (HISTORIES, *([page.KEPT] if arguments.keep else [])):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"random-{seed}.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
        (directory / f"random-{seed}.svg").write_text(plot.svg(record), encoding="utf-8")
    print("\n".join(lines(record)))
    if not record["broken"]:
        return 0
    why = "the machine had no time for it" if unclear(record) else "a promise broke"
    print(f"seed {seed}: {why}; its calls: {HISTORIES / f'random-{seed}.jsonl'}; again: {again}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
