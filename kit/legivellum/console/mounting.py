"""A console in front of a gate that keeps state: what the frame asks of the process, answered by the gate's process."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from uuid import UUID

from legivellum.console.app import Console
from legivellum.console.definition import ConsoleDefinition, ConsolePorts
from legivellum.console.sessions import Session
from legivellum.console.settings import ConsoleGateSettings
from legivellum.gate.process import GateProcess
from legivellum.http.edge import Edge
from legivellum.identity.caller import Identity
from legivellum.postgres.errors import DatabaseError


class StreamCount(Protocol):
    def __call__(self, amount: float, /) -> None: ...


def console_in_front(
    edge: Edge,
    process: GateProcess[Any, Any],
    definition: ConsoleDefinition,
    *,
    tenant_state: Callable[[UUID | None], Awaitable[object]],
    stream_count: StreamCount,
) -> Console:
    """The console's application: it answers `/console` and below, `edge` everything else."""
    settings: ConsoleGateSettings = process.settings
    public_url = settings.console_public_url or ""

    async def resolve(session: Session) -> Identity | None:
        shown = session.credential
        if shown.kind == "key" and not process.keys.is_current(shown.subject, time.time()):
            return None
        return await process.directory.resolve(shown.issuer, shown.subject)

    ports = ConsolePorts(
        authenticate=process.authenticator.authenticate,
        is_current=process.credentials.is_current,
        resolve=resolve,
        tenant_state=tenant_state,
        problem=edge.problem,
        observe=edge.observe,
        api_key_header=settings.api_key_header,
        secret=settings.console_secret.get_secret_value().encode(),
        seconds=settings.deadline_seconds,
        lifetime=settings.console_minutes * 60,
        # the gate's other requests keep at least half of the pool, whoever looks
        at_once=min(2, settings.pool_size // 2),
        secure=settings.console_cookies_secure(public_url),
        public_url=public_url,
        snapshot=lambda: process.directory.version,
        stream_count=stream_count,
        unanswered=(DatabaseError, OSError, TimeoutError),
    )
    return Console(definition, ports, edge)
