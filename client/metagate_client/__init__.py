"""What a pod runs: who am I, what may I do, what world am I in?

Only the standard library, and of that only what is cheap to import: a wrapped entry point pays for this package at
every start of every container. That is why there are no dataclasses and no http.client here (9 and 17 ms of CPU).

    import metagate_client

    with metagate_client.startup() as packet:       # bootstraps; READY when the block ends, FAILED when it raises
        memory = packet.service("memorygate")["endpoint"]

`async with` does the same without holding up an event loop.
"""

from metagate_client.client import Client
from metagate_client.errors import ClientError, MisconfiguredError, RefusedError, UnavailableError, UntrustedError
from metagate_client.packet import Packet
from metagate_client.settings import Settings
from metagate_client.startup import startup

__all__ = [
    "Client",
    "ClientError",
    "MisconfiguredError",
    "Packet",
    "RefusedError",
    "Settings",
    "UnavailableError",
    "UntrustedError",
    "startup",
]
