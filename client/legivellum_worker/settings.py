"""Where AsyncGate and the ledger are and who we are: explicit values, then `METAGATE_…` variables, then the packet."""

from __future__ import annotations

import os

from metagate_client.errors import MisconfiguredError
from metagate_client.http_request import ServerAddress
from metagate_client.packet_file import read
from metagate_client.settings import (
    API_KEY_FILE,
    API_KEY_HEADER,
    CA_FILE,
    PACKET_FILE,
    environment,
    parse_url,
    read_credential,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from metagate_client.packet import Packet

ASYNCGATE_URL = "METAGATE_ASYNCGATE_URL"
ASYNCGATE_TOKEN_FILE = "METAGATE_ASYNCGATE_TOKEN_FILE"  # noqa: S105 - a name
MEMORYGATE_URL = "METAGATE_MEMORYGATE_URL"
MEMORYGATE_TOKEN_FILE = "METAGATE_MEMORYGATE_TOKEN_FILE"  # noqa: S105 - a name

PROJECTED_TOKENS = "/var/run/secrets/{gate}/token"
"""Where the examples mount the token of each gate's audience; used when nothing else is configured and it is there."""

_PORTS = {"asyncgate": 8002, "memorygate": 8001}


class GateAccess:
    """How to call one gate: its address, and the credential, which is read anew for every call."""

    __slots__ = ("address", "api_key_file", "api_key_header", "base", "gate", "token_file", "url")

    def __init__(
        self,
        gate: str,
        url: str,
        *,
        token_file: str | None,
        api_key_file: str | None,
        api_key_header: str,
        ca_file: str | None,
    ) -> None:
        name = f"METAGATE_{gate.upper()}_URL"
        tls, host, port, base = parse_url(url, name=name, owner=gate, example=f"{gate}:{_PORTS[gate]}")
        self.gate, self.url, self.base = gate, url, base
        self.address = ServerAddress(host, port, tls=tls, ca_file=ca_file)
        self.token_file, self.api_key_file, self.api_key_header = token_file, api_key_file, api_key_header
        if not token_file and not api_key_file:
            raise MisconfiguredError(
                f"there is no credential for {gate}: set METAGATE_{gate.upper()}_TOKEN_FILE (a projected token with "
                f"audience {gate}) or {API_KEY_FILE}"
            )

    def __repr__(self) -> str:
        return f"<GateAccess {self.url} with {self.token_file or self.api_key_file}>"

    def credential(self) -> tuple[str, str]:
        """The header and value that say who we are."""
        if self.token_file is not None:
            advice = f"mount a projected serviceAccountToken volume with audience {self.gate}"
            return "Authorization", f"Bearer {read_credential(self.token_file, 'token', advice)}"
        assert self.api_key_file is not None
        advice = "write the key into it, with mode 0600"
        return self.api_key_header, read_credential(self.api_key_file, "API key", advice)


class WorkerSettings:
    """AsyncGate, and the ledger where it is known: the ledger is asked only how a task's needs ended.

    `url`, `token_file` and `api_key_file` are AsyncGate's. Raises MisconfiguredError for what cannot be.
    """

    __slots__ = ("asyncgate", "memorygate")

    def __init__(
        self,
        *,
        url: str | None = None,
        token_file: str | None = None,
        api_key_file: str | None = None,
        api_key_header: str | None = None,
        ca_file: str | None = None,
        ledger_url: str | None = None,
        ledger_token_file: str | None = None,
        packet: Packet | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        env = environment() if environ is None else environ
        if packet is None and env.get(PACKET_FILE):
            packet = read(env[PACKET_FILE])
        if token_file and api_key_file:
            raise MisconfiguredError("both a token file and an API key file are configured: choose one")
        ca_file = ca_file or env.get(CA_FILE) or None
        header = api_key_header or env.get(API_KEY_HEADER) or "X-API-Key"

        def access(gate: str, given_url: str | None, given_token: str | None) -> GateAccess | None:
            endpoint = given_url or env.get(f"METAGATE_{gate.upper()}_URL") or _endpoint(packet, gate)
            if not endpoint:
                return None
            key = api_key_file or (None if given_token else env.get(API_KEY_FILE))
            token = given_token or (None if api_key_file else _token_file(gate, env, has_key=bool(key)))
            if gate == "memorygate" and not token and not key:
                return None  # a packet names the ledger also for workers that have no token for it
            return GateAccess(
                gate, endpoint, token_file=token, api_key_file=key, api_key_header=header, ca_file=ca_file
            )

        asyncgate = access("asyncgate", url, token_file)
        if asyncgate is None:
            raise MisconfiguredError(
                f"AsyncGate's address is not known: set {ASYNCGATE_URL}, or {PACKET_FILE} to a packet that names it"
            )
        self.asyncgate = asyncgate
        self.memorygate = access("memorygate", ledger_url, ledger_token_file)

    def __repr__(self) -> str:
        return f"<WorkerSettings {self.asyncgate!r}>"


def _endpoint(packet: Packet | None, gate: str) -> str | None:
    if packet is None:
        return None
    try:
        return str(packet.service(gate)["endpoint"])
    except LookupError:
        return None


def _token_file(gate: str, env: Mapping[str, str], *, has_key: bool) -> str | None:
    configured = env.get(f"METAGATE_{gate.upper()}_TOKEN_FILE")
    if configured:
        return configured
    mounted = PROJECTED_TOKENS.format(gate=gate)
    # A key that is configured is meant for every gate; a token is only good for the gate of its audience.
    return mounted if not has_key and os.path.exists(mounted) else None
