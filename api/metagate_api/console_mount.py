"""The console, mounted: what it needs of this gate, handed to it."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from legivellum.console.app import Console
from legivellum.console.definition import ConsolePorts
from legivellum.http.edge import Edge, Observer
from metagate_api import metrics
from metagate_api.gate import Gate
from metagate_api.history import explained_boot, spec_without_key_digests
from metagate_console.app import MetaGateConsole
from metagate_console.page import ValueDifference
from metagate_crds.plan.packet_diff import ABSENT, diff_json
from metagate_crds.plan.serialization import json_pointer
from metagate_store.errors import StoreError
from metagate_store.history import Boot


def console(gate: Gate, edge: Edge, observe: Observer) -> Console:
    """The application with the console in front of `edge`."""
    settings = gate.settings
    public_url = settings.public_url or ""

    async def explain(tenant: UUID, boot: Boot) -> Mapping[str, Any]:
        return await explained_boot(gate, tenant, boot)

    pages = MetaGateConsole(
        reader=lambda: gate.reader,
        explain=explain,
        compare_packets=lambda before, after: _differences(json.loads(before), json.loads(after)),
        compare_specs=_spec_differences,
        ledger_console=None if settings.console_ledger_url is None else settings.console_ledger_url.rstrip("/"),
    )
    ports = ConsolePorts(
        authenticate=gate.caller_authenticator.authenticate,
        is_current=gate.authenticator.is_current,
        resolve=pages.resolve,
        tenant_state=pages.tenant_state,
        problem=edge.problem,
        observe=observe,
        api_key_header=settings.api_key_header,
        secret=settings.console_secret.get_secret_value().encode(),
        seconds=settings.deadline_seconds,
        lifetime=settings.console_minutes * 60,
        # bootstraps keep at least half of the pool, whoever looks
        at_once=min(2, settings.pool_size // 2),
        secure=settings.console_cookies_secure(public_url),
        public_url=public_url,
        snapshot=lambda: (gate.status.revision, gate.status.credential_mark),
        stream_count=metrics.CONSOLE_STREAMS.inc,
        unanswered=(StoreError, OSError, TimeoutError),
    )
    return Console(pages.definition(), ports, edge)


def _spec_differences(kind: str, before: Any, after: Any) -> list[ValueDifference]:
    """No spec on one side is an empty one: every value of the other is then new, or gone."""
    old, new = (spec_without_key_digests(kind, {} if spec is None else spec) for spec in (before, after))
    return [difference for difference in _differences(old, new) if difference.path]


def _differences(before: Any, after: Any) -> list[ValueDifference]:
    return [
        ValueDifference(json_pointer(leaf.path), *(_as_json(side) for side in (leaf.before, leaf.after)))
        for leaf in diff_json(before, after)
    ]


def _as_json(value: Any) -> str | None:
    return None if value is ABSENT else json.dumps(value, ensure_ascii=False)
