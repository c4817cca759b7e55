"""Which ledger, and as whom: what Ledger and AsyncLedger are made with."""

from __future__ import annotations

import os

from legivellum_worker.ledger_calls import LedgerCalls
from legivellum_worker.settings import GateAccess, find_memorygate
from metagate_client.errors import MisconfiguredError
from metagate_client.http_request import ServerAddress
from metagate_client.packet_file import read
from metagate_client.settings import PACKET_FILE, environment, parse_url, read_credential

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Self, TypeAlias

    from metagate_client.packet import Packet

    Credential: TypeAlias = str | os.PathLike[str] | Callable[[], str]

SECONDS = 10.0
"""How long a receipt is repeated before it counts as not recorded."""


class ExplicitAccess(GateAccess):
    """The ledger with a credential of the caller's own: a key or token, a file that holds one, or what gives one."""

    __slots__ = ("_header", "_read")

    def __init__(self, url: str, credential: Credential, *, api_key_header: str, ca_file: str | None) -> None:
        tls, host, port, self.base = parse_url(url, name="url", owner="the ledger", example="memorygate:8001")
        self.gate, self.url = "memorygate", url
        self.address = ServerAddress(host, port, tls=tls, ca_file=ca_file)
        self.token_file = self.api_key_file = None
        self._read, self._header = _reader(credential), api_key_header
        self.credential()  # what can never be read is an error now, not after the first deadline

    def __repr__(self) -> str:
        return f"<ExplicitAccess {self.url}>"

    def credential(self) -> tuple[str, str]:
        """The header and value: a token has the three parts of a JWT, everything else is an API key."""
        text = self._read()
        return ("Authorization", f"Bearer {text}") if text.count(".") == 2 else (self._header, text)


def _reader(credential: Credential) -> Callable[[], str]:
    if isinstance(credential, str):
        if not credential or not credential.isascii() or not credential.isprintable() or " " in credential:
            raise MisconfiguredError("the credential is no API key or token; the file of one is a pathlib.Path")
        return lambda: credential
    if isinstance(credential, os.PathLike):
        path = os.fspath(credential)
        return lambda: read_credential(path, "credential", "write an API key or a token into it, with mode 0600")
    return credential


class LedgerConnection:
    """One ledger as one principal. Thread-safe: every call has a connection of its own.

    `principal` is the Principal of the credential: it owns the obligations that are opened here. Each verb is repeated
    for `seconds`; then NotRecorded is raised or, with `on_not_recorded`, that function gets the receipt, to be sent
    later with `send`, and the verb returns as if it were recorded.
    """

    __slots__ = ("calls",)

    def __init__(
        self,
        url: str,
        credential: Credential,
        *,
        principal: str,
        seconds: float = SECONDS,
        on_not_recorded: Callable[[dict[str, Any]], object] | None = None,
        api_key_header: str = "X-API-Key",
        ca_file: str | None = None,
    ) -> None:
        access = ExplicitAccess(url, credential, api_key_header=api_key_header, ca_file=ca_file)
        self.calls = LedgerCalls(access, principal, seconds=seconds, on_not_recorded=on_not_recorded)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.calls.access.url} as {self.calls.principal}>"

    @classmethod
    def from_packet(
        cls,
        packet: Packet | None = None,
        *,
        principal: str | None = None,
        seconds: float = SECONDS,
        on_not_recorded: Callable[[dict[str, Any]], object] | None = None,
        environ: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Self:
        """The ledger that a Welcome Packet names, as the principal that it welcomes.

        Without a packet the one in METAGATE_PACKET_FILE. `options` (`url`, `token_file`, `api_key_file`,
        `api_key_header`, `ca_file`) and the variables of workers win over it. Raises MisconfiguredError.
        """
        env = environment() if environ is None else environ
        if packet is None and env.get(PACKET_FILE):
            packet = read(env[PACKET_FILE])
        owner = principal or (None if packet is None else packet["principal_key"])
        if not owner:
            raise MisconfiguredError(f"whose receipts are these? name the principal, or set {PACKET_FILE}")
        connection = cls.__new__(cls)
        connection.calls = LedgerCalls(
            find_memorygate(packet=packet, environ=env, **options),
            owner,
            seconds=seconds,
            on_not_recorded=on_not_recorded,
        )
        return connection

    @classmethod
    def sharing(cls, other: LedgerConnection) -> Self:
        """The same ledger, principal and deadlines, for callers of the other kind."""
        connection = cls.__new__(cls)
        connection.calls = other.calls
        return connection
