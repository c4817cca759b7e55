"""The geometry of the boots per minute. The template draws it as SVG: numbers from here, words escaped there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from legivellum.console.text import clock
from metagate_store.overviews import Minute

MINUTES: Final = 60
LEFT, TOP, WIDTH, HEIGHT = 40, 12, 660, 120
STEP: Final = WIDTH / MINUTES

BarState = Literal["ready", "starting", "overdue", "failed"]


@dataclass(frozen=True, slots=True)
class Bar:
    """One piece of a minute's column."""

    state: BarState
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Timeline:
    bars: tuple[Bar, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


def timeline(minutes: Sequence[Minute], now: datetime) -> Timeline:
    """A column for each minute of the last hour, the newest at the right."""
    top = _rounded(max((minute.opened for minute in minutes), default=0))
    bars = [bar for minute in minutes if 0 <= minute.ago < MINUTES for bar in _column(minute, top, now)]
    across = [
        Tick(LEFT + WIDTH - ago * STEP, clock(now - timedelta(minutes=ago)) if ago else "now")
        for ago in (60, 45, 30, 15, 0)
    ]
    up = [Tick(TOP + HEIGHT - HEIGHT * part / 2, f"{top * part // 2:,}") for part in (0, 1, 2)]
    return Timeline(tuple(bars), tuple(across), tuple(up))


def _column(minute: Minute, top: int, now: datetime) -> list[Bar]:
    starting = minute.opened - minute.ready - minute.failed - minute.overdue
    parts: tuple[tuple[BarState, int], ...] = (
        ("ready", minute.ready), ("starting", starting), ("overdue", minute.overdue), ("failed", minute.failed),
    )  # fmt: skip
    x = LEFT + WIDTH - (minute.ago + 1) * STEP
    when = clock(now - timedelta(minutes=minute.ago))
    bars, y = [], float(TOP + HEIGHT)
    for state, count in parts:
        if count > 0:
            # what is there can be seen, however little of it there is
            height = max(2.0, HEIGHT * count / top)
            y -= height
            bars.append(
                Bar(
                    state,
                    round(x + 1, 1),
                    round(y, 1),
                    round(STEP - 2, 1),
                    round(height, 1),
                    f"{when}: {count:,} {state}",
                )
            )
    return bars


def _rounded(most: int) -> int:
    """An even number that is easy to read, not below `most`."""
    if most <= 2:
        return 2
    power = int(10 ** math.floor(math.log10(most)))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= most and step * power % 2 == 0)
