"""`metagate completion`: what a shell needs to complete commands, options and their values."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


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


def client_command() -> None:
    """What a pod runs: see its --help."""
    raise AssertionError("main() hands it to the client")  # pragma: no cover
