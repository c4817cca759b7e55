"""`interrogate`: serve the gate, migrate it, try policies out, explain and replay decisions. Nothing is imported before
it is needed.

Exit codes: 0 done, 1 something is wrong with what was asked about, 2 the command was not understood, 3 it could not be
done here and now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from legivellum.gate.command_line import gate_commands, run_commands

if TYPE_CHECKING:
    from legivellum.gate.definition import GateDefinition


def _definition() -> GateDefinition[Any, Any]:
    from interrogate.gate import GATE

    return GATE


app = gate_commands(
    "interrogate",
    "InterroGate: may this request pass? It decides and writes the decision down; it does not act.",
    ("interrogate_writer",),
    _definition,
)


def main() -> None:
    """The entry point of the `interrogate` command."""
    run_commands(app, "interrogate")
