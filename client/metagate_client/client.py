"""The three calls of a component: bootstrap, ready, failed. Each ends within `settings.timeout` seconds.

What may help when asked again is asked again, with growing pauses, some randomness so that a fleet does not march in
step, and the pause that the server asks for where it names one. A refusal is never asked again: the answer is no.
"""

from __future__ import annotations

import json
import os
import time

from metagate_client.errors import MisconfiguredError, RefusedError, UnavailableError
from metagate_client.packet import Packet
from metagate_client.wire import Address, Answer, UnreachableError, exchange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from metagate_client.settings import Settings

TRY_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_ATTEMPTS = 8
_ONE_ATTEMPT = 2.0
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
        self._address = Address(settings.host, settings.port, tls=settings.tls, ca_file=settings.ca_file)
        self._clock = clock
        self._sleep = sleep

    def bootstrap(self, *, principal_key: str | None = None) -> Packet:
        """The Welcome Packet. Opens one startup session, however often it had to be asked (D-03)."""
        if not self.settings.component_key:
            raise MisconfiguredError("which component is this? set METAGATE_COMPONENT_KEY or --component-key")
        body = {"component_key": self.settings.component_key}
        if principal_key is not None:
            body["principal_key"] = principal_key
        answer = self._call("/v1/bootstrap", body, {"Idempotency-Key": self.idempotency_key})
        if self.settings.verify_key_file is not None:
            from metagate_client.verifying import verify

            verify(answer.body, answer.headers, self.settings.verify_key_file)
        return Packet.parsed(answer.body)

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

    def _call(self, path: str, body: object, headers: dict[str, str]) -> Answer:
        content = json.dumps(body, separators=(",", ":")).encode()
        deadline = self._clock() + self.settings.timeout
        trouble = "no time was left"
        for attempt in range(_ATTEMPTS):
            asked: float | None = None
            name, value = self.settings.credential()
            try:
                answer = exchange(
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
                    deadline=min(deadline, self._clock() + _ONE_ATTEMPT),
                )
            except UnreachableError as error:
                trouble = str(error)
            else:
                if answer.status == 200:
                    return answer
                code, detail = _problem(answer)
                if answer.status not in TRY_AGAIN:
                    raise RefusedError(answer.status, code, detail)
                trouble = f"it answered {answer.status} {code}".rstrip()
                asked = _seconds(answer.headers.get("retry-after"))
            pause = self._pause(attempt, asked)
            if self._clock() + pause >= deadline:
                break
            self._sleep(pause)
        raise UnavailableError(
            f"MetaGate at {self.settings.url} is not available: {trouble} ({attempt + 1} tries). "
            "Check METAGATE_URL and that it runs, or choose --if-unavailable."
        )

    @staticmethod
    def _pause(attempt: int, asked: float | None) -> float:
        chance = int.from_bytes(os.urandom(2), "big") / 65_536
        if asked is not None:
            return asked + chance * max(0.1, asked / 4)
        return min(1.0, 0.1 * (1 << attempt)) * (0.5 + chance)


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after is not None and retry_after.isdigit() and len(retry_after) < 6 else None


def _problem(answer: Answer) -> tuple[str, str]:
    try:
        problem = json.loads(answer.body)
    except (ValueError, RecursionError):
        problem = None
    if not isinstance(problem, dict):
        return "", "not an answer of MetaGate; check METAGATE_URL"
    return _line(problem.get("code")), _line(problem.get("detail") or problem.get("title"))


def _line(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(each if each.isprintable() else " " for each in text[:500])


def _object(answer: Answer) -> dict[str, Any]:
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise UnavailableError("what answers there is not MetaGate; check METAGATE_URL") from error
    if not isinstance(value, dict):
        raise UnavailableError("what answers there is not MetaGate; check METAGATE_URL")
    return value
