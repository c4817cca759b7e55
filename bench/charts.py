"""Bars and flames as SVG, drawn here: no drawing library is worth its weight for what the documentation shows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from zlib import crc32

WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 760, 250, 120, 18, 8, 46
INK, BAR_COLOUR, OTHER_COLOUR, LINE = "#24292f", "#2f6f9f", "#b9c4cf", "#57606a"

FLAME = 15
WARM = ("#f4c27a", "#f2b36b", "#eda35c", "#e9b98e", "#f0cfa0", "#e8c069")


@dataclass(frozen=True, slots=True)
class ChartBar:
    """`low` and `high`: the ends of what the rounds gave. `ours`: in our colour."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    ours: bool = True
    says: str = ""


def bars(title: str, figures: Sequence[ChartBar], *, mark: float | None = None, mark_says: str = "") -> str:
    """Horizontal bars from zero; `mark` is a line across them."""
    most = max([bar.high or bar.value for bar in figures] + ([mark] if mark else [])) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / most
    height = TOP + len(figures) * (BAR + GAP) + 14
    parts = _head(title, height)
    for at, bar in enumerate(figures):
        parts += _bar(bar, TOP + at * (BAR + GAP), scale)
    if mark is not None:
        x = LEFT + mark * scale
        parts.append(
            f'<path d="M{x:.1f} {TOP - 8}V{height - 10}" stroke="{LINE}" stroke-dasharray="4 3"/>'
            f'<text x="{x + 4:.1f}" y="{TOP - 10}" fill="{LINE}">{escape(mark_says)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def flame(title: str, stacks: Mapping[str, int], *, least: float = 0.01) -> str:
    """Stacks (`a;b;c`: samples) as a flame graph, callers below. `least`: the smallest share that is drawn."""
    total = sum(stacks.values())
    shares: dict[tuple[str, ...], int] = defaultdict(int)
    for stack, count in stacks.items():
        frames = tuple(stack.split(";"))
        for depth in range(1, len(frames) + 1):
            shares[frames[:depth]] += count
    drawn = {frames: count for frames, count in shares.items() if count / total >= least}
    height = TOP + (max(map(len, drawn)) + 1) * FLAME
    parts = _head(title, height)
    starts: dict[tuple[str, ...], float] = {(): 0.0}
    for frames, count in sorted(drawn.items()):
        x, width = starts.setdefault(frames[:-1], 0.0), count / total * WIDTH
        starts[frames], starts[frames[:-1]] = x, x + width
        y = height - 8 - len(frames) * FLAME
        name = frames[-1].rpartition(".")[2]
        says = f"{frames[-1]}: {count / total:.1%}"
        parts.append(
            f'<g><title>{escape(says)}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{FLAME - 1}" '
            f'fill="{WARM[hash_of(frames[-1]) % len(WARM)]}"/>'
            + (f'<text x="{x + 3:.1f}" y="{y + 11}" font-size="10" fill="{INK}">' if width > 24 else "")
            + (f"{escape(name[: int(width / 6)])}</text>" if width > 24 else "")
            + "</g>"
        )
    return "\n".join([*parts, "</svg>", ""])


def hash_of(name: str) -> int:
    """The same colour for the same name in every drawing."""
    return crc32(name.encode())


def _head(title: str, height: int) -> list[str]:
    return [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            'font-family="system-ui, sans-serif" font-size="12">'
        ),
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="14" font-weight="600" fill="{INK}">{escape(title)}</text>',
    ]


def _bar(bar: ChartBar, y: float, scale: float) -> list[str]:
    middle = y + BAR / 2
    parts = [
        f'<text x="{LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end" fill="{INK}">{escape(bar.label)}</text>',
        (
            f'<rect x="{LEFT}" y="{y}" width="{max(1.0, bar.value * scale):.1f}" height="{BAR}" rx="2" '
            f'fill="{BAR_COLOUR if bar.ours else OTHER_COLOUR}"/>'
        ),
    ]
    end = bar.value
    if bar.low is not None and bar.high is not None:
        low, high, end = LEFT + bar.low * scale, LEFT + bar.high * scale, max(bar.high, bar.value)
        parts.append(
            f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}V{middle + 4}M{high:.1f} {middle - 4}'
            f'V{middle + 4}" stroke="{INK}" fill="none"/>'
        )
    says = bar.says or f"{bar.value:,.2f}"
    parts.append(f'<text x="{LEFT + end * scale + 6:.1f}" y="{middle + 4:.1f}" fill="{INK}">{escape(says)}</text>')
    return parts
