"""The database of notes: one method for each statement."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from legivellum.postgres.migrations import Schema
from legivellum.postgres.pool import PooledDatabase
from legivellum.receipts.receipt import Receipt

WRITER = "samplegate_writer"
SCHEMA = Schema(
    name="samplegate",
    package="tests.sample_gate",
    lock=0x73616D70_6C656761,
    owner="depotgate_owner",  # it stands in DepotGate's place: this role may emit artifacts
    roles={WRITER: {"statement_timeout": "700ms", "lock_timeout": "300ms"}},
)


@dataclass(frozen=True, slots=True)
class Note:
    note_id: str
    author: str
    text: str
    receipt_id: str


class NoteStore(PooledDatabase):
    application_name = "samplegate"

    async def schema_version(self) -> int:
        return int(await self._pool.fetchval("SELECT schema_version FROM samplegate.state()") or 0)

    async def store(self, tenant: UUID, note: Note, receipt: Receipt) -> str:
        """The ledger's outcome, or NOTE_EXISTS: the note and its receipt are stored together or not at all."""
        return str(
            await self._pool.fetchval(
                "SELECT samplegate.store($1, $2, $3, $4, $5, $6)",
                tenant, note.note_id, note.author, note.text, note.receipt_id, receipt.form.decode(),
            )
        )  # fmt: skip

    async def count(self, tenant: UUID) -> tuple[datetime, int]:
        return tuple(await self._pool.fetchrow("SELECT as_of, notes FROM samplegate.interview($1)", tenant))

    async def note(self, tenant: UUID, note_id: str) -> Note | None:
        row = await self._pool.fetchrow("SELECT * FROM samplegate.note($1, $2)", tenant, note_id)
        return None if row is None else Note(*row)
