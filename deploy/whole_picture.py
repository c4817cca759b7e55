#!/usr/bin/env python3

"""Draw docs/images/whole.svg: every gate, who calls whom, and nothing else. `--check` only compares.

The picture is narrow, so that its letters can be read on a phone, and brings its own colours for light and dark. CALLS
is what it shows; tests compare them with the table of docs/architecture.md.
"""

import sys
from html import escape
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).resolve().parents[1] / "docs" / "images" / "whole.svg"
WIDTH, HEIGHT = 470, 736
LEFT_RAIL, BUS, GATE_LEFT, GATE_RIGHT, RIGHT_RAIL = 26, 62, 96, 318, 452
GATE_HEIGHT, GAP, FIRST = 56, 26, 108
GATES = (
    ("interrogate", "InterroGate", "may this pass?"),
    ("delegate", "DeleGate", "a plan becomes tasks"),
    ("asyncgate", "AsyncGate", "who works on what, how long"),
    ("depotgate", "DepotGate", "artifacts: bytes and receipts"),
    ("memorygate", "MemoryGate: the ledger", "receipts, custody, inboxes"),
    ("metagate", "MetaGate", "who am I, which world is this?"),
)
COLOURS = {
    "people": ("#9a6700", "#d9a441"),
    "admits": ("#a8326b", "#f27fb2"),
    "plans": ("#6639ba", "#b392f0"),
    "works": ("#1a7f37", "#56d364"),
    "witness": ("#0a63b8", "#6cb6ff"),
}
"""Of each kind of edge, by light and by dark."""
PAPER = """
.paper{fill:#fff;stroke:#d0d7de} .box{fill:#f3f6fa;stroke:#57606a} .party{fill:#fff6e5;stroke:#9a6700}
text{fill:#1f2328} .thin{fill:#57606a} path{fill:none;stroke-width:1.6}
"""
DARK_PAPER = """
.paper{fill:#161b22;stroke:#30363d} .box{fill:#21262d;stroke:#8b949e} .party{fill:#2d2413;stroke:#d9a441}
text{fill:#e6edf3} .thin{fill:#a4acb6}
"""


class DrawnCall(NamedTuple):
    """`label`: what alone may be called, where that is not everything. `dashed`: a limited edge."""

    caller: str
    called: str
    label: str = ""
    dashed: bool = False


CALLS = (
    *(DrawnCall("agent, person", name) for name, _, _ in GATES),
    DrawnCall("interrogate", "delegate"),
    DrawnCall("interrogate", "MCP servers"),
    *(DrawnCall("delegate", name) for name in ("interrogate", "asyncgate", "depotgate", "memorygate")),
    DrawnCall("worker, CogniGate", "interrogate", "/mcp, spawn"),
    DrawnCall("worker, CogniGate", "delegate", "close, validate", dashed=True),
    DrawnCall("worker, CogniGate", "asyncgate", "lease, complete"),
    DrawnCall("worker, CogniGate", "depotgate", "in- and output"),
    DrawnCall("worker, CogniGate", "memorygate", "reads"),
    DrawnCall("worker, CogniGate", "metagate", "boot, report"),
    DrawnCall("CogniGate", "models", "by lease"),
    DrawnCall("metagate", "memorygate", "witness"),
)


def top(gate: str) -> int:
    return FIRST + [name for name, _, _ in GATES].index(gate) * (GATE_HEIGHT + GAP)


def arrow(edge: DrawnCall, colour: str, d: str) -> str:
    dashes = ' stroke-dasharray="5 4"' if edge.dashed else ""
    name = escape(f"{edge.caller} > {edge.called}")
    return f'<path class="{colour}" data-edge="{name}" marker-end="url(#{colour})"{dashes} d="{d}"/>'


def style(dark: int) -> str:
    edges = "".join(f".{name}{{stroke:{by[dark]}}}.c-{name}{{fill:{by[dark]}}}" for name, by in COLOURS.items())
    return (DARK_PAPER if dark else PAPER) + edges


