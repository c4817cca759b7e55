"""A component's start as a block of code: bootstrap before it, READY after it, FAILED when it raises."""

from __future__ import annotations

import contextlib

from metagate_client.client import Client
from metagate_client.errors import ClientError
from metagate_client.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TypeVar

    from metagate_client.packet import Packet

    Result = TypeVar("Result")

_LONGEST_REASON = 500
"""Characters of an exception's text that are reported, when they are."""


class Startup:
    """What `startup` returns, for `with` and, where an event loop must not be held up, for `async with`."""

    __slots__ = ("_build_version", "_client", "_report_reason", "_startup_id")

    def __init__(self, client: Client, build_version: str, *, report_reason: bool) -> None:
        self._client = client
        self._build_version = build_version
        self._report_reason = report_reason
        self._startup_id = ""

    def __enter__(self) -> Packet:
        packet = self._client.bootstrap()
        self._startup_id = str(packet.startup_id)
        return packet

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._client.ready(self._startup_id, self._build_version)
            return
        with contextlib.suppress(ClientError):  # the exception of the block is what its caller must see
            self._client.failed(self._startup_id, self._reason(error))

    async def __aenter__(self) -> Packet:
        return await _in_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await _in_thread(lambda: self.__exit__(kind, error, trace))

    def _reason(self, error: BaseException) -> str:
        reason = f"{type(error).__name__} before it was ready"
        # The type only, unless asked for: what an exception says may hold what nobody wants in a database.
        if self._report_reason and str(error):
            line = "".join(character if character.isprintable() else " " for character in str(error))
            return f"{reason}: {line[:_LONGEST_REASON]}"
        return reason


def startup(
    settings: Settings | None = None,
    *,
    build_version: str = "unknown",
    client: Client | None = None,
    report_reason: bool = False,
) -> Startup:
    """Boot, and report how it went, as the block of a `with` or an `async with`, which gets the packet.

    Raises what the block raises; a FAILED that cannot be delivered is let go. `report_reason`: FAILED says what the
    exception says, not only its type.
    """
    return Startup(client or Client(settings or Settings()), build_version, report_reason=report_reason)


async def _in_thread(call: Callable[[], Result]) -> Result:
    # Imported here: asyncio costs more than everything else of this package, and most programs do not need it.
    import asyncio

    return await asyncio.get_running_loop().run_in_executor(None, call)
