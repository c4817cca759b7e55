"""`metagate dev --with delegate`: the Principal on whose behalf DeleGate writes in the namespace `default`.

It is declared like any other, as a file in the directory that is served, with the digest of a key that lies where
DeleGate looks for credentials. A Principal of that name that a person declared is left as it is.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from legivellum.identity.api_keys import digest_of, id_of
from metagate_cli.gates import DELEGATE_CREDENTIALS
from metagate_cli.startup_mirror import kept_key
from metagate_cli.terminal import Stop
from metagate_crds.objects import ObjectKey
from metagate_operator.sources.directory_source import DirectorySource
from metagate_operator.sources.directory_writer import DirectoryWriter
from metagate_operator.sources.documents import DEFAULT_NAMESPACE

DELEGATE = "delegate"
"""The name of the Principal, and its type."""
_log = structlog.stdlib.get_logger("metagate.dev")


async def declared_delegate(source: DirectorySource, writer: DirectoryWriter, data: Path) -> None:
    """Declare the Principal unless there is one. Idempotent: the same key, the same resource.

    Raises:
        OSError: the directory cannot be written.
        Stop: a Principal of this name is of another type.

    """
    key_file = data / DELEGATE_CREDENTIALS / DEFAULT_NAMESPACE
    name = ObjectKey("Principal", DEFAULT_NAMESPACE, DELEGATE)
    declared = {obj.key: obj.spec for obj in (await source.listing()).objects}.get(name)
    if declared is not None and declared.get("type") != DELEGATE:
        raise Stop(
            f"the Principal {DELEGATE} of the namespace {DEFAULT_NAMESPACE} is declared with another type: "
            f"DeleGate needs one of type {DELEGATE} under this name"
        )
    if declared is not None:
        if not key_file.exists():
            _log.warning("delegate_key_missing", file=str(key_file))
        return
    key = await asyncio.to_thread(kept_key, key_file)
    spec = {"type": DELEGATE, "apiKeys": [{"id": id_of(key.encode()), "sha256": digest_of(key)}]}
    problems = await writer.write(name, {"spec": spec})
    if not isinstance(problems, bool):
        raise Stop(f"the Principal {DELEGATE} cannot be declared: {problems[0].message}")
