"""The geometry of the topology's picture: Manifests at the left, services at the right, an edge for each use.

A Manifest is one box, however many principals are bound to it: each principal is a mark in it, whose shape and colour
say its health. So the picture grows with Manifests and services, not with principals.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from metagate_store.principal_health import STATES, PrincipalHealth, PrincipalState
from metagate_store.rows import Topology, TopologyPrincipal, TopologyService

Node = TypeVar("Node")

WIDTH: Final = 880
GROUP_LEFT, GROUP_WIDTH = 8, 344
SERVICE_LEFT, SERVICE_WIDTH = 622, 250
SERVICE_HEIGHT: Final = 38
GAP: Final = 12
HEAD: Final = 50
"""Height of a group's name and counts; its marks are below."""
MARKS_PER_ROW: Final = 21
MARK_PITCH: Final = 15.5
MARK_ROWS: Final = 3
MOST_GROUPS: Final = 24
MOST_SERVICES: Final = 32
"""The tables below the picture have the others."""

_SEVERITY: Final[Mapping[str, int]] = {state: at for at, state in enumerate(STATES)}
TROUBLE: Final = frozenset({"failed", "overdue", "incomplete"})


@dataclass(frozen=True, slots=True)
class PrincipalMark:
    """One principal in its Manifest's box. `x` and `y` are its middle."""

    x: float
    y: float
    principal_key: str
    state: PrincipalState


@dataclass(frozen=True, slots=True)
class ManifestGroup:
    """A Manifest with the principals that are bound to it, those in trouble first."""

    manifest: str
    profiles: tuple[str, ...]
    principals: tuple[PrincipalHealth, ...]
    counts: tuple[tuple[PrincipalState, int], ...]
    """The worst state first."""
    services: Mapping[str, int]
    """How many of its principals use each service."""


@dataclass(frozen=True, slots=True)
class GroupBox:
    number: int
    y: float
    height: float
    group: ManifestGroup
    marks: tuple[PrincipalMark, ...]
    hidden_marks: int

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class ServiceBox:
    number: int
    y: float
    service: TopologyService

    @property
    def middle(self) -> float:
        return self.y + SERVICE_HEIGHT / 2


@dataclass(frozen=True, slots=True)
class DiagramEdge:
    """`users` of the group's principals use the service; `partial`: not all of them."""

    path: str
    group: int
    service: int
    users: int
    partial: bool


@dataclass(frozen=True, slots=True)
class TopologyDiagram:
    """`hidden_groups` and `hidden_services` had no room."""

    height: float
    groups: tuple[GroupBox, ...]
    services: tuple[ServiceBox, ...]
    edges: tuple[DiagramEdge, ...]
    hidden_groups: int
    hidden_services: int


def manifest_groups(
    principals: Iterable[TopologyPrincipal], health: Mapping[str, PrincipalHealth]
) -> tuple[ManifestGroup, ...]:
    """By Manifest, by name; principals without a Binding are in none."""
    members: dict[str, list[TopologyPrincipal]] = {}
    for principal in principals:
        if principal.manifest is not None and principal.principal_key in health:
            members.setdefault(principal.manifest, []).append(principal)
    return tuple(_group(manifest, members[manifest], health) for manifest in sorted(members))


def _group(manifest: str, members: Sequence[TopologyPrincipal], health: Mapping[str, PrincipalHealth]) -> ManifestGroup:
    principals = sorted((health[member.principal_key] for member in members), key=severity_order)
    states = Counter(principal.state for principal in principals)
    return ManifestGroup(
        manifest,
        tuple(sorted({member.profile for member in members if member.profile is not None})),
        tuple(principals),
        tuple((state, states[state]) for state in STATES if state in states),
        Counter(service for member in members for service in member.services),
    )


def severity_order(principal: PrincipalHealth) -> tuple[int, str]:
    """The worst first, then by name."""
    return _SEVERITY[principal.state], principal.principal_key


def trouble_order(group: ManifestGroup) -> tuple[int, str]:
    """Those in trouble first, by their worst state, then all others by name."""
    worst = group.counts[0][0]
    return (_SEVERITY[worst] if worst in TROUBLE else len(STATES), group.manifest)


