"""`cognigate serve`: lease jobs and answer views, until SIGTERM. In a pod: `metagate run -- cognigate serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from legivellum.gate.command_line import gate_commands, run_commands

if TYPE_CHECKING:
    from legivellum.gate.definition import Definition


def _gate() -> Definition[Any, Any]:
    from cognigate.gate import GATE

    return GATE


app = gate_commands("cognigate", "CogniGate: asks models under a lease. It thinks; it does not mint.", (), _gate)


def _expected() -> tuple[type[Exception], ...]:
    from metagate_client.errors import ClientError

    return (ClientError,)


def main() -> None:
    """The entry point of the `cognigate` command."""
    run_commands(app, "cognigate", expected=_expected)
