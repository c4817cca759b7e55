"""`make bench`: durable bootstraps per second through the served API, beside pgbench on the same database; what
recognising callers costs (`tokens.py`); and how long a changed file takes to be served (`apply.py`).

Within two and a half minutes. What that leaves out, `make bench FULL=1` has: longer rounds and more of them for
tokens, junk beside good tokens, two hundred thousand keys, more changed files, what else is asked (`beside.py`), and
the table of `matrix.py`.
"""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import apply
import beside
import bootstraps
import console
import machine
import tokens

RESULTS = Path(__file__).resolve().parent / "results"


def applied(arguments: argparse.Namespace) -> dict[str, float]:
    console.step("apply to served")
    completed = asyncio.run(apply.main(apply.CHANGES if arguments.full else apply.CHANGES // 2))
    console.table(
        f"A changed file to the packet that shows it, {completed['apply_bindings']:,} Bindings",
        ("", "ms"),
        [[name.removeprefix("apply_"), value] for name, value in completed.items() if name.endswith("_ms")],
    )
    return completed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="everything, about ten minutes")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--only", choices=["bootstrap", "tokens", "apply", "beside"], help="one part alone")
    arguments = parser.parse_args()
    seconds = arguments.seconds or (4.0 if arguments.full else 2.0)
    shorter = {"rounds": arguments.rounds if arguments.full else 3, "seconds": seconds if arguments.full else 1.5}
    kept = RESULTS / "bench.json"
    # One part alone takes the place of that part of the last run.
    result: dict[str, object] = json.loads(kept.read_text()) if arguments.only and kept.exists() else {}
    result |= {"machine": machine.described(), "full": arguments.full}
    if arguments.only in {None, "bootstrap"}:
        result["bootstrap"] = bootstraps.main(argparse.Namespace(**{**vars(arguments), "seconds": seconds}))
    if arguments.only in {None, "tokens"}:
        result["tokens"] = tokens.main(argparse.Namespace(**{**vars(arguments), **shorter}))
    if arguments.only in {None, "apply"}:
        result["apply"] = applied(arguments)
    if arguments.only == "beside" or (arguments.full and arguments.only is None):
        result["beside"] = beside.main(argparse.Namespace(**{**vars(arguments), "seconds": min(2.0, seconds)}))
    RESULTS.mkdir(exist_ok=True)
    kept.write_text(json.dumps(result, indent=2) + "\n")
    console.step(f"written: {kept}")
    if not arguments.full:
        print("Short: tokens in 3 rounds of 1.5 s, 30 changed files; make bench FULL=1 has the rest.")


if __name__ == "__main__":
    main()
