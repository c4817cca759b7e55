"""Liveness, readiness and metrics of the operator, on one port.

Alive: the loop answers, and a pass *ended*, with or without success, within three resyncs (D-52): a database or an API
server that is away is no reason to be restarted. Ready: it writes, or waits for the one who does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


@dataclass(frozen=True, slots=True)
class ProbeChecks:
    """`alive` and `ready` say why not, or nothing."""

    alive: Callable[[], str | None]
    ready: Callable[[], str | None]


class ProbeServer:
    """`/livez`, `/readyz` and `/metrics`; `start` and `stop` it. Port 0 takes a free one; `port` says which."""

    def __init__(self, checks: ProbeChecks, *, host: str, port: int) -> None:
        self._checks = checks
        self._host = host
        self._asked = port
        self._runner: web.AppRunner | None = None
        self.port = port

    async def start(self) -> None:
        application = web.Application()
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._asked).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return _answer(self._checks.alive())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self._checks.ready())

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _answer(why_not: str | None) -> web.Response:
    return web.Response(text=f"{why_not or 'ok'}\n", status=503 if why_not else 200)
