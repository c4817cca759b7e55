"""`metagate crds`: the language, as Kubernetes is told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metagate_cli.help import Command, Group
from metagate_cli.terminal import Stop, print_note, progress

app = typer.Typer(cls=Group, rich_markup_mode=None, help="Print the CRDs, or apply them to a cluster.")


@app.callback(invoke_without_command=True)
def crds(
    context: typer.Context,
    directory: Annotated[Path | None, typer.Option(help="Write one file per kind there instead of printing.")] = None,
) -> None:
    """Print the CRDs, ready for `kubectl apply -f -`."""
    if context.invoked_subcommand is not None:
        return
    from metagate_crds.crd_yaml import crd_files, crd_yaml

    definitions = crd_files()
    if directory is None:
        print(crd_yaml(), end="")
        return
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in definitions.items():
        (directory / name).write_text(text, encoding="utf-8")
    print_note(f"{len(definitions)} files in {directory}")


@app.command("apply", cls=Command)
def apply_crds(
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="Default: the pod's service account, else KUBECONFIG.", envvar="METAGATE_KUBECONFIG"),
    ] = None,
    within: Annotated[float, typer.Option(help="Seconds until all of them must be served.")] = 60.0,
    field_manager: Annotated[
        str, typer.Option(help="Who owns them then; `helm` where Helm installs them too.")
    ] = "metagate-crds",
) -> None:
    """Apply them server-side and wait until they are served. Harmless when nothing changed; nothing is ever removed."""
    import asyncio

    from metagate_operator.cluster.crd_installer import apply_crds
    from metagate_operator.cluster.kubernetes_client import KubernetesClient, KubernetesError

    async def apply() -> tuple[str, ...]:
        kubernetes = await KubernetesClient.connect(None if kubeconfig is None else str(kubeconfig))
        try:
            return await apply_crds(kubernetes, within=within, manager=field_manager)
        finally:
            await kubernetes.close()

    try:
        with progress("applying them and waiting until they are served"):
            changed = asyncio.run(apply())
    except KubernetesError as error:
        raise Stop(str(error)) from error
    print_note(f"changed {', '.join(changed)}" if changed else "nothing to do: the cluster serves these CRDs")
