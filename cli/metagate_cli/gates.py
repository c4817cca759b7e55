"""`metagate dev --with`: which gates are served beside MetaGate, out of the same database."""

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from metagate_cli.database import as_role, withdraw_memberships

if TYPE_CHECKING:
    from legivellum.gate.definition import GateDefinition
    from metagate_cli.database import DatabaseUrls

GATES: Final[Mapping[str, str]] = {"memorygate": "memorygate.gate:GATE", "interrogate": "interrogate.gate:GATE"}
"""Where each gate's definition is, by the gate's name."""
IMPLIED: Final[Mapping[str, tuple[str, ...]]] = {"interrogate": ("memorygate",)}
"""Gates that are served before others: what a gate writes can only be read at the ledger."""
ALL: Final = "all"


def gate_definitions(names: Sequence[str]) -> tuple[GateDefinition[Any, Any], ...]:
    """The gates that are named: one by its name in GATES, a gate under development as `module:ATTRIBUTE`, all of them
    as `all`; several in one text with commas between. Each once, in the order of their names.

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
    try:
        return tuple(load_definition(reference) for reference in references)
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"no gate can be loaded: {error}") from error


@asynccontextmanager
async def serving_gates(
    database: DatabaseUrls, definitions: Sequence[GateDefinition[Any, Any]]
) -> AsyncIterator[Mapping[str, str]]:
    """Migrate each gate's schema and serve it, each as a role of its own. Yields their URLs by name.

    Raises:
        OSError: a gate's port is taken.
        DatabaseError: a schema cannot be migrated.

    """
    from legivellum.gate.composition import serving

    async with AsyncExitStack() as stack:
        urls = {}
        for definition in definitions:
            password = secrets.token_urlsafe(24)
            await definition.migrate(database.administrator, passwords={definition.role: password})
            settings = definition.settings().model_copy(
                update={
                    "database_url": SecretStr(as_role(database.owner, definition.role, password)),
                    "identity_database_url": SecretStr(database.identity),
                }
            )
            urls[definition.name] = await stack.enter_async_context(serving(definition, settings))
        await withdraw_memberships(database)
        yield urls