def service_users(groups: Iterable[ManifestGroup], service: TopologyService) -> list[tuple[ManifestGroup, int]]:
    """The groups whose principals use the service, and how many of each do; most first."""
    keys = frozenset(service.used_by)
    users = ((group, sum(item.principal_key in keys for item in group.principals)) for group in groups)
    return sorted(((group, count) for group, count in users if count), key=lambda pair: (-pair[1], pair[0].manifest))


def topology_diagram(groups: Sequence[ManifestGroup], topology: Topology) -> TopologyDiagram:
    """The groups in trouble and the largest ones, by name, and the services that most principals use."""
    ranked = sorted(groups, key=lambda group: (trouble_order(group)[0], -len(group.principals)))
    chosen = sorted(ranked[:MOST_GROUPS], key=lambda group: group.manifest)
    boxes = _stacked(chosen)
    used = sorted(topology.services, key=lambda service: (-len(service.used_by), service.name))[:MOST_SERVICES]
    users = [frozenset(service.used_by) for service in used]
    uses = {
        (box.number, at): count
        for box in boxes
        for at, keys in enumerate(users)
        if (count := sum(principal.principal_key in keys for principal in box.group.principals))
    }
    height = max(_bottom(boxes), len(used) * (SERVICE_HEIGHT + GAP) + GAP)
    boxes = _centred(boxes, height)
    placed = _placed(used, boxes, uses, height)
    edges = tuple(
        DiagramEdge(
            path=_curve(boxes[group].middle, placed[at].middle),
            group=group,
            service=at,
            users=count,
            partial=count < len(boxes[group].group.principals),
        )
        for (group, at), count in uses.items()
    )
    return TopologyDiagram(
        round(height, 1),
        tuple(boxes),
        tuple(sorted(placed, key=lambda box: box.y)),
        edges,
        len(groups) - len(chosen),
        len(topology.services) - len(used),
    )


def _stacked(groups: Sequence[ManifestGroup], top: float = GAP) -> list[GroupBox]:
    boxes = []
    for number, group in enumerate(groups):
        shown = group.principals[: MARKS_PER_ROW * MARK_ROWS]
        rows = -(-len(shown) // MARKS_PER_ROW)
        marks = tuple(
            PrincipalMark(
                GROUP_LEFT + 16 + at % MARKS_PER_ROW * MARK_PITCH,
                top + HEAD + 6 + at // MARKS_PER_ROW * MARK_PITCH,
                principal.principal_key,
                principal.state,
            )
            for at, principal in enumerate(shown)
        )
        height = HEAD + rows * MARK_PITCH + 6
        boxes.append(GroupBox(number, top, height, group, marks, len(group.principals) - len(shown)))
        top += height + GAP
    return boxes


def _bottom(boxes: Sequence[GroupBox]) -> float:
    return boxes[-1].y + boxes[-1].height + GAP if boxes else GAP


def _centred(boxes: Sequence[GroupBox], height: float) -> list[GroupBox]:
    """The same boxes, in the middle of a taller picture."""
    return _stacked([box.group for box in boxes], GAP + max(0.0, (height - _bottom(boxes)) / 2))


def _placed(
    services: Sequence[TopologyService], boxes: Sequence[GroupBox], uses: Mapping[tuple[int, int], int], height: float
) -> list[ServiceBox]:
    """Each service beside the groups that use it, as far as there is room: then few edges cross. In the given order."""
    wanted = []
    for at in range(len(services)):
        middles = [boxes[group].middle for group, service in uses if service == at]
        wanted.append(sum(middles) / len(middles) if middles else height)
    step, tops = SERVICE_HEIGHT + GAP, [0.0] * len(services)
    order = sorted(range(len(services)), key=lambda at: (wanted[at], services[at].name))
    lowest = float(GAP)
    for at in order:
        tops[at] = max(wanted[at] - SERVICE_HEIGHT / 2, lowest)
        lowest = tops[at] + step
    highest = height - GAP - SERVICE_HEIGHT
    for at in reversed(order):
        tops[at] = round(min(tops[at], highest), 1)
        highest = tops[at] - step
    return [ServiceBox(at, tops[at], service) for at, service in enumerate(services)]


def _curve(source: float, target: float) -> str:
    left, right = GROUP_LEFT + GROUP_WIDTH, SERVICE_LEFT
    bend = (right - left) * 0.5
    return f"M{left} {source:.1f}C{left + bend:.0f} {source:.1f} {right - bend:.0f} {target:.1f} {right} {target:.1f}"
