"""Play the suite with the clock of every process at days that break software: `python -m tests.calendar_days [pytest arguments]`.

Each day is reached by an offset (calendar_clock.c, preloaded), not by a fixed time: all processes of a run, PostgreSQL's too, then
agree on the moment and their clocks go on from there. Each run starts a few minutes before midnight, so that it also meets the
change of day.
"""

import calendar
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

# What keeps time by another clock than the processes' own, or fakes its own already. Tokens of the API server are dated by the
# machine's clock, as its programs are no C programs, and a gate that lives on another day rightly refuses them.
LEFT_OUT = ("tests/browser", "tests/e2e", "tests/faults/test_clocks.py", "tests/operator/issuers/test_real_tokens.py")

IS_CALENDAR = "CLOCK_OFFSET" in os.environ  # noqa: TID251 - a setting of the tests
OTHER_CLOCK = pytest.mark.skipif(
    IS_CALENDAR, reason="compares the clock of the run with that of a kernel or a Go program, which stays at today"
)


def days(now: datetime) -> Iterator[tuple[str, datetime]]:
    """Name and moment (UTC) of each day: the next ones that lie ahead of `now`."""
    start = now + timedelta(days=1)
    leap = next(year for year in range(start.year + (start.month > 2), start.year + 9) if calendar.isleap(year))
    plain = next(year for year in range(start.year + (start.month > 2), start.year + 9) if not calendar.isleap(year))
    october = start.year + (start.month > 10)
    sunday = max(week[calendar.SUNDAY] for week in calendar.monthcalendar(october, 10))
    yield "28 February", datetime(plain, 2, 28, 23, 57, tzinfo=UTC)
    yield "29 February", datetime(leap, 2, 29, 23, 57, tzinfo=UTC)
    yield "31 December", datetime(start.year, 12, 31, 23, 57, tzinfo=UTC)
    yield "last Sunday of October", datetime(october, 10, sunday, 0, 57, tzinfo=UTC)
    yield "a year ahead", now + timedelta(days=365)


def main(arguments: list[str]) -> int:
    """Exit code 0 when the suite passed on every day; 2 when there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        print("a C compiler is needed: apt-get install gcc libc6-dev", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="metagate-calendar-") as folder:
        library = Path(folder) / "calendar_clock.so"
        # PostgreSQL runs as a user of its own where the tests are root's, and must read the library.
        Path(folder).chmod(0o755)
        source = Path(__file__).with_name("calendar_clock.c")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
        return play(library, arguments)


def play(library: Path, arguments: list[str]) -> int:
    failed = []
    for name, moment in days(datetime.now(UTC)):
        offset = round((moment - datetime.now(UTC)).total_seconds())
        clock = {
            "LD_PRELOAD": str(library),
            "CLOCK_OFFSET": str(offset),
            "TZ": "Europe/Berlin",
        }
        print(f"=== {name}: {moment:%Y-%m-%d %H:%M}Z", flush=True)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            *(f"--ignore={path}" for path in LEFT_OUT),
            *(arguments or ["tests"]),
        ]
        if subprocess.run(command, env=os.environ | clock, check=False).returncode:  # noqa: TID251 — handed on whole
            failed.append(name)
    print(f"=== failed on: {', '.join(failed)}" if failed else "=== passed on every day")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
