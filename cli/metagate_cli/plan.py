"""`metagate plan`: what applying some files would do, before anybody applies them."""

from __future__ import annotations

import gc
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from metagate_cli.api_client import ApiError, CaFile, KeyFile, Tenant, TokenFile, Url, connect
from metagate_cli.help import Command
from metagate_cli.output import OutputFormat, safe_text, structured
from metagate_cli.terminal import FAILURE, USAGE, Stop, progress, start_in_thread
from metagate_cli.validation import Paths, SystemNamespace

if TYPE_CHECKING:
    from metagate_operator.sources.documents import FileContents

CHANGES: Final = 2
"""The exit code that says: it was understood, and there is something to do."""


class PlanOutput(StrEnum):
    """Those of every command, and one for pull requests."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    MARKDOWN = "markdown"


class PlanCommand(Command):
    """A command whose 2 means changes: one that was not understood exits with 1."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        try:
            return super().make_context(*arguments, **more)
        except Exception as error:
            if getattr(error, "exit_code", None) == USAGE:
                error.exit_code = FAILURE  # type: ignore[attr-defined]  # click's own, on every usage error
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
        PlanOutput,
        typer.Option("--output", "-o", help="wide leaves nothing out; markdown is for a comment on a pull request."),
    ] = PlanOutput.TABLE,
    system_namespace: SystemNamespace = "metagate-system",
) -> None:
    """Print what becomes of every principal when these files are applied. Nothing is written anywhere.

    Exit 0: nothing would change. 2: something would. 1: it could not be found out.
    """
    from functools import partial

    from metagate_cli.compile_options import compile_settings
    from metagate_cli.current_state import declared_in, world_from_api, world_from_cluster, world_from_files
    from metagate_crds.plan.planner import make_plan as planned
    from metagate_crds.plan.proposal import propose_world
    from metagate_crds.plan.serialization import plan_to_dict

    gc.disable()  # a short life, full of objects that all stay: collecting would take half of it
    parsed: dict[bytes, FileContents] = {}
    settings = compile_settings(system_namespace)
    try:
        listed = not against and not cluster and kubeconfig is None and context is None
        api = connect(url, key_file, token_file, ca_file, tenant) if url and listed else None
        # while the server is waited for, the files are read
        pending = None if api is None else start_in_thread(partial(world_from_api, api, settings))
        with progress("reading the files"):
            proposed_specs = declared_in(paths, parsed)
        with progress("looking at what is declared now"):
            if against:
                current = world_from_files(against, settings, parsed)
            elif cluster or kubeconfig is not None or context is not None:
                current = world_from_cluster(kubeconfig, context, namespace or (), settings)
            elif pending is not None:
                current = pending()
            else:
                raise Stop("compared with what? Give --against FILES, --url of a running MetaGate, or --cluster")  # noqa: TRY301
    except (Stop, ApiError) as error:
        raise Stop(safe_text(error) if isinstance(error, ApiError) else str(error), code=FAILURE) from error
    removing = bool(against) if prune is None else prune
    with progress("comparing"):
        report = plan_to_dict(planned(current, propose_world(current, proposed_specs, prune=removing)))
    _print(report, output)
    if report["changes"]:
        raise typer.Exit(CHANGES)


def _print(report: dict[str, Any], form: PlanOutput) -> None:
    from metagate_cli.plan_text import markdown, text

    if form in {PlanOutput.JSON, PlanOutput.YAML}:
        print(structured(report, OutputFormat(form.value)))
    else:
        print(markdown(report) if form is PlanOutput.MARKDOWN else text(report, wide=form is PlanOutput.WIDE))
