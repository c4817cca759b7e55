"""A component's start as a block of code: bootstrap before it, READY after it, FAILED when it raises."""

from __future__ import annotations

import contextlib

from metagate_client.client import Client
from metagate_client.errors import ClientError
from metagate_client.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from metagate_client.packet import Packet


@contextlib.contextmanager
def startup(
    settings: Settings | None = None, *, build_version: str = "unknown", client: Client | None = None
) -> Iterator[Packet]:
    """Boot, and report how it went. Raises what the block raises; a FAILED that cannot be delivered is let go."""
    caller = client or Client(settings or Settings())
    packet = caller.bootstrap()
    startup_id = str(packet.startup_id)
    try:
        yield packet
    except BaseException as error:
        with contextlib.suppress(ClientError):
            # The type only: what an exception says may hold what nobody wants in a database.
            caller.failed(startup_id, f"{type(error).__name__} before it was ready")
        raise
    caller.ready(startup_id, build_version)
