"""`metagate crds`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metagate_cli.terminal import say


def crds(
    directory: Annotated[Path | None, typer.Option(help="Write one file per kind there instead of printing.")] = None,
) -> None:
    """Print the CRDs, ready for `kubectl apply -f -`."""
    from metagate_crds.crd_yaml import documents, render

    found = documents()
    if directory is None:
        print(render(), end="")
        return
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in found.items():
        (directory / name).write_text(text, encoding="utf-8")
    say(f"{len(found)} files in {directory}")
