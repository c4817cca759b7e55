"""`metagate doctor`: looks at a set-up from end to end and says in plain words what is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from metagate_cli.api_client import ApiClient, ApiError, CaFile, KeyFile, TokenFile, Url, connect
from metagate_cli.observations import Observation, names_text
from metagate_cli.output import OutputFormat, OutputOption, safe_text, structured
from metagate_cli.terminal import FAILURE, Stop, progress

BOOTING_TYPES: Final = frozenset({"component", "delegate", "worker"})
"""Types of Principals that boot; a person who looks and a gate that calls need no Binding."""
FINDINGS_SHOWN: Final = 20


def doctor(
    url: Url = None,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    database_url: Annotated[
        str | None,
        typer.Option(help="Look at this database too.", envvar=["METAGATE_DATABASE_URL", "DATABASE_URL"]),
    ] = None,
    resources: Annotated[Path | None, typer.Option(help="Look at these declared files too.")] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Look at the cluster of the kubeconfig too.")] = False,
    kubeconfig: Annotated[Path | None, typer.Option(help="Implies --cluster. Default: KUBECONFIG.")] = None,
    pre: Annotated[
        bool, typer.Option("--pre", help="Of the cluster: whether the chart can be installed; implies --cluster.")
    ] = False,
    system_namespace: Annotated[
        str, typer.Option(help="Of the cluster: where MetaGate is or will be.")
    ] = "metagate-system",
    boot: Annotated[
        bool,
        typer.Option(
            "--boot",
            help="Of the cluster: boot a component, made for this, at --url. Its startup and receipt stay.",
        ),
    ] = False,
    audience: Annotated[str, typer.Option(help="Of the token that --boot boots with.")] = "metagate",
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Look at everything that is named and say what is wrong and what to do next. Exit 1 when something is wrong."""
    from legivellum.postgres.dsn import address

    if boot and (pre or not url):
        raise Stop(
            "--boot boots at --url, after an install: kubectl port-forward -n NAMESPACE service/metagate 8000:8000"
        )
    database_url = address(database_url, "DATABASE_URL") if database_url else None
    all_names = output is not OutputFormat.TABLE
    observations: list[Observation] = []
    with progress("looking"):
        if database_url:
            observations += _check_database(database_url)
        if url:
            credential = key_file is not None or token_file is not None
            api = connect(url, key_file, token_file, ca_file, None) if credential else ApiClient(url, {}, None, ca_file)
            observations += _check_api(api, credential=credential, all_names=all_names)
        if resources is not None:
            observations += _check_files(resources, all_findings=all_names)
        if cluster or pre or boot or kubeconfig is not None:
            from metagate_cli.boot_check import BootTarget
            from metagate_cli.cluster_checks import check_before_install, check_cluster

            if pre:
                observations += check_before_install(kubeconfig, system_namespace)
            else:
                target = BootTarget(url, audience, ca_file) if boot and url else None
                observations += check_cluster(kubeconfig, system_namespace, target)
    if not observations:
        raise Stop("look at what? Give --url, --database-url, --resources or --cluster", code=FAILURE)
    if output.structured:
        rows = [{"state": seen.state, "what": seen.what, "says": seen.says, "next": seen.next} for seen in observations]
        print(structured(rows, output))
    else:
        for observation in observations:
            print("\n".join(observation.lines()))
    if any(observation.state == "wrong" for observation in observations):
        raise typer.Exit(FAILURE)


def _check_api(api: ApiClient, *, credential: bool, all_names: bool) -> Iterator[Observation]:
    try:
        ready = api.get("/readyz")
        yield Observation("ok", "API", f"ready at {safe_text(api.url)}, serves revision {ready.get('revision')}")
    except ApiError as error:
        says = f"answers, but is not ready: {safe_text(error)}"
        yield Observation("wrong", "API", says, "see its log, and the database")
        return
    except Stop as stop:
        yield Observation("wrong", "API", str(stop), "is it running, and is this its address?")
        return
    yield from _check_snapshot(ready)
    if not credential:
        yield Observation("note", "credential", "none was given", "--key-file of an admin shows more")
        return
    try:
        principals = list(api.items("/v1/admin/principals"))
    except ApiError as error:
        role = error.code == "ROLE_REQUIRED"
        advice = "a principal of type admin is needed" if role else "declare it, or make another"
        yield Observation("wrong", "credential", safe_text(error), advice)
        return
    count = "1 principal" if len(principals) == 1 else f"{len(principals)} principals"
    yield Observation("ok", "credential", f"an admin's; its tenant has {count}")
    yield from _check_bindings(api, principals, all_names=all_names)
    yield from _check_startups(api, all_names=all_names)