def text(
    x: float, y: float, words: str, *, size: int = 13, colour: str = "", anchor: str = "middle", bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    marks = f' class="{colour}"' if colour else ""
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}"{weight}{marks}>{escape(words)}</text>'


def box(place: tuple[int, int, int, int], name: str, says: str = "", kind: str = "box") -> list[str]:
    x, y, width, height = place
    middle = x + width / 2
    return [
        f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="7"/>',
        text(middle, y + (height / 2 - 4 if says else height / 2 + 5), name, size=15, bold=True),
        *([text(middle, y + height / 2 + 15, says, colour="thin")] if says else []),
    ]


def drawn_call(edge: DrawnCall) -> list[str]:
    """Agents come down the left rail, workers up the right one; DeleGate has a bus between rail and gates."""
    if edge.caller == "agent, person":
        return [arrow(edge, "people", f"M{LEFT_RAIL} 62V{top(edge.called) + 40}H{GATE_LEFT - 2}")]
    if edge.caller == "worker, CogniGate":
        y = top(edge.called) + 34
        return [
            arrow(edge, "works", f"M{RIGHT_RAIL} 674V{y}H{GATE_RIGHT + 2}"),
            text(RIGHT_RAIL - 8, y - 6, edge.label, colour="c-works", anchor="end"),
        ]
    if edge.caller == "delegate":
        y = top(edge.called) + 16
        return [arrow(edge, "plans", f"M{GATE_LEFT} {top('delegate') + 16}H{BUS}V{y}H{GATE_LEFT - 2}")]
    if edge.called == "delegate":
        return [arrow(edge, "admits", f"M207 {top('interrogate') + GATE_HEIGHT}V{top('delegate') - 2}")]
    if edge.called == "MCP servers":
        return [arrow(edge, "admits", f"M290 {FIRST}V64")]
    if edge.called == "models":
        return [
            arrow(edge, "works", "M252 697H172"),
            text(212, 691, edge.label, colour="c-works"),
        ]
    return [
        arrow(edge, "witness", f"M207 {top('metagate')}V{top('memorygate') + GATE_HEIGHT + 2}"),
        text(215, top("metagate") - 9, edge.label, colour="c-witness", anchor="start"),
    ]


def picture() -> str:
    markers = "".join(
        f'<marker id="{colour}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" class="c-{colour}" stroke="none"/></marker>'
        for colour in COLOURS
    )
    title = "The whole: agents and people at the top, workers and CogniGate at the bottom, the six gates between them"
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'role="img" font-family="system-ui, sans-serif">'
        ),
        f"<title>{title}</title>",
        f"<style>{style(0)}@media (prefers-color-scheme:dark){{{style(1)}}}</style><defs>{markers}</defs>",
        f'<rect class="paper" x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="10"/>',
        *box((14, 16, 200, 46), "agents, people", kind="party"),
        *box((250, 16, 204, 46), "MCP servers", kind="party"),
        text(36, 96, "every gate but CogniGate", colour="c-people", anchor="start"),
        text(298, 90, "tool calls", colour="c-admits", anchor="start"),
    ]
    for name, shown, says in GATES:
        lines += box((GATE_LEFT, top(name), GATE_RIGHT - GATE_LEFT, GATE_HEIGHT), shown, says)
    for edge in CALLS:
        lines += drawn_call(edge)
    lines += [
        *box((GATE_LEFT, 600, GATE_RIGHT - GATE_LEFT, 46), "PostgreSQL", "a schema for each gate"),
        *box((252, 674, 204, 46), "workers, CogniGate", kind="party"),
        *box((14, 674, 156, 46), "models", kind="party"),
        "</svg>",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    if "--check" in sys.argv:
        return int(FILE.read_text(encoding="utf-8") != picture())
    FILE.write_text(picture(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
