"""A random schedule drawn: what the gate held over its time, with the turns behind it. Plain SVG, written by hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from tests.faults.holding import ResourceReading

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP = 900, 90, 64, 150, 34, 30

NAMES = [field.name for field in fields(ResourceReading)]

PANELS: Sequence[tuple[str, str, Callable[[Mapping[str, Any]], float]]] = (
    ("memory of the oldest worker, MB", "#1f77b4", lambda one: one["oldest_rss"] / (1 << 20)),
    ("memory of all workers, MB", "#6baed6", lambda one: one["rss"] / (1 << 20)),
    ("files of the oldest worker", "#2ca02c", lambda one: one["oldest_files"]),
    ("connections to the database", "#9467bd", lambda one: one["connections"]),
)


def svg(record: Mapping[str, Any]) -> str:
    """`told`: a run's JSON. Bars are the turns, from injection until the load succeeded again."""
    readings = [dict(zip(NAMES, reading, strict=True)) for reading in record["readings"]]
    end = max([reading["at"] for reading in readings] + [turn[2] for turn in record["turns"]])
    height = TOP + len(PANELS) * (PANEL + GAP)

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * at / end

    title = f"seed {record['seed']}, {record['minutes']:g} minutes, {len(record['turns'])} turns"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11">',
        f"<title>What the gate held: {title}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="13">What the gate held under faults: {title}</text>',
    ]
    for at, (name, colour, value) in enumerate(PANELS):
        parts += _panel(
            name,
            colour,
            [(reading["at"], value(reading)) for reading in readings],
            record["turns"],
            TOP + at * (PANEL + GAP),
            x,
        )
    parts += [
        f'<text x="{x(minute * 60):.1f}" y="{height - 8}" text-anchor="middle" fill="#555">{minute} min</text>'
        for minute in range(int(end // 60) + 1)
    ]
    return "\n".join([*parts, "</svg>", ""])


def _panel(
    name: str,
    colour: str,
    points: Sequence[tuple[float, float]],
    turns: Sequence[Sequence[Any]],
    top: float,
    x: Callable[[float], float],
) -> list[str]:
    most = max((value for _, value in points), default=1.0) * 1.15 or 1.0
    bottom = top + PANEL

    def y(value: float) -> float:
        return bottom - PANEL * value / most

    line = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
    bars = "".join(
        f"M{x(began):.1f} {top}H{x(calm):.1f}V{bottom}H{x(began):.1f}Z" for began, _, calm, *_ in turns if calm
    )
    return [
        f'<path d="{bars}" fill="#fdd0a2" fill-opacity="0.55"/>',
        f'<path d="M{LEFT} {top}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="#888"/>',
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.3"/>',
        f'<text x="{LEFT - 6}" y="{y(most / 1.15) + 4:.1f}" text-anchor="end" fill="#555">{most / 1.15:.0f}</text>',
        f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end" fill="#555">0</text>',
        f'<text x="{WIDTH - RIGHT + 8}" y="{(top + bottom) / 2:.1f}" fill="{colour}">{name}</text>',
    ]