def _check_bindings(api: ApiClient, principals: list[dict[str, Any]], *, all_names: bool) -> Iterator[Observation]:
    unbound = [
        principal["key"]
        for principal in principals
        if principal.get("binding") is None and principal.get("type") in BOOTING_TYPES
    ]
    if unbound:
        says = f"not bound: {names_text(unbound, all_of_them=all_names)}"
        yield Observation("note", "bindings", says, "they get NO_BINDING when they boot")
    incomplete = [binding["key"] for binding in api.items("/v1/admin/bindings") if binding.get("digest") is None]
    if incomplete:
        says = f"refer to something missing or invalid: {names_text(incomplete, all_of_them=all_names)}"
        yield Observation("wrong", "bindings", says, "declare the Profile or Manifest that they name")


def _check_startups(api: ApiClient, *, all_names: bool) -> Iterator[Observation]:
    """Counts come from the summary; there may be millions of startups, so names are those of the newest 500."""
    try:
        summary = api.get("/v1/summary")
    except ApiError as error:  # an admin of the cluster has no tenant of its own
        yield Observation("note", "startups", f"cannot be counted: {safe_text(error)}")
        return
    for status, count, advice in (
        ("overdue", summary["overdue"], "they booted and never said ready or failed"),
        ("FAILED", summary["startups"]["failed"], "why: metagate startups --status failed"),
    ):
        newest = api.get("/v1/startups", status=status, limit=500)["items"] if count else []
        if newest:
            names = sorted({startup["component_key"] for startup in newest})
            says = f"{count} {status}: {names_text(names, all_of_them=all_names)}"
            yield Observation("note", "startups", says, advice)


def _check_snapshot(ready: Mapping[str, Any]) -> Iterator[Observation]:
    if not ready.get("revision"):
        yield Observation("wrong", "snapshot", "nothing was ever published", "is a writer (operator or dev) running?")
        return
    compiled = ready.get("compiled_at")
    if isinstance(compiled, str):
        age = (datetime.now(UTC) - datetime.fromisoformat(compiled)).total_seconds()
        if age < -60:
            yield Observation(
                "wrong", "clocks", "the database's clock is ahead of this machine's", "compare both clocks"
            )


def _check_database(dsn: str) -> Iterator[Observation]:
    from metagate_store.errors import SchemaMismatch, StoreError
    from metagate_store.migrating import needed_version
    from metagate_store.reader import Reader

    async def state() -> Any:
        reader = await Reader.connect(dsn, size=1, acquire_timeout=5, query_timeout=5)
        try:
            return await reader.state()
        finally:
            await reader.close()

    try:
        database = asyncio.run(state())
    except SchemaMismatch:
        yield Observation("wrong", "database", "has not the schema of this release", "metagate migrate")
        return
    except (StoreError, OSError) as error:
        yield Observation("wrong", "database", f"cannot be asked ({type(error).__name__})", "check DATABASE_URL")
        return
    if database.schema_version < needed_version():
        says = f"schema {database.schema_version}, this release needs {needed_version()}"
        yield Observation("wrong", "database", says, "metagate migrate")
    else:
        yield Observation("ok", "database", f"schema {database.schema_version}, revision {database.revision}")
    if database.mirror_lag_seconds > 60:
        oldest = f"the oldest for {database.mirror_lag_seconds:.0f} s"
        says = f"{database.mirror_waiting} receipts wait for the ledger, {oldest}"
        yield Observation("wrong", "relay", says, "does the ledger answer? The writer's log says")


def _check_files(resources: Path, *, all_findings: bool) -> Iterator[Observation]:
    from metagate_cli.local_files import examine

    try:
        examination = examine([resources], system_namespace="metagate-system")
    except Stop as stop:
        yield Observation("wrong", "files", str(stop))
        return
    findings = examination.findings
    if not findings:
        yield Observation("ok", "files", f"{examination.objects} objects, all valid")
    shown = findings if all_findings else findings[:FINDINGS_SHOWN]
    for finding in shown:
        yield Observation("wrong", "files", safe_text(finding), "metagate validate says the same")
    if len(shown) < len(findings):
        says = f"{len(findings) - len(shown)} findings more"
        yield Observation("wrong", "files", says, "metagate validate says all of them")
