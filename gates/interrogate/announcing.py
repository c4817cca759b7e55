"""Announcing at MetaGate which Problematas this process serves: at its start, every 15 seconds, at its end (GW-02).

Nothing depends on it: a missed announcement stops no request. Only the Problematas of the credential's own tenant whose
`gateway.principals` name its principal are announced; MetaGate refuses any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

import httpx2
import structlog

from interrogate.admission_gate import AdmissionGate
from interrogate.problemata import Problemata
from interrogate.problematas import ProblemataReplica
from legivellum.gate.outbound_transport import OutboundTransport
from legivellum.gate.snapshot_poller import LOST
from legivellum.identity.caller import AuthFailure, Caller

ANNOUNCE_SECONDS: Final = 15.0
_REQUEST_SECONDS: Final = 3.0
_AT_ONCE: Final = 8

Method = Literal["PUT", "DELETE"]

_log = structlog.get_logger("interrogate.announcing")


def instance_name() -> str:
    """Of this process: several workers of one pod say for themselves how they are."""
    return f"{socket.gethostname()}-{os.getpid()}"[-253:].lstrip("-._:")


@dataclass(frozen=True, slots=True)
class MetaGateAddress:
    """Where MetaGate is, and the file of the credential that announces: an API key or a token."""

    url: str
    credential_file: Path
    ca_file: str | None = None


class ProblemataAnnouncer:
    """`whoami`: whose a credential is, as the gate's own identity says. `is_degraded`: whether a tool has changed."""

    def __init__(
        self,
        address: MetaGateAddress,
        problematas: ProblemataReplica,
        whoami: Callable[[bytes], Awaitable[Caller | AuthFailure]],
        *,
        endpoint: str,
        is_served: Callable[[Problemata], bool],
        is_degraded: Callable[[Problemata], bool],
        instance: str | None = None,
        seconds: float = ANNOUNCE_SECONDS,
    ) -> None:
        self._address = address
        self._problematas = problematas
        self._whoami = whoami
        self._endpoint = endpoint
        self._is_served = is_served
        self._is_degraded = is_degraded
        self._instance = instance or instance_name()
        self._seconds = seconds
        self._announced: dict[str, Problemata] = {}
        self._refused: dict[str, int] = {}
        """The last refusal of each, so that the log has it once."""
        self._failure: str | None = None
        self._client = httpx2.AsyncClient(
            transport=OutboundTransport(verify=address.ca_file or True, trust_env=False),
            trust_env=False,
            follow_redirects=False,
            timeout=_REQUEST_SECONDS,
        )

    async def announce(self) -> int:
        """Announce all that this credential may, and return how many were taken.

        Raises OSError, Unavailable, httpx2.HTTPError.
        """
        credential = (await asyncio.to_thread(self._address.credential_file.read_bytes)).strip()
        caller = await self._whoami(credential)
        if isinstance(caller, AuthFailure):
            raise ConnectionRefusedError(f"the credential is refused: {caller.reason}")
        served = [
            problemata
            for problemata in self._problematas.of(caller.tenant).values()
            if caller.principal_key in problemata.gateway_principals and self._is_served(problemata)
        ]
        statuses = await self._send_all("PUT", served, credential)
        taken = 0
        for problemata, status in zip(served, statuses, strict=True):
            if status == httpx2.codes.NO_CONTENT:
                taken += 1
                self._announced[problemata.name] = problemata
                self._refused.pop(problemata.name, None)
            elif self._refused.get(problemata.name) != status:
                self._refused[problemata.name] = status
                # 404 and 409 pass by themselves: one of the two has not yet read what was published last.
                _log.warning("announcement_refused", problemata=problemata.name, status=status)
        return taken

    async def withdraw(self) -> None:
        """Take back what was announced. Raises as `announce`."""
        announced, self._announced = list(self._announced.values()), {}
        if announced:
            credential = (await asyncio.to_thread(self._address.credential_file.read_bytes)).strip()
            await self._send_all("DELETE", announced, credential)

    async def close(self) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Announce while the block runs, then withdraw."""
        stopping = asyncio.Event()
        task = asyncio.create_task(self._run(stopping), name="announce Problematas")
        try:
            yield
        finally:
            # A round that has begun ends: else its announcement could come after the withdrawal.
            stopping.set()
            await asyncio.wait([task], timeout=_REQUEST_SECONDS)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            try:
                async with asyncio.timeout(_REQUEST_SECONDS):
                    await self.withdraw()
            except (*LOST, httpx2.HTTPError):
                pass  # it stops all the same; MetaGate forgets what is silent
            await self.close()

    async def _run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                taken = await self.announce()
            except (*LOST, httpx2.HTTPError) as error:
                self._note_failure(type(error).__qualname__, str(error))
            except Exception as error:  # noqa: BLE001 - a defect in one round must not end all others
                _log.error("announcing_failed", error=type(error).__qualname__, exc_info=error)
            else:
                self._note_success(taken)
            # The snapshot may come a moment after the start: nobody waits 15 seconds for the first announcement.
            seconds = self._seconds if self._failure is None else min(self._seconds, 1.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await stopping.wait()

    async def _send_all(self, method: Method, problematas: Iterable[Problemata], credential: bytes) -> list[int]:
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def send(problemata: Problemata) -> int:
            async with at_once:
                return await self._send(method, problemata, credential)

        return list(await asyncio.gather(*map(send, problematas)))

    async def _send(self, method: Method, problemata: Problemata, credential: bytes) -> int:
        path = f"/v1/problematas/{quote(problemata.name)}/instances/{quote(self._instance)}"
        text = credential.decode("ascii")
        headers = {"x-api-key": text} if text.startswith("mgk_") else {"authorization": f"Bearer {text}"}
        body = None
        if method == "PUT":
            body = {
                "endpoint": self._endpoint,
                "version": problemata.version,
                "capabilities": list(problemata.capabilities),
                "health": "degraded" if self._is_degraded(problemata) else "ok",
            }
        response = await self._client.request(
            method, f"{self._address.url.rstrip('/')}{path}", headers=headers, json=body
        )
        return response.status_code

    def _note_failure(self, kind: str, reason: str) -> None:
        if self._failure != kind:
            _log.warning("announcing_lost", error=kind, reason=reason)
        self._failure = kind

    def _note_success(self, taken: int) -> None:
        if self._failure is not None:
            _log.info("announcing_resumed", problematas=taken)
        self._failure = None


def announcer_of(gate: AdmissionGate, is_degraded: Callable[[Problemata], bool]) -> ProblemataAnnouncer | None:
    """As the settings say; None where this gate announces nowhere."""
    settings = gate.process.settings
    if settings.metagate_url is None or settings.metagate_key_file is None:
        return None
    return ProblemataAnnouncer(
        MetaGateAddress(settings.metagate_url, Path(settings.metagate_key_file), settings.metagate_ca_file),
        gate.problematas,
        gate.process.introspect,
        endpoint=f"{settings.resource.rstrip('/')}/mcp",
        is_served=lambda problemata: gate.surfaces.matches(problemata.surface_id),
        is_degraded=is_degraded,
    )
