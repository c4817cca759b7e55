"""What DepotGate's handlers share: the process, its store, the batcher of deposits, the slots of transfers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from depotgate import metrics
from depotgate.artifact import Upload
from depotgate.blobs import Blobs
from depotgate.database import DepotGateDatabase
from depotgate.outcomes import StoreResult
from depotgate.settings import Settings
from depotgate.stores import open_blobs
from depotgate.transfers import TransferSlots
from legivellum.gate.process import GateProcess
from legivellum.http.batching import Batcher, BatchLimits

DepotGateProcess = GateProcess[Settings, DepotGateDatabase]


@dataclass(frozen=True, slots=True)
class DepotGate:
    """One per process."""

    process: DepotGateProcess
    blobs: Blobs
    deposits: Batcher[Upload, StoreResult]
    uploads: TransferSlots
    downloads: TransferSlots

    @classmethod
    def of(cls, process: DepotGateProcess) -> DepotGate:
        """Raises UnusableStore."""
        settings = process.settings

        async def store(uploads: Sequence[Upload]) -> list[StoreResult]:
            # The database is looked up for each statement: it may not have been reached yet.
            return await process.database.store(uploads, location=settings.public_url)

        limits = BatchLimits(queue=settings.queue, statement_seconds=settings.deadline_seconds)
        gate = cls(
            process,
            open_blobs(settings.store, sse=settings.s3_sse, kms_key=settings.s3_kms_key),
            Batcher(store, name="store artifacts", limits=limits),
            TransferSlots(settings.uploads, "uploads", metrics.UPLOADS),
            TransferSlots(settings.downloads, "downloads", metrics.DOWNLOADS),
        )
        process.beside.append(gate.running)
        return gate

    @property
    def settings(self) -> Settings:
        return self.process.settings

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self.deposits.close()
            await self.blobs.close()
