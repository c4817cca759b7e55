"""`metagate dev --with memorygate`: startups are mirrored to the ledger beside MetaGate, whose witness is known to it.

The witness is a Principal like any other (D-34), so it is declared like any other: as a file in the directory that is
served, with the digest of a key that lies in the data directory.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from legivellum.identity.api_keys import digest_of, id_of, mint
from metagate_cli.database import DatabaseUrls
from metagate_cli.terminal import Stop
from metagate_crds.objects import ObjectKey
from metagate_operator.ledger.ledger_client import HttpLedgerClient, LedgerAccess
from metagate_operator.ledger.relay import run_relay
from metagate_operator.settings import LedgerSettings
from metagate_operator.sources.directory_writer import DirectoryWriter

WITNESS = "ledger-witness"


async def declared_witness(writer: DirectoryWriter, namespace: str, data: Path) -> Path:
    """The file of the witness's key; the Principal is declared. Idempotent: the same key, the same resource.

    Raises:
        OSError: the directory cannot be written.

    """
    key_file = data / "keys" / f"{WITNESS}.key"
    key = await asyncio.to_thread(kept_key, key_file)
    spec = {
        "type": "service",
        "rights": ["witness"],
        "apiKeys": [{"id": id_of(key.encode()), "sha256": digest_of(key)}],
    }
    problems = await writer.write(ObjectKey("Principal", namespace, WITNESS), {"spec": spec})
    if not isinstance(problems, bool):
        raise Stop(f"the witness cannot be declared: {problems[0].message}")
    return key_file


@asynccontextmanager
async def mirroring(database: DatabaseUrls, url: str | None, witness: Path | None) -> AsyncIterator[str | None]:
    """Relay startups to the ledger at `url` with the witness's key, else to the one that the environment names, else to
    none. Yields the ledger's URL.
    """
    access = LedgerSettings().access if url is None else LedgerAccess(url, api_key_file=witness)
    if access is None:
        yield None
        return
    relaying = asyncio.create_task(run_relay(database.publisher, HttpLedgerClient(access)), name="relay")
    try:
        yield access.url
    finally:
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)


def kept_key(path: Path) -> str:
    """The API key in a file; made at the first time, 0600."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(mint().key + "\n")
    return path.read_text(encoding="ascii").strip()
