"""`metagate dev --with`: which gates are served beside MetaGate, out of the same database."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from metagate_cli.cognigate_process import wait_until_known, worker_environment
from metagate_cli.database import as_role, withdraw_memberships
from metagate_cli.gate_processes import GateCommand, chosen_port, running_gates

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
"""A worker: it has no database and no address that anybody calls."""
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
    database: DatabaseUrls, definitions: Sequence[Definition[Any, Any]], data: Path, logs: Path | None = None
) -> AsyncIterator[Mapping[str, str]]:
    """Migrate each gate's schema and serve it in a process of its own, as a role of its own. Yields their URLs by name.
    With a ledger, its auditor's way into the database is in `data`.

    Raises:
        Stop: a gate's port is taken, or it ends before it serves.
        DatabaseError: a schema cannot be migrated.

    """
    from legivellum.gate.definition import GateDefinition

    commands = gate_commands(definitions, data)
    for definition in definitions:
        if isinstance(definition, GateDefinition):
            commands[definition.name].settings.update(await _migrated(database, definition, data))
        if definition.name != COGNIGATE:
            commands[definition.name].settings["identity_database_url"] = SecretStr(database.identity)
    await withdraw_memberships(database)
    async with running_gates(list(commands.values()), logs):
        yield {name: command.url for name, command in commands.items()}


def require_free_ports(definitions: Sequence[Definition[Any, Any]]) -> None:
    """Raises Stop where a port is taken: said before a database is started, which takes seconds."""
    for definition in definitions:
        settings = definition.settings()
        chosen_port(definition.name, settings.host, settings.port)


def gate_commands(definitions: Sequence[Definition[Any, Any]], data: Path) -> dict[str, GateCommand]:
    """How each gate is started, but for its database. Raises Stop where a port is taken."""
    settings = {definition.name: definition.settings() for definition in definitions}
    ports = {name: chosen_port(name, chosen.host, chosen.port) for name, chosen in settings.items()}
    urls = {name: _url(chosen, ports[name]) for name, chosen in settings.items()}
    commands = {}
    for definition in definitions:
        name = definition.name
        local = {"port": ports[name], **_local_settings(name, data, urls)}
        if sys.stderr.isatty():
            local.setdefault("log_format", "console")
        local = {field: value for field, value in local.items() if field == "port" or _is_unset(settings[name], field)}
        commands[name] = GateCommand(name=name, module=definition.module, url=urls[name], settings=local)
    if COGNIGATE in commands:
        commands[COGNIGATE] = _worker_command(commands[COGNIGATE], urls, data)
    return commands


def _worker_command(command: GateCommand, urls: Mapping[str, str], data: Path) -> GateCommand:
    """CogniGate is told by variables where the gates are, as every worker. It ends by itself where it is refused."""
    key_file = key_file_of(COGNIGATE, data)
    others = {name: url for name, url in urls.items() if name != COGNIGATE}
    return replace(
        command,
        environment=worker_environment(others, key_file),
        prepare=partial(wait_until_known, urls["asyncgate"], key_file),
        must_start=False,
    )


def _url(settings: Any, port: int) -> str:
    scheme = "http" if settings.tls_cert is None else "https"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{scheme}://{host}:{port}"


def _is_unset(settings: BaseSettings, field: str) -> bool:
    """Whether no variable says it: what a person chose stays."""
    return field in type(settings).model_fields and field not in settings.model_fields_set


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


def _local_settings(name: str, data: Path, urls: Mapping[str, str]) -> dict[str, Any]:
    """What a gate does on one machine unless its variables say otherwise.

    The ledger shows its console. DepotGate keeps bytes in the data directory, and outputs without a lease where no
    AsyncGate is served. AsyncGate lets plans grant what one needs to try them. InterroGate may forward to the DeleGate
    beside it. DeleGate asks the gates beside it, and is asked through InterroGate if that is one of them.
    """
    if name == "memorygate":
        return {"console": True}
    if name == "depotgate":
        return {
            "store": (data / ARTIFACTS).resolve().as_uri(),
            "leases": "required" if "asyncgate" in urls else "optional",
        }
    if name == "asyncgate" and "delegate" in urls:
        path = data / CEILINGS_FILE
        path.write_text(json.dumps([{"namespaces": ["*"], "authority": CEILING}], indent=2), encoding="utf-8")
        return {"ceilings_file": str(path)}
    if name == "interrogate" and "delegate" in urls:
        return {"target_hosts": urlsplit(urls["delegate"]).netloc}
    if name == "delegate":
        admission = "required" if "interrogate" in urls else "off"
        local = {"credentials": str(data / DELEGATE_CREDENTIALS), "admission": admission}
        return local | {f"{gate}_url": url for gate, url in urls.items()}
    return {}


def key_file_of(gate: str, data: Path) -> Path:
    """Where the gate's key lies: DeleGate finds that of a namespace by its name."""
    from metagate_operator.sources.documents import DEFAULT_NAMESPACE

    return data / DELEGATE_CREDENTIALS / DEFAULT_NAMESPACE if gate == "delegate" else data / "keys" / f"{gate}.key"


def keep_auditor(database: DatabaseUrls, data: Path) -> Mapping[str, str]:
    """A new password of the ledger's auditor, by its role's name; kept for the person at this machine."""
    from memorygate.schema import AUDITOR

    password = secrets.token_urlsafe(24)
    path = data / AUDITOR_FILE
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(as_role(database.owner, AUDITOR, password) + "\n")
    return {AUDITOR: password}
