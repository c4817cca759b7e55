"""Bars as SVG, drawn here: the documentation shows them, and no drawing library is worth its weight for that."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 760, 250, 120, 18, 8, 46
INK, BAR_COLOUR, OTHER_COLOUR, LINE = "#24292f", "#2f6f9f", "#b9c4cf", "#57606a"


@dataclass(frozen=True, slots=True)
class Bar:
    """`low` and `high`: the ends of what the rounds gave. `ours`: in our colour."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    ours: bool = True
    says: str = ""


def bars(title: str, found: Sequence[Bar], *, mark: float | None = None, mark_says: str = "") -> str:
    """Horizontal bars from zero; `mark` is a line across them."""
    most = max([bar.high or bar.value for bar in found] + ([mark] if mark else [])) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / most
    height = TOP + len(found) * (BAR + GAP) + 14
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            'font-family="system-ui, sans-serif" font-size="12">'
        ),
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="14" font-weight="600" fill="{INK}">{escape(title)}</text>',
    ]
    for at, bar in enumerate(found):
        parts += _bar(bar, TOP + at * (BAR + GAP), scale)
    if mark is not None:
        x = LEFT + mark * scale
        parts.append(
            f'<path d="M{x:.1f} {TOP - 8}V{height - 10}" stroke="{LINE}" stroke-dasharray="4 3"/>'
            f'<text x="{x + 4:.1f}" y="{TOP - 10}" fill="{LINE}">{escape(mark_says)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _bar(bar: Bar, y: float, scale: float) -> list[str]:
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
