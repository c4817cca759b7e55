"""`asyncgate`: serve the gate, and what is done to its database.

It exits with 0 when all is as it should be, with 1 when something that was asked about is not, with 2 when it was not
understood, with 3 when it could not be done here and now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from legivellum.gate.command_line import gate_commands, run_commands

if TYPE_CHECKING:
    from legivellum.gate.definition import GateDefinition


def _gate() -> GateDefinition[Any, Any]:
    from asyncgate.gate import GATE

    return GATE


app = gate_commands(
    "asyncgate",
    "AsyncGate: tasks, and leases on them. It moves responsibility and judges no outcome.",
    ("asyncgate_broker",),
    _gate,
)


def _expected() -> tuple[type[Exception], ...]:
    from asyncgate.ceilings import CeilingsUnreadable

    return (CeilingsUnreadable,)


def main() -> None:
    """The entry point of the `asyncgate` command."""
    run_commands(app, "asyncgate", expected=_expected)
