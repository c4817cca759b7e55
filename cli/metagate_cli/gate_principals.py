"""`metagate dev`: the Principals as which DeleGate and CogniGate act in the namespace `default`.

They are declared like any other, as files in the directory that is served, with the digests of keys that lie in the
data directory. A Principal of that name that a person declared is left as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from legivellum.identity.api_keys import digest_of, id_of
from metagate_cli.gates import key_file_of
from metagate_cli.startup_mirror import kept_key
from metagate_cli.terminal import Stop
from metagate_crds.objects import ObjectKey
from metagate_operator.sources.directory_source import DirectorySource
from metagate_operator.sources.directory_writer import DirectoryWriter
from metagate_operator.sources.documents import DEFAULT_NAMESPACE

PRINCIPAL_TYPES: Final[Mapping[str, str]] = {"delegate": "delegate", "cognigate": "worker"}
"""By the gate, which is the Principal's name too."""
_TITLES: Final = {"delegate": "DeleGate", "cognigate": "CogniGate"}
_log = structlog.stdlib.get_logger("metagate.dev")


async def declared_principal(gate: str, source: DirectorySource, writer: DirectoryWriter, data: Path) -> None:
    """Declare the Principal of a gate unless there is one. Idempotent: the same key, the same resource.

    Raises:
        OSError: the directory cannot be written.
        Stop: a Principal of this name is of another type.

    """
    key_file, kind = key_file_of(gate, data), PRINCIPAL_TYPES[gate]
    name = ObjectKey("Principal", DEFAULT_NAMESPACE, gate)
    declared = {obj.key: obj.spec for obj in (await source.listing()).objects}.get(name)
    if declared is not None and declared.get("type") != kind:
        raise Stop(
            f"the Principal {gate} of the namespace {DEFAULT_NAMESPACE} is declared with another type: "
            f"{_TITLES[gate]} needs one of type {kind} under this name"
        )
    if declared is not None:
        if not key_file.exists():
            _log.warning(f"{gate}_key_missing", file=str(key_file))
        return
    key = await asyncio.to_thread(kept_key, key_file)
    spec = {"type": kind, "apiKeys": [{"id": id_of(key.encode()), "sha256": digest_of(key)}]}
    problems = await writer.write(name, {"spec": spec})
    if not isinstance(problems, bool):
        raise Stop(f"the Principal {gate} cannot be declared: {problems[0].message}")
