"""Everything on one machine: a database, a directory that is watched, the writer and the API in one process, and the
gates beside them.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from pydantic import SecretStr

from legivellum.base.supervision import run_until_first_exit
from legivellum.gate.definition import Definition
from metagate_api.declared_files import FileWritten, ResourceFinding
from metagate_api.server import serving
from metagate_api.settings import Settings
from metagate_cli.compile_options import compile_settings
from metagate_cli.database import DatabaseUrls, database
from metagate_cli.gate_principals import PRINCIPAL_TYPES, declared_principal
from metagate_cli.gates import require_free_ports, serving_gates
from metagate_cli.startup_mirror import declared_witness, mirroring
from metagate_cli.terminal import Stop
from metagate_crds.objects import ObjectKey
from metagate_operator.issuers.key_fetcher import HttpsKeyFetcher
from metagate_operator.issuers.key_refresher import KeyRefresher
from metagate_operator.reconcile.reconciler import Reconciler
from metagate_operator.reconcile.verdict_log import VerdictLog
from metagate_operator.retention import RetentionTask
from metagate_operator.settings import WriterSettings, kill_at
from metagate_operator.sources.directory_source import DirectorySource
from metagate_operator.sources.directory_writer import DirectoryWriter
from metagate_operator.sources.file_identities import FileIdentities
from metagate_operator.sources.source import SourceUnavailable
from metagate_store.maintenance import MaintenanceStore
from metagate_store.publisher import Publisher

SYSTEM_NAMESPACE = "metagate-system"
FIRST_PASS_SECONDS = 10.0
_log = structlog.stdlib.get_logger("metagate.dev")


@dataclass(frozen=True, slots=True)
class Machine:
    """A running one. `ended` completes when a task of the writer ends: with its error, or else its name."""

    url: str
    source: DirectorySource
    reconciler: Reconciler
    ended: asyncio.Task[str]
    ledger_url: str | None = None
    gates: Mapping[str, str] = field(default_factory=dict)
    """URLs of the gates that are served beside MetaGate, by name."""


class FilesFromRequests:
    """Writes what is declared over HTTP into the directory (D-12, D-53)."""

    def __init__(self, writer: DirectoryWriter) -> None:
        self._writer = writer

    async def write(
        self, *, kind: str, namespace: str, name: str, resource: Mapping[str, Any]
    ) -> FileWritten | Sequence[ResourceFinding]:
        with _as_os_error():
            outcome = await self._writer.write(ObjectKey(kind, namespace, name), resource)
        if isinstance(outcome, bool):
            return FileWritten(created=outcome)
        return [ResourceFinding(problem.path, problem.reason, problem.message) for problem in outcome]

    async def remove(self, *, kind: str, namespace: str, name: str) -> bool:
        with _as_os_error():
            return await self._writer.remove(ObjectKey(kind, namespace, name))


@contextmanager
def _as_os_error() -> Iterator[None]:
    """The gate answers 503 to whatever the disk does; a directory that cannot be listed is one of those things."""
    try:
        yield
    except SourceUnavailable as error:
        raise OSError(errno.EIO, str(error)) from error


@asynccontextmanager
async def machine(
    resources: Path,
    data: Path,
    settings: Settings,
    *,
    database_url: str | None = None,
    gates: Sequence[Definition[Any, Any]] = (),
    logs: Path | None = None,
) -> AsyncIterator[Machine]:
    """Start all of it; everything is served when the block begins, and stopped in order when it ends.

    `gates` are served beside MetaGate, each in a process of its own; `logs` is the directory for what these log, unless
    it is standard error. Startups are mirrored to the ledger among them; without one, to the ledger that
    `METAGATE_LEDGER_URL` names.

    Raises:
        PostgresError, StoreError: the database cannot be used.
        OSError: the port is taken.
        Stop: a gate's port is, or a gate ends before it serves.

    """
    require_free_ports(gates)
    async with database(data, database_url) as urls:
        ledger = next((gate.name for gate in gates if gate.mirrors_startups), None)
        writing, mirror = WriterSettings(), ledger is not None or settings.mirror
        publisher = await Publisher.open(urls.publisher, failpoint=kill_at(writing.fail.split(",")))
        identities = FileIdentities()
        source = DirectorySource(resources, identities, system_namespace=SYSTEM_NAMESPACE)
        compiling = compile_settings(SYSTEM_NAMESPACE, settings, place="standalone")
        reconciler = Reconciler(
            source=source,
            publisher=publisher,
            reporter=VerdictLog(source.origin),
            compile_settings=compiling,
            settings=writing,
            identities=identities,
            mirror=mirror,
        )
        maintenance = MaintenanceStore(urls.publisher)
        retention = timedelta(hours=settings.receipt_retention_hours)
        housekeeper = RetentionTask(maintenance, retention=retention, mirroring=mirror)
        ended = asyncio.create_task(
            run_until_first_exit(
                reconciler=reconciler.run,
                issuers=KeyRefresher(store=publisher, web=HttpsKeyFetcher()).run,
                housekeeping=housekeeper.run,
                database=partial(_watch, urls, data),
            ),
            name="ended",
        )
        writer = DirectoryWriter(source, compiling)
        declared = FilesFromRequests(writer)
        try:
            await _first_publish(reconciler.published(), ended)
            witness = None if ledger is None else await declared_witness(writer, SYSTEM_NAMESPACE, data)
            for gate in gates:
                if gate.name in PRINCIPAL_TYPES:
                    await declared_principal(gate.name, source, writer, data)
            async with (
                serving_gates(urls, gates, data, logs) as gate_urls,
                mirroring(urls, gate_urls.get(ledger or ""), witness) as ledger_url,
            ):
                served = settings.model_copy(update={"database_url": SecretStr(urls.api), "ledger_url": ledger_url})
                if ledger is not None and "console_ledger_url" not in settings.model_fields_set:
                    served = served.model_copy(update={"console_ledger_url": f"{ledger_url}/console"})
                async with serving(served, declared=declared) as url:
                    yield Machine(url, source, reconciler, ended, ledger_url, gate_urls)
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
            for opened in (publisher, maintenance):
                with suppress(Exception):
                    await opened.close()


async def _watch(urls: DatabaseUrls, data: Path) -> None:
    """Ends everything when our own server ended by itself: whoever started us starts us again, and it recovers."""
    while urls.running():  # noqa: ASYNC110 - a process ends without telling us
        await asyncio.sleep(0.5)
    raise Stop(f"PostgreSQL ended by itself; {data}/postgres.log says why. Start again: it recovers")


async def _first_publish(published: Awaitable[object], ended: asyncio.Task[str]) -> None:
    """Wait until the writer has published. Raises its error when it ends first; after `FIRST_PASS_SECONDS` what was
    published before is served.
    """
    waiting = asyncio.ensure_future(published)
    try:
        await asyncio.wait({waiting, ended}, return_when=asyncio.FIRST_COMPLETED, timeout=FIRST_PASS_SECONDS)
        if ended.done():
            ended.result()
    finally:
        waiting.cancel()
