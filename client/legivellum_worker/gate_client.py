"""AsyncGate's verbs for a worker, over the wire of `metagate_client`.

Each call is one attempt: whether it is repeated, and until when, depends on the lease, so the caller decides.
"""

from __future__ import annotations

import json
import time

from metagate_client.errors import ClientError
from metagate_client.http_request import UnreachableError, send_request
from metagate_client.retries import RETRY_STATUSES, parse_problem, pause_seconds, retry_after_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import threading
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from legivellum_worker.settings import GateAccess
    from metagate_client.http_request import HttpResponse

    Answer = TypeVar("Answer")

LEASE_HEADER = "Legivellum-Lease"
CALL_SECONDS = 5.0
"""How long one attempt may take, waiting for work aside."""


class GateError(ClientError):
    """A gate said no. `status` and `code` are those of its answer."""

    exit_code = 1

    def __init__(self, gate: str, status: int, code: str, detail: str) -> None:
        super().__init__(f"{gate} refused ({status} {code}): {detail}")
        self.status, self.code = status, code


class GateUnavailableError(ClientError):
    """No answer, or one that asks to come again, after `retry_after` seconds where it says so."""

    exit_code = 3

    def __init__(self, gate: str, reason: str, retry_after: float | None = None) -> None:
        super().__init__(f"{gate} is not available: {reason}")
        self.gate, self.retry_after = gate, retry_after


def call(
    access: GateAccess,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    seconds: float = CALL_SECONDS,
    on_connected: Callable[[socket.socket], object] | None = None,
    on_waiting: Callable[[], object] | None = None,
) -> dict[str, Any]:
    """The answer of one attempt. Raises GateError and GateUnavailableError."""
    name, value = access.credential()
    content = b"" if body is None else json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    try:
        response = send_request(
            access.address,
            access.base + path,
            method=method,
            headers={
                **({"Content-Type": "application/json"} if body is not None else {}),
                "Accept": "application/json, application/problem+json",
                "User-Agent": "legivellum-worker",
                name: value,
                **(headers or {}),
            },
            body=content,
            deadline=time.monotonic() + seconds,
            on_connected=on_connected,
            on_waiting=on_waiting,
        )
    except UnreachableError as error:
        raise GateUnavailableError(access.gate, str(error)) from error
    return parse_answer(access, response)


def repeat(attempt: Callable[[], Answer], seconds: float, cancelled: threading.Event) -> Answer:
    """What `attempt` gives, again after a pause while the gate is not available. Raises GateUnavailableError at the end
    of the time, and when the work is cancelled.
    """
    until, number = time.monotonic() + seconds, 0
    while True:
        try:
            return attempt()
        except GateUnavailableError as error:
            pause = pause_seconds(number, error.retry_after)
            if time.monotonic() + pause > until or cancelled.wait(pause):
                raise
            number += 1


def parse_answer(access: GateAccess, response: HttpResponse) -> dict[str, Any]:
    """The JSON object of an answer. Raises GateError for a refusal, GateUnavailableError for what passes by itself."""
    if not 200 <= response.status < 300:
        raise refusal(access, response)
    try:
        answer = json.loads(response.body)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        return answer
    raise GateUnavailableError(access.gate, f"what answers at {access.url} is not {access.gate}")


def refusal(access: GateAccess, response: HttpResponse) -> GateError | GateUnavailableError:
    """What an answer that is no success means."""
    code, detail = parse_problem(response)
    if response.status in RETRY_STATUSES:
        reason = f"it answered {response.status} {code}".rstrip()
        return GateUnavailableError(access.gate, reason, retry_after_seconds(response))
    return GateError(access.gate, response.status, code, detail)


class AsyncGateClient:
    """The verbs of a lease. Thread-safe: a connection per call."""

    def __init__(self, access: GateAccess) -> None:
        self.access = access

    def lease(
        self,
        capabilities: list[str],
        *,
        most: int,
        wait_seconds: int,
        ttl_seconds: int | None,
        idempotency_key: str,
        on_connected: Callable[[socket.socket], object] | None = None,
        on_waiting: Callable[[], object] | None = None,
    ) -> list[dict[str, Any]]:
        """New leases. The same key gives the same live leases again, for an answer that was lost."""
        body: dict[str, Any] = {"capabilities": capabilities, "most": most, "wait_seconds": wait_seconds}
        if ttl_seconds is not None:
            body["ttl_seconds"] = ttl_seconds
        answer = call(
            self.access,
            "POST",
            "/lease",
            body,
            headers={"Idempotency-Key": idempotency_key},
            seconds=wait_seconds + CALL_SECONDS,
            on_connected=on_connected,
            on_waiting=on_waiting,
        )
        return list(answer.get("leases") or [])

    def renew(self, lease_id: str, ttl_seconds: int | None, seconds: float) -> dict[str, Any]:
        body: dict[str, Any] = {"lease_id": lease_id}
        if ttl_seconds is not None:
            body["ttl_seconds"] = ttl_seconds
        return call(self.access, "POST", "/lease/renew", body, seconds=seconds)

    def post(self, path: str, lease_id: str, fields: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """One of the verbs that end a lease: `/complete`, `/escalate`, `/lease/release`."""
        return call(self.access, "POST", path, {"lease_id": lease_id, **fields}, seconds=seconds)
