"""`make bench-flame`: where a worker's time goes under load, sampled by py-spy; `page.py` draws what it finds.

One worker, 64 connections, boots by API key with an Idempotency-Key. Only samples in which the worker ran count.
"""

import asyncio
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import console
import load
import machine
import setting

RESULTS = Path(__file__).resolve().parent / "results" / "flame.json"
SECONDS = 10
FRAME = re.compile(r"(?P<function>\S+) \((?P<file>[^)]*)\)")
LOOP = "asyncio.runners.Runner.run"


def sampled(port: int, process: int, requests: list[bytes]) -> tuple[str, load.Tally]:
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "raw"
        sampler = Path(__file__).resolve().parents[1] / ".venv-bench" / "bin" / "py-spy"
        command = [sampler, "record", "--pid", str(process), "--duration", str(SECONDS), "--rate", "200"]
        running = subprocess.Popen([*command, "--format", "raw", "--output", out], stderr=subprocess.DEVNULL)
        tally = load.drive("127.0.0.1", port, requests, connections=64, seconds=SECONDS + 0.5, warm=0.5)
        running.wait(30)
        return out.read_text(), tally


def stacks(raw: str) -> dict[str, int]:
    """From the event loop up: `module.function;module.function`, with the number of samples."""
    result: Counter[str] = Counter()
    for line in raw.splitlines():
        frames, _, count = line.rpartition(" ")
        named = [_named(frame) for frame in frames.split(";")]
        loop = next((at for at, name in enumerate(named) if name == LOOP), -1)
        if loop >= 0:
            result[";".join(named[loop + 1 :]) or "event loop"] += int(count)
    return dict(result.most_common())


def _named(frame: str) -> str:
    match = FRAME.match(frame)
    if match is None:
        return frame
    path = re.sub(r":\d+$", "", match["file"])
    parts = Path(path).with_suffix("").parts
    return ".".join([*parts[-2:], match["function"]])


def main() -> None:
    with setting.base() as on:
        booters = asyncio.run(setting.publish(on, 64))
        requests = [booter.request(keyed=True) for booter in booters]
        with setting.served_process(on, workers=1) as (port, process):
            load.drive("127.0.0.1", port, requests, connections=64, seconds=1)
            raw, tally = sampled(port, process, requests)
    result = stacks(raw)
    own: Counter[str] = Counter()
    for stack, count in result.items():
        own[stack.rpartition(";")[2]] += count
    total = sum(own.values())
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps(
            {"machine": machine.described(), "per_second": round(tally.rate), "samples": total, "stacks": result},
            indent=1,
        )
        + "\n"
    )
    console.table(
        f"Where a worker's time goes, {total:,} samples at {tally.rate:,.0f} boots per second",
        ("frame itself", "share %"),
        [[name, 100 * count / total] for name, count in own.most_common(45)],
    )


if __name__ == "__main__":
    main()
