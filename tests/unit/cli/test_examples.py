"""Help shows an example per command, and each of them is a command that exists, with options that exist."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.cli.running import metagate
from typer.main import get_command

from legivellum_worker.artifact_commands import EXAMPLE as OF_ARTIFACTS
from legivellum_worker.artifact_commands import parser as artifacts_parser
from legivellum_worker.main import EXAMPLE as OF_WORK
from legivellum_worker.main import parser as work_parser
from metagate_cli.help import ACROSS_GATES_EXAMPLES, EXAMPLES
from metagate_cli.main import CLIENT, WORKER, _across_gates, _app
from metagate_client.arguments import EXAMPLES as IN_A_POD
from metagate_client.arguments import parser


def walked(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    yield name, command
    for inner, item in (getattr(command, "commands", None) or {}).items():
        yield from walked(item, f"{name} {inner}".strip())


COMMANDS = {name: command for name, command in walked(get_command(_app())) if name not in CLIENT}


def test_every_command_has_an_example() -> None:
    """And no example is of a command that is not there."""
    assert EXAMPLES.keys() == COMMANDS.keys()
    assert IN_A_POD.keys() == CLIENT.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_can_be_typed(name: str) -> None:
    """It is of its command, and the command understands each word of it."""
    line = EXAMPLES[name]
    typed = line.partition("<(")[2].rstrip(")") or line
    program, *words = shlex.split(typed.partition(" | ")[0])
    assert program == "metagate"
    command: Any = COMMANDS[""]
    while words and words[0] in (getattr(command, "commands", None) or {}):
        command = command.commands[words.pop(0)]
    if name and name not in {"keys", "token"}:
        assert command is COMMANDS[name]
    made = command.make_context(command.name, list(words), resilient_parsing=False)
    assert made.args == []


def test_every_command_across_gates_has_an_example_that_can_be_typed() -> None:
    """Those of `legivellum`, each of its own command."""
    commands = {name: command for name, command in walked(get_command(_across_gates())) if name not in WORKER}
    assert commands.keys() == ACROSS_GATES_EXAMPLES.keys()
    for name, line in ACROSS_GATES_EXAMPLES.items():
        program, *words = shlex.split(line)
        assert program == "legivellum"
        command: Any = get_command(_across_gates())
        while words and words[0] in (getattr(command, "commands", None) or {}):
            command = command.commands[words.pop(0)]
        assert name in {"", "plan"} or command.name == name.split()[-1]
        assert command.make_context(command.name, words, resilient_parsing=False).args == []


def test_the_example_of_the_worker_can_be_typed() -> None:
    """The worker's parser takes it, and the help of `legivellum` names the command."""
    program, command, *words = shlex.split(OF_WORK)
    assert program == "legivellum"
    assert work_parser().parse_args(words).program == ["--", "./handler.sh"]
    program, other, *words = shlex.split(OF_ARTIFACTS)
    assert (program, {command, other}) == ("legivellum", set(WORKER))
    assert artifacts_parser().parse_args(words).file == "report.pdf"


@pytest.mark.parametrize("name", IN_A_POD)
def test_an_example_of_a_pod_can_be_typed(name: str) -> None:
    """The client's parser takes it."""
    assert parser().parse_args(shlex.split(IN_A_POD[name])[1:]).command == name


@pytest.mark.parametrize("name", ["plan", "crds apply", "bootstrap"])
def test_help_shows_the_example(name: str) -> None:
    """On a line of its own, whole, however narrow the terminal."""
    done = metagate(*name.split(), "--help", COLUMNS="60")
    assert done.returncode == 0
    assert f"\n  {(dict(EXAMPLES) | IN_A_POD)[name]}\n" in done.stdout
