"""`depotgate`: serve the gate, and what is done to its database and its store.

It exits with 0 when all is as it should be, with 1 when something that was asked about is not, with 2 when it was not
understood, with 3 when it could not be done here and now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from legivellum.gate.command_line import gate_commands, run_commands

if TYPE_CHECKING:
    from legivellum.gate.definition import GateDefinition


def _gate() -> GateDefinition[Any, Any]:
    from depotgate.gate import GATE

    return GATE


app = gate_commands(
    "depotgate",
    "DepotGate: artifacts that cannot change. It keeps; it does not read.",
    ("depotgate_keeper",),
    _gate,
)


def _expected() -> tuple[type[Exception], ...]:
    from depotgate.blobs import UnusableStore

    return (UnusableStore,)


def main() -> None:
    """The entry point of the `depotgate` command."""
    run_commands(app, "depotgate", expected=_expected)
