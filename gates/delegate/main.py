"""`delegate`: serve the gate. It keeps nothing, so there is nothing to migrate, verify or rebuild."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from legivellum.gate.command_line import gate_commands, run_commands

if TYPE_CHECKING:
    from legivellum.gate.definition import Definition


def _gate() -> Definition[Any, Any]:
    from delegate.gate import GATE

    return GATE


app = gate_commands("delegate", "DeleGate: plans become work. It mints; it does not think.", (), _gate)


def main() -> None:
    """The entry point of the `delegate` command."""
    run_commands(app, "delegate")
