"""The three calls of a component: bootstrap, ready, failed. Each ends within `settings.timeout` seconds.

A call that failed in a way that may pass is repeated: with growing pauses, with some randomness so that a fleet does
not call in step, and after the pause that the server names (Retry-After). A refusal is final and is never repeated.
"""

from __future__ import annotations

import json
import os
import time

from metagate_client.errors import MisconfiguredError, RefusedError, UnavailableError
from metagate_client.http_request import HttpResponse, ServerAddress, UnreachableError, send_request
from metagate_client.packet import Packet
from metagate_client.retries import RETRY_STATUSES, parse_problem, pause_seconds, retry_after_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from metagate_client.settings import Settings

_ATTEMPTS = 8
_ATTEMPT_SECONDS = 2.0
"""Seconds: the server answers within half of one, whatever happens to it; longer is a lost packet or a lost pod."""


class Client:
    """Talks to one MetaGate as one component. Not thread-safe; one key for repeating a bootstrap per instance."""

    def __init__(
        self,
        settings: Settings,
        *,
        idempotency_key: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.settings = settings
        self.idempotency_key = idempotency_key or os.urandom(16).hex()
        self._address = ServerAddress(settings.host, settings.port, tls=settings.tls, ca_file=settings.ca_file)
        self._clock = clock
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"<Client of {self.settings!r}>"

    def bootstrap(self, *, principal_key: str | None = None) -> Packet:
        """The Welcome Packet. Opens one startup session, however often the call had to be repeated (D-03)."""
        if not self.settings.component_key:
            raise MisconfiguredError("which component is this? set METAGATE_COMPONENT_KEY or --component-key")
        body = {"component_key": self.settings.component_key}
        if principal_key is not None:
            body["principal_key"] = principal_key
        response = self._call("/v1/bootstrap", body, {"Idempotency-Key": self.idempotency_key})
        if self.settings.verify_key_file is not None:
            from metagate_client.signature import verify_signature

            verify_signature(response.body, response.headers, self.settings.verify_key_file)
        return Packet.from_body(response.body)

    def ready(self, startup_id: str, build_version: str, health: object = None) -> dict[str, Any]:
        """Report READY; what MetaGate recorded: startup_id, status, acknowledged_at, late."""
        body: dict[str, Any] = {"startup_id": startup_id, "build_version": build_version}
        if health is not None:
            body["health"] = health
        return _object(self._call("/v1/startup/ready", body, {}))

    def failed(self, startup_id: str, error: str, details: object = None) -> dict[str, Any]:
        """Report FAILED with one line for a person, and details for a program."""
        body: dict[str, Any] = {"startup_id": startup_id, "error": error}
        if details is not None:
            body["details"] = details
        return _object(self._call("/v1/startup/failed", body, {}))

    def _call(self, path: str, body: object, headers: dict[str, str]) -> HttpResponse:
        content = json.dumps(body, separators=(",", ":")).encode()
        deadline = self._clock() + self.settings.timeout
        last_problem = "no time was left"
        for attempt in range(_ATTEMPTS):
            retry_after: float | None = None
            name, value = self.settings.credential()
            try:
                response = send_request(
                    self._address,
                    self.settings.base + path,
                    headers={
                        "Content-Type": "application/json",
                        "Accept": "application/json, application/problem+json",
                        "User-Agent": "metagate-client",
                        name: value,
                        **headers,
                    },
                    body=content,
                    deadline=min(deadline, self._clock() + _ATTEMPT_SECONDS),
                )
            except UnreachableError as error:
                last_problem = str(error)
            else:
                if response.status == 200:
                    return response
                code, detail = parse_problem(response)
                if response.status not in RETRY_STATUSES:
                    raise RefusedError(response.status, code, detail)
                last_problem = f"it answered {response.status} {code}".rstrip()
                retry_after = retry_after_seconds(response)
            pause = pause_seconds(attempt, retry_after)
            if self._clock() + pause >= deadline:
                break
            self._sleep(pause)
        raise UnavailableError(
            f"MetaGate at {self.settings.url} is not available: {last_problem} ({attempt + 1} tries). "
            "Check METAGATE_URL and that it runs, or choose --if-unavailable."
        )


def _object(response: HttpResponse) -> dict[str, Any]:
    try:
        value = json.loads(response.body)
    except (ValueError, RecursionError) as error:
        raise UnavailableError("what answers there is not MetaGate; check METAGATE_URL") from error
    if not isinstance(value, dict):
        raise UnavailableError("what answers there is not MetaGate; check METAGATE_URL")
    return value
