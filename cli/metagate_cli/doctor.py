"""`metagate doctor`: looks at a set-up from end to end and says in plain words what is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from metagate_cli.api_client import ApiClient, ApiError, CaFile, KeyFile, TokenFile, Url, connect
from metagate_cli.output import Output, OutputOption, safe_text, structured
from metagate_cli.terminal import FAILURE, Stop, colored, progress

State = Literal["ok", "note", "wrong"]
_STYLES: Final[Mapping[State, str]] = {"ok": "green", "note": "yellow", "wrong": "red"}


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing that was looked at. `next` is what to do about it, "" when there is nothing."""

    state: State
    what: str
    says: str
    next: str = ""


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
    output: OutputOption = Output.TABLE,
) -> None:
    """Look at everything that is named and say what is wrong and what to do next. Exit 1 when something is wrong."""
    from legivellum.postgres.dsn import address

    database_url = address(database_url, "DATABASE_URL") if database_url else None
    observations: list[Observation] = []
    with progress("looking"):
        if database_url:
            observations += _check_database(database_url)
        if url:
            credential = key_file is not None or token_file is not None
            api = connect(url, key_file, token_file, ca_file, None) if credential else ApiClient(url, {}, None, ca_file)
            observations += _check_api(api, credential=credential)
        if resources is not None:
            observations += _check_files(resources)
        if cluster or kubeconfig is not None:
            observations += _check_cluster(kubeconfig)
    if not observations:
        raise Stop("look at what? Give --url, --database-url, --resources or --cluster", code=FAILURE)
    if output.structured:
        rows = [
            {"state": observation.state, "what": observation.what, "says": observation.says, "next": observation.next}
            for observation in observations
        ]
        print(structured(rows, output))
    else:
        for observation in observations:
            state = colored(f"{observation.state:5}", _STYLES[observation.state])
            print(f"{state}  {observation.what}: {observation.says}")
            if observation.next:
                print(f"       → {observation.next}")
    if any(observation.state == "wrong" for observation in observations):
        raise typer.Exit(FAILURE)


def _check_api(api: ApiClient, *, credential: bool) -> Iterator[Observation]:
    try:
        ready = api.get("/readyz")
        yield Observation("ok", "API", f"ready at {safe_text(api.url)}, serves revision {ready.get('revision')}")
    except ApiError as error:
        yield Observation(
            "wrong", "API", f"answers, but is not ready: {safe_text(error)}", "see its log, and the database"
        )
        return
    except Stop as stop:
        yield Observation("wrong", "API", str(stop), "is it running, and is this its address?")
        return
    yield from _check_snapshot(ready)
    if not credential:
        yield Observation("note", "credential", "none was given", "--key-file of an admin shows more")
        return
    try:
        principals = api.get("/v1/admin/principals", limit=500)["items"]
    except ApiError as error:
        advice = (
            "a principal of type admin is needed" if error.code == "ROLE_REQUIRED" else "declare it, or make another"
        )
        yield Observation("wrong", "credential", safe_text(error), advice)
        return
    yield Observation("ok", "credential", f"an admin's; its tenant has {_counted(len(principals))}")
    unbound = [
        principal["key"]
        for principal in principals
        if principal.get("binding") is None and principal.get("type") != "admin"
    ]
    if unbound:
        yield Observation(
            "note", "bindings", f"not bound: {safe_text(', '.join(unbound[:10]))}", "they get NO_BINDING when they boot"
        )
    incomplete = [binding["key"] for binding in api.items("/v1/admin/bindings") if binding.get("digest") is None]
    if incomplete:
        yield Observation(
            "wrong", "bindings", f"refer to something missing or invalid: {safe_text(', '.join(incomplete[:10]))}",
            "declare the Profile or Manifest that they name",
        )  # fmt: skip
    overdue = api.get("/v1/startups", status="overdue", limit=500)["items"]
    if overdue:
        names = sorted({startup["component_key"] for startup in overdue})
        yield Observation(
            "note",
            "startups",
            f"overdue: {safe_text(', '.join(names[:10]))}",
            "they booted and never said ready or failed",
        )


def _counted(principals: int) -> str:
    return "1 principal" if principals == 1 else f"{principals}{'' if principals < 500 else ' or more'} principals"


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


def _check_files(resources: Path) -> Iterator[Observation]:
    from metagate_cli.local_files import examine

    try:
        examination = examine([resources], system_namespace="metagate-system")
    except Stop as stop:
        yield Observation("wrong", "files", str(stop))
        return
    if not examination.findings:
        yield Observation("ok", "files", f"{examination.objects} objects, all valid")
    for finding in examination.findings[:20]:
        yield Observation("wrong", "files", safe_text(finding), "metagate validate says the same")


def _check_cluster(kubeconfig: Path | None) -> Iterator[Observation]:
    from metagate_crds.kinds import KINDS
    from metagate_operator.cluster.kubernetes_client import KubernetesClient, KubernetesError, collection_path
    from metagate_operator.cluster.preflight import NotReady, check_kinds

    async def check() -> list[Observation]:
        try:
            kubernetes = await KubernetesClient.connect(None if kubeconfig is None else str(kubeconfig))
        except KubernetesError as error:
            return [Observation("wrong", "cluster", safe_text(error), "is there a kubeconfig?")]
        try:
            await check_kinds(kubernetes)
            observations = [Observation("ok", "cluster", "answers, and serves every kind")]
            for kind in KINDS.values():
                items = (await kubernetes.get(collection_path(kind, None), limit=500))["items"]
                observations.extend(_check_conditions(kind.name, items))
        except NotReady as error:
            return [Observation("wrong", "cluster", safe_text(error))]
        except KubernetesError as error:
            return [Observation("wrong", "cluster", safe_text(error), "may this user list MetaGate's kinds?")]
        finally:
            await kubernetes.close()
        return observations

    yield from asyncio.run(check())


def _check_conditions(kind: str, items: list[Any]) -> Iterator[Observation]:
    for item in items:
        name = f"{kind} {item['metadata'].get('namespace', '')}/{item['metadata']['name']}".replace(" /", " ")
        conditions = {
            condition.get("type"): condition for condition in (item.get("status") or {}).get("conditions") or []
        }
        ready = conditions.get("Ready")
        if ready is None:
            yield Observation(
                "wrong", safe_text(name), "nobody has looked at it", "does the operator run, and watch here?"
            )
        elif ready.get("status") != "True":
            says = f"{ready.get('reason')}: {ready.get('message')}"
            yield Observation("wrong", safe_text(name), safe_text(says))
