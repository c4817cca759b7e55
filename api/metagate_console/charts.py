"""The geometry of the pictures. Templates draw it as SVG: numbers from here, words escaped there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from legivellum.console.text import clock
from metagate_store.overviews import Minute
from metagate_store.rows import Topology, TopologyPrincipal

MINUTES: Final = 60
LEFT, TOP, WIDTH, HEIGHT = 40, 12, 660, 120
STEP: Final = WIDTH / MINUTES
GROUPS: Final = 24
"""Rows of a side of the topology's picture; the tables below it have the others."""
ROW: Final = 44
FROM, TO = 270, 530


# ── boots per minute ─────────────────────────────────────────────────────────────────────────────────────────────────

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


# ── who uses which service ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class PrincipalGroup:
    """Principals that are bound to the same Profile and Manifest and use the same services."""

    y: int
    principals: tuple[TopologyPrincipal, ...]
    profile: str | None
    manifest: str | None
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DiagramNode:
    y: int
    name: str
    type: str | None
    endpoint: str | None
    users: int


@dataclass(frozen=True, slots=True)
class DiagramEdge:
    path: str
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class TopologyDiagram:
    """`hidden`: groups and services that had no room."""

    height: int
    groups: tuple[PrincipalGroup, ...]
    nodes: tuple[DiagramNode, ...]
    wires: tuple[DiagramEdge, ...]
    hidden: tuple[int, int]


def topology_diagram(topology: Topology) -> TopologyDiagram:
    """Groups at the left, services at the right, a wire for each use; the largest groups and most used services."""
    members_by_place: dict[tuple[str | None, str | None, tuple[str, ...]], list[TopologyPrincipal]] = {}
    for item in topology.principals:
        if item.services:
            members_by_place.setdefault((item.profile, item.manifest, item.services), []).append(item)
    largest = sorted(members_by_place.items(), key=lambda item: (-len(item[1]), item[1][0].principal_key))
    groups = tuple(
        PrincipalGroup(ROW // 2 + 8 + at * ROW, tuple(members), profile, manifest, services)
        for at, ((profile, manifest, services), members) in enumerate(largest[:GROUPS])
    )
    used = sorted(topology.services, key=lambda item: (-len(item.used_by), item.name))
    nodes = tuple(
        DiagramNode(ROW // 2 + 8 + at * ROW, item.name, item.type, item.endpoint, len(item.used_by))
        for at, item in enumerate(used[:GROUPS])
    )
    users = [frozenset(item.used_by) for item in used[:GROUPS]]
    wires = tuple(
        DiagramEdge(_curve(group.y, node.y), source, target)
        for source, group in enumerate(groups)
        for target, node in enumerate(nodes)
        if node.name in group.services and group.principals[0].principal_key in users[target]
    )
    rows = max(len(groups), len(nodes), 1)
    return TopologyDiagram(
        rows * ROW + 16,
        groups,
        nodes,
        wires,
        (len(members_by_place) - len(groups), len(topology.services) - len(nodes)),
    )


def _curve(source: int, target: int) -> str:
    middle = (FROM + TO) // 2
    return f"M{FROM} {source} C{middle} {source} {middle} {target} {TO} {target}"
