"""`metagate completion`: what a shell needs to complete commands, options and their values."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from metagate_cli.help import Command


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="Whose.")]) -> None:
    """Print the script that completes `metagate` in a shell.

    For every new shell: add the example to ~/.bashrc; to ~/.zshrc as `source <(metagate completion zsh)` after
    compinit; or write the output to ~/.config/fish/completions/metagate.fish.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # imported there to be used

    print(get_completion_script(prog_name="metagate", complete_var="_METAGATE_COMPLETE", shell=shell.value))


class ClientCommand(Command):
    """`bootstrap`, `ready`, `failed` or `run`: the client runs them, and here they are only listed and completed."""

    ignore_unknown_options = True
    allow_extra_args = True

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """The options that the client's own parser has, or the values of the one before."""
        from typer._click.shell_completion import CompletionItem

        options = self._options()
        choices = next((choices for names, choices, _ in options if ctx.args and ctx.args[-1] in names), ())
        if choices:
            return [CompletionItem(choice) for choice in choices if choice.startswith(incomplete)]
        return [
            CompletionItem(name, help=about)
            for names, _, about in options
            for name in names
            if name.startswith(incomplete) and name not in ctx.args
        ]

    def _options(self) -> list[tuple[Sequence[str], Sequence[str], str]]:
        from metagate_client.arguments import command_parser, options_of

        return options_of(command_parser(str(self.name)))


class WorkerCommand(ClientCommand):
    """`legivellum work` and `legivellum artifacts`, which the worker library runs."""

    def _options(self) -> list[tuple[Sequence[str], Sequence[str], str]]:
        from legivellum_worker import artifact_commands, main
        from metagate_client.arguments import options_of

        if self.name == "work":
            return options_of(main.parser())
        return [option for command in artifact_commands.commands().values() for option in options_of(command)]


def client_command() -> None:
    """What a pod runs: see its --help."""
    raise AssertionError("main() hands it to the client")  # pragma: no cover
