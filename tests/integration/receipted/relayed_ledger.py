"""What a program with a `Ledger` has before it: a relay of a test's own, and the ledger behind it."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg
from tests.integration.memorygate.conftest import LedgerDatabase
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal, LedgerProcess, ready
from tests.threaded_server import threaded_server

from legivellum_worker import AsyncLedger, Ledger

Special = tuple[int, str] | str
LOST = "the answer is lost"
REFUSED = "the call does not arrive"
KILLED_AFTER = "the ledger is killed when it has stored the receipt, and started again"


@dataclass
class ServedLedger:
    database: LedgerDatabase
    process: LedgerProcess
    port: int
    principals: dict[str, LedgerPrincipal]
    loop: asyncio.AbstractEventLoop

    async def restart(self) -> None:
        await self.process.kill()
        await self.process.start()
        await ready(f"http://127.0.0.1:{self.port}")

    async def receipts(self, like: str = "%") -> list[dict[str, Any]]:
        """What the ledger holds of tasks whose name is like this, in the order of the tree."""
        connection = await asyncpg.connect(self.database.superuser)
        try:
            rows = await connection.fetch(
                "SELECT body FROM memorygate.receipt WHERE task_id LIKE $1 AND kind = 'obligation' ORDER BY stored_at, position",
                like,
            )
        finally:
            await connection.close()
        return [json.loads(row["body"]) for row in rows]


@dataclass
class RelayedLedger:
    """`answers`, in order: what becomes of the next calls; then all go through, or what `always` says."""

    served: ServedLedger
    url: str = ""
    answers: list[Special | None] = field(default_factory=list)
    always: Special | None = None
    calls: list[str] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    unique: str = field(default_factory=lambda: uuid4().hex[:12])
    arrived: threading.Event = field(default_factory=threading.Event)
    """A call reached the relay."""
    may_pass: threading.Event = field(default_factory=threading.Event)

    on_stored: Callable[[int], object] | None = None
    """Called when the call of this number has been answered by the ledger, before its answer is passed on."""

    def __post_init__(self) -> None:
        self.may_pass.set()

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2]

    def ledger(self, name: str = "triage", **options: Any) -> Ledger:
        return Ledger(self.url, self.served.principals[name].key, principal=name, **options)

    def async_ledger(self, name: str = "triage", **options: Any) -> AsyncLedger:
        return AsyncLedger.sharing(self.ledger(name, **options))

    def task(self, name: str) -> str:
        """A task's name that no other test has."""
        return f"{name}-{self.unique}"

    async def stored(self, name: str | None = None) -> list[dict[str, Any]]:
        return await self.served.receipts(f"%{self.unique}" if name is None else self.task(name))

    async def phases(self, name: str | None = None) -> list[str]:
        return [
            receipt["phase"] + ("" if receipt["phase"] != "complete" else f" {receipt['status']}")
            for receipt in await self.stored(name)
        ]

    def relay(self, connection: socket.socket) -> None:
        raw = b""
        while b"\r\n\r\n" not in raw:
            part = connection.recv(65_536)
            if not part:
                return
            raw += part
        head, _, body = raw.partition(b"\r\n\r\n")
        length = next(
            line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        while len(body) < int(length):
            body += connection.recv(65_536)
        self.calls.append(head.decode().split("\r\n")[0].rpartition(" ")[0])
        self.raw.append(body)
        special = self.answers.pop(0) if self.answers else self.always
        self.arrived.set()
        assert self.may_pass.wait(30)
        if special == REFUSED:
            return
        if isinstance(special, tuple):
            status, code = special
            content = json.dumps({"title": code, "status": status, "detail": "because", "code": code}).encode()
            connection.sendall(
                b"HTTP/1.1 %d Text\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
                % (status, len(content), content)
            )
            return
        answer = b""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.served.port), 20) as upstream:
            upstream.sendall(head + b"\r\n\r\n" + body)
            while part := upstream.recv(65_536):
                answer += part
        if self.on_stored is not None:
            self.on_stored(len(self.calls))
        if special == KILLED_AFTER:
            asyncio.run_coroutine_threadsafe(self.served.restart(), self.served.loop).result(60)
        if special is None:
            connection.sendall(answer)


@contextmanager
def relayed_ledger(served: ServedLedger) -> Iterator[RelayedLedger]:
    relay = RelayedLedger(served)
    with threaded_server(relay.relay) as relay.url:
        try:
            yield relay
        finally:
            relay.may_pass.set()
