"""`metagate plan`: what applying some files would do, before anybody applies them."""

from __future__ import annotations

import gc
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from metagate_cli.asking import CaFile, KeyFile, Refused, Tenant, TokenFile, Url, gate
from metagate_cli.checking import Paths, SystemNamespace
from metagate_cli.examples import Command
from metagate_cli.output import Output, structured
from metagate_cli.plain import plain
from metagate_cli.terminal import FOUND, NOT_UNDERSTOOD, Stop, meanwhile, working

if TYPE_CHECKING:
    from metagate_operator.documents import Contents

CHANGES: Final = 2
"""The exit code that says: it was understood, and there is something to do."""


class Form(StrEnum):
    """Those of every command, and one for pull requests."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    MARKDOWN = "markdown"


class Planning(Command):
    """A command whose 2 means changes: one that was not understood exits with 1."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        try:
            return super().make_context(*arguments, **more)
        except Exception as error:
            if getattr(error, "exit_code", None) == NOT_UNDERSTOOD:
                error.exit_code = FOUND  # type: ignore[attr-defined]  # click's own, on every usage error
            raise


def plan(
    paths: Paths,
    against: Annotated[
        list[Path] | None, typer.Option(help="What is declared now: other files or directories. Repeatable.")
    ] = None,
    url: Url = None,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    tenant: Tenant = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="What is declared now: in the cluster of the kubeconfig.")
    ] = False,
    kubeconfig: Annotated[Path | None, typer.Option(help="Implies --cluster. Default: KUBECONFIG.")] = None,
    context: Annotated[str | None, typer.Option(help="Of the kubeconfig; implies --cluster.")] = None,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="Of the cluster: only these; repeatable.")
    ] = None,
    prune: Annotated[
        bool | None,
        typer.Option(
            "--prune/--no-prune",
            help="What is declared now and not in the files would be removed. Default: only with --against.",
        ),
    ] = None,
    output: Annotated[
        Form,
        typer.Option("--output", "-o", help="wide leaves nothing out; markdown is for a comment on a pull request."),
    ] = Form.TABLE,
    system_namespace: SystemNamespace = "metagate-system",
) -> None:
    """Print what becomes of every principal when these files are applied. Nothing is written anywhere.

    Exit 0: nothing would change. 2: something would. 1: it could not be found out.
    """
    from functools import partial

    from metagate_cli.choices import compile_settings
    from metagate_cli.current import declared_in, of_cluster, of_files, of_gate
    from metagate_crds.planning import plan as planned
    from metagate_crds.planning import proposed
    from metagate_crds.telling import plan_told

    gc.disable()  # a short life, full of objects that all stay: collecting would take half of it
    known: dict[bytes, Contents] = {}
    settings = compile_settings(system_namespace)
    try:
        listed = not against and not cluster and kubeconfig is None and context is None
        asked = gate(url, key_file, token_file, ca_file, tenant) if url and listed else None
        # while the server is waited for, the files are read
        answered = None if asked is None else meanwhile(partial(of_gate, asked, settings))
        with working("reading the files"):
            specs = declared_in(paths, known)
        with working("looking at what is declared now"):
            if against:
                current = of_files(against, settings, known)
            elif cluster or kubeconfig is not None or context is not None:
                current = of_cluster(kubeconfig, context, namespace or (), settings)
            elif answered is not None:
                current = answered()
            else:
                raise Stop("compared with what? Give --against FILES, --url of a running MetaGate, or --cluster")  # noqa: TRY301
    except (Stop, Refused) as error:
        raise Stop(plain(error) if isinstance(error, Refused) else str(error), code=FOUND) from error
    removing = bool(against) if prune is None else prune
    with working("comparing"):
        told = plan_told(planned(current, proposed(current, specs, prune=removing)))
    _print(told, output)
    if told["changes"]:
        raise typer.Exit(CHANGES)


def _print(told: dict[str, Any], form: Form) -> None:
    from metagate_cli.plan_text import markdown, text

    if form in {Form.JSON, Form.YAML}:
        print(structured(told, Output(form.value)))
    else:
        print(markdown(told) if form is Form.MARKDOWN else text(told, wide=form is Form.WIDE))
