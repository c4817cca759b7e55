"""Points at which a process ends itself with kill -9, before or after a step: nothing of the product knows of them.

A process that was started with `install` looks, at each step, for a file of its name: the file names the point, and is
taken away by whoever dies at it.
"""

import os
import signal
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from tests.integration.whole.fault_plan import CALLS, REQUESTS

from delegate.gate_clients import GateClients
from legivellum.postgres.pool import Pool, Transaction
from legivellum_worker import gate_client


def die_at(arming: Path, moment: str, step: str) -> None:
    """The end of this process, if it is armed for this point."""
    try:
        armed = arming.read_text(encoding="ascii")
    except OSError:
        return
    if armed == f"{moment} {step}":
        arming.unlink(missing_ok=True)
        os.kill(os.getpid(), signal.SIGKILL)


def install(arming: Path) -> None:
    """Watch every step that a part of the system can take."""
    for owner in (Pool, Transaction):
        owner.fetch = _statement(owner.fetch, arming)  # type: ignore[method-assign]
    for name in CALLS:
        setattr(GateClients, name, _call(getattr(GateClients, name), arming, name))
    gate_client.send_request = _request(gate_client.send_request, arming)


def _statement(fetch: Callable[..., Any], arming: Path) -> Callable[..., Any]:
    @wraps(fetch)
    async def dying(self: Any, query: str, *arguments: Any) -> Any:
        step = query.partition("FROM ")[2].partition("(")[0]
        die_at(arming, "before", step)
        rows = await fetch(self, query, *arguments)
        die_at(arming, "after", step)
        return rows

    return dying


def _call(method: Callable[..., Any], arming: Path, name: str) -> Callable[..., Any]:
    @wraps(method)
    async def dying(*arguments: Any, **named: Any) -> Any:
        die_at(arming, "before", name)
        result = await method(*arguments, **named)
        die_at(arming, "after", name)
        return result

    return dying


def _request(send: Callable[..., Any], arming: Path) -> Callable[..., Any]:
    @wraps(send)
    def dying(address: Any, path: str, **options: Any) -> Any:
        bare = path.partition("?")[0]
        step = next((name for name in sorted(REQUESTS, key=len, reverse=True) if bare.endswith(name)), bare)
        die_at(arming, "before", step)
        answer = send(address, path, **options)
        die_at(arming, "after", step)
        return answer

    return dying
