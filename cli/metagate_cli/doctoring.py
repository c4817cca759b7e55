"""`metagate doctor`: looks at a set-up from end to end and says in plain words what is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from metagate_cli.asking import CaFile, Gate, KeyFile, Refused, TokenFile, Url, gate
from metagate_cli.output import Output, Printed, structured
from metagate_cli.plain import plain
from metagate_cli.terminal import FOUND, Stop, painted, working

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
    output: Printed = Output.TABLE,
) -> None:
    """Look at everything that is named and say what is wrong and what to do next. Exit 1 when something is wrong."""
    from legivellum.postgres.dsn import address

    database_url = address(database_url, "DATABASE_URL") if database_url else None
    found: list[Observation] = []
    with working("looking"):
        if database_url:
            found += _database(database_url)
        if url:
            credential = key_file is not None or token_file is not None
            asked = gate(url, key_file, token_file, ca_file, None) if credential else Gate(url, {}, None, ca_file)
            found += _gate(asked, credential=credential)
        if resources is not None:
            found += _files(resources)
        if cluster or kubeconfig is not None:
            found += _cluster(kubeconfig)
    if not found:
        raise Stop("look at what? Give --url, --database-url, --resources or --cluster", code=FOUND)
    if output.structured:
        rows = [{"state": one.state, "what": one.what, "says": one.says, "next": one.next} for one in found]
        print(structured(rows, output))
    else:
        for one in found:
            print(f"{painted(f'{one.state:5}', _STYLES[one.state])}  {one.what}: {one.says}")
            if one.next:
                print(f"       → {one.next}")
    if any(one.state == "wrong" for one in found):
        raise typer.Exit(FOUND)


def _gate(asked: Gate, *, credential: bool) -> Iterator[Observation]:
    try:
        ready = asked.get("/readyz")
        yield Observation("ok", "API", f"ready at {plain(asked.url)}, serves revision {ready.get('revision')}")
    except Refused as error:
        yield Observation("wrong", "API", f"answers, but is not ready: {plain(error)}", "see its log, and the database")
        return
    except Stop as stop:
        yield Observation("wrong", "API", str(stop), "is it running, and is this its address?")
        return
    yield from _freshness(ready)
    if not credential:
        yield Observation("note", "credential", "none was given", "--key-file of an admin shows more")
        return
    try:
        principals = asked.get("/v1/admin/principals", limit=500)["items"]
    except Refused as error:
        told = "a principal of type admin is needed" if error.code == "ROLE_REQUIRED" else "declare it, or make another"
        yield Observation("wrong", "credential", plain(error), told)
        return
    yield Observation("ok", "credential", f"an admin's; its tenant has {_counted(len(principals))}")
    unbound = [one["key"] for one in principals if one.get("binding") is None and one.get("type") != "admin"]
    if unbound:
        yield Observation(
            "note", "bindings", f"not bound: {plain(', '.join(unbound[:10]))}", "they get NO_BINDING when they boot"
        )
    incomplete = [one["key"] for one in asked.items("/v1/admin/bindings") if one.get("digest") is None]
    if incomplete:
        yield Observation(
            "wrong", "bindings", f"refer to something missing or invalid: {plain(', '.join(incomplete[:10]))}",
            "declare the Profile or Manifest that they name",
        )  # fmt: skip
    overdue = asked.get("/v1/startups", status="overdue", limit=500)["items"]
    if overdue:
        names = sorted({one["component_key"] for one in overdue})
        yield Observation(
            "note", "startups", f"overdue: {plain(', '.join(names[:10]))}", "they booted and never said ready or failed"
        )


def _counted(principals: int) -> str:
    return "1 principal" if principals == 1 else f"{principals}{'' if principals < 500 else ' or more'} principals"


def _freshness(ready: Mapping[str, Any]) -> Iterator[Observation]:
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


def _database(dsn: str) -> Iterator[Observation]:
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
        found = asyncio.run(state())
    except SchemaMismatch:
        yield Observation("wrong", "database", "has not the schema of this release", "metagate migrate")
        return
    except (StoreError, OSError) as error:
        yield Observation("wrong", "database", f"cannot be asked ({type(error).__name__})", "check DATABASE_URL")
        return
    if found.schema_version < needed_version():
        says = f"schema {found.schema_version}, this release needs {needed_version()}"
        yield Observation("wrong", "database", says, "metagate migrate")
    else:
        yield Observation("ok", "database", f"schema {found.schema_version}, revision {found.revision}")
    if found.mirror_lag_seconds > 60:
        says = f"{found.mirror_waiting} receipts wait for the ledger, the oldest for {found.mirror_lag_seconds:.0f} s"
        yield Observation("wrong", "relay", says, "does the ledger answer? The writer's log says")


def _files(resources: Path) -> Iterator[Observation]:
    from metagate_cli.offline import examine

    try:
        examined = examine([resources], system_namespace="metagate-system")
    except Stop as stop:
        yield Observation("wrong", "files", str(stop))
        return
    if not examined.findings:
        yield Observation("ok", "files", f"{examined.objects} objects, all valid")
    for finding in examined.findings[:20]:
        yield Observation("wrong", "files", plain(finding), "metagate validate says the same")


def _cluster(kubeconfig: Path | None) -> Iterator[Observation]:
    from metagate_crds.kinds import KINDS
    from metagate_operator.cluster.connection import Kubernetes, KubernetesError
    from metagate_operator.cluster.preflight import NotReady, check_kinds
    from metagate_operator.cluster.resources import collection

    async def looked() -> list[Observation]:
        try:
            kubernetes = await Kubernetes.connect(None if kubeconfig is None else str(kubeconfig))
        except KubernetesError as error:
            return [Observation("wrong", "cluster", plain(error), "is there a kubeconfig?")]
        try:
            await check_kinds(kubernetes)
            found = [Observation("ok", "cluster", "answers, and serves every kind")]
            for kind in KINDS.values():
                items = (await kubernetes.get(collection(kind, None), limit=500))["items"]
                found.extend(_unready(kind.name, items))
        except NotReady as error:
            return [Observation("wrong", "cluster", plain(error))]
        except KubernetesError as error:
            return [Observation("wrong", "cluster", plain(error), "may this user list MetaGate's kinds?")]
        finally:
            await kubernetes.close()
        return found

    yield from asyncio.run(looked())


def _unready(kind: str, items: list[Any]) -> Iterator[Observation]:
    for item in items:
        name = f"{kind} {item['metadata'].get('namespace', '')}/{item['metadata']['name']}".replace(" /", " ")
        conditions = {one.get("type"): one for one in (item.get("status") or {}).get("conditions") or []}
        ready = conditions.get("Ready")
        if ready is None:
            yield Observation("wrong", plain(name), "nobody has looked at it", "does the operator run, and watch here?")
        elif ready.get("status") != "True":
            yield Observation("wrong", plain(name), f"{plain(ready.get('reason'))}: {plain(ready.get('message'))}")
