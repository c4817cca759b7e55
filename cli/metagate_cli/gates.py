"""`metagate dev --with`: which gates are served beside MetaGate, out of the same database."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from metagate_cli.database import as_role, withdraw_memberships

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

    from legivellum.gate.definition import Definition, GateDefinition
    from metagate_cli.database import DatabaseUrls

GATES: Final[Mapping[str, str]] = {
    "memorygate": "memorygate.gate:GATE",
    "asyncgate": "asyncgate.gate:GATE",
    "depotgate": "depotgate.gate:GATE",
    "interrogate": "interrogate.gate:GATE",
    "delegate": "delegate.gate:GATE",
    "cognigate": "cognigate.gate:GATE",
}
"""Where each gate's definition is, by the gate's name, in the order in which they are migrated: DepotGate looks whether
AsyncGate's schema is there (DP-04). DeleGate is the last, because it is told where the others are."""
IMPLIED: Final[Mapping[str, tuple[str, ...]]] = {
    "asyncgate": ("memorygate",),
    "depotgate": ("memorygate",),
    "interrogate": ("memorygate",),
    "delegate": ("memorygate", "asyncgate", "depotgate"),
    "cognigate": ("memorygate", "asyncgate", "depotgate", "delegate"),
}
"""Gates that are served before others: what a gate writes can only be read at the ledger, plans need all three, and
CogniGate does their steps."""
ALL: Final = "all"
ARTIFACTS: Final = "depot"
"""In the data directory: the bytes of DepotGate's artifacts."""
COGNIGATE: Final = "cognigate"
"""Not served in this process: cognigate_process.py runs it."""
CEILINGS_FILE: Final = "ceilings.json"
"""In the data directory: what plans may grant their steps, where DeleGate makes them and nothing else is chosen."""
CEILING: Final[Mapping[str, Any]] = {
    "spawn": {"max": 20},
    "invokeCognigate": True,
    "exposeTools": ["*"],
    "writeBeyondReceipts": True,
    "maxDepth": 8,
    "sinks": ["depotgate/output", "depotgate/supporting"],
    "cognition": {"models": ["default"], "calls": 20, "tokens": 200_000, "seconds": 600},
}
DELEGATE_CREDENTIALS: Final = "delegate"
"""In the data directory: a file for each namespace that DeleGate serves, with the key of its `delegate` Principal."""
AUDITOR_FILE: Final = "auditor.url"
"""In the data directory: the database as the ledger's auditor, for `memorygate verify` and `interrogate replay`."""


def gate_definitions(names: Sequence[str]) -> tuple[Definition[Any, Any], ...]:
    """The gates that are named: one by its name in GATES, a gate under development as `module:ATTRIBUTE`, all of them
    as `all`; several in one text with commas between. Each once, those of GATES first and in its order.

    Raises ValueError, which says what is there instead.
    """
    from legivellum.gate.definition import load_definition

    references: dict[str, None] = {}
    for name in (name.strip() for text in names for name in text.split(",")):
        if name == ALL:
            references.update(dict.fromkeys(GATES.values()))
        elif name in GATES:
            references.update(dict.fromkeys(GATES[needed] for needed in (*IMPLIED.get(name, ()), name)))
        elif ":" in name:
            references[name] = None
            if "" not in sys.path:
                sys.path.insert(0, "")  # a gate under development is a module of the directory one works in
        else:
            raise ValueError(f"there is no gate {name!r}: {', '.join(GATES)}, {ALL}, or module:ATTRIBUTE")
    ordered = [reference for reference in GATES.values() if reference in references]
    ordered += [reference for reference in references if reference not in ordered]
    try:
        return tuple(load_definition(reference) for reference in ordered)
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"no gate can be loaded: {error}") from error


@asynccontextmanager
async def serving_gates(
    database: DatabaseUrls, definitions: Sequence[Definition[Any, Any]], data: Path
) -> AsyncIterator[Mapping[str, str]]:
    """Migrate each gate's schema and serve it, each as a role of its own. Yields their URLs by name. With a ledger, its
    auditor's way into the database is in `data`.

    Raises:
        OSError: a gate's port is taken.
        DatabaseError: a schema cannot be migrated.

    """
    from legivellum.gate.composition import serving
    from legivellum.gate.definition import GateDefinition

    async with AsyncExitStack() as stack:
        urls: dict[str, str] = {}
        for definition in definitions:
            if definition.name == COGNIGATE:
                continue
            settings = definition.settings()
            chosen = {
                "identity_database_url": SecretStr(database.identity),
                **(await _migrated(database, definition, data) if isinstance(definition, GateDefinition) else {}),
                **_local_settings(definition.name, settings, definitions, data, urls),
            }
            settings = settings.model_copy(update=chosen)
            urls[definition.name] = await stack.enter_async_context(serving(definition, settings))
        await withdraw_memberships(database)
        yield urls


async def _migrated(
    database: DatabaseUrls, definition: GateDefinition[Any, Any], data: Path
) -> Mapping[str, SecretStr]:
    """Migrate the gate's schema with a new password for its role. Returns the settings that connect it."""
    password = secrets.token_urlsafe(24)
    passwords = {definition.role: password}
    if definition.mirrors_startups:
        passwords |= keep_auditor(database, data)
    await definition.migrate(database.administrator, passwords=passwords)
    return {"database_url": SecretStr(as_role(database.owner, definition.role, password))}


def _local_settings(
    name: str,
    settings: BaseSettings,
    definitions: Sequence[Definition[Any, Any]],
    data: Path,
    urls: Mapping[str, str],
) -> dict[str, Any]:
    """What a gate does on one machine unless its variables say otherwise.

    DepotGate keeps bytes in the data directory, and outputs without a lease where no AsyncGate is served. AsyncGate
    lets plans grant what one needs to try them. InterroGate may forward to the DeleGate beside it. DeleGate asks the
    gates beside it, and is asked through InterroGate if that is one of them.
    """
    served = {definition.name: definition for definition in definitions}
    local: dict[str, Any] = {}
    if name == "depotgate":
        leases = "required" if "asyncgate" in served else "optional"
        local = {"store": (data / ARTIFACTS).resolve().as_uri(), "leases": leases}
    elif name == "asyncgate" and "delegate" in served:
        path = data / CEILINGS_FILE
        path.write_text(json.dumps([{"namespaces": ["*"], "authority": CEILING}], indent=2), encoding="utf-8")
        local = {"ceilings_file": str(path)}
    elif name == "interrogate" and "delegate" in served:
        local = {"target_hosts": f"127.0.0.1:{served['delegate'].settings().port}"}
    elif name == "delegate":
        admission = "required" if "interrogate" in served else "off"
        local = {"credentials": str(data / DELEGATE_CREDENTIALS), "admission": admission}
        local |= {f"{gate}_url": url for gate, url in urls.items()}
    return {field: value for field, value in local.items() if field not in settings.model_fields_set}


def keep_auditor(database: DatabaseUrls, data: Path) -> Mapping[str, str]:
    """A new password of the ledger's auditor, by its role's name; kept for the person at this machine."""
    from memorygate.schema import AUDITOR

    password = secrets.token_urlsafe(24)
    path = data / AUDITOR_FILE
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(as_role(database.owner, AUDITOR, password) + "\n")
    return {AUDITOR: password}
