"""Where the gates are and who we are: explicit values, then `METAGATE_…` variables, then the packet."""

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
    from typing import Any

    from metagate_client.packet import Packet

ASYNCGATE_URL = "METAGATE_ASYNCGATE_URL"
ASYNCGATE_TOKEN_FILE = "METAGATE_ASYNCGATE_TOKEN_FILE"  # noqa: S105 - a name
MEMORYGATE_URL = "METAGATE_MEMORYGATE_URL"
MEMORYGATE_TOKEN_FILE = "METAGATE_MEMORYGATE_TOKEN_FILE"  # noqa: S105 - a name
DEPOTGATE_URL = "METAGATE_DEPOTGATE_URL"
DEPOTGATE_TOKEN_FILE = "METAGATE_DEPOTGATE_TOKEN_FILE"  # noqa: S105 - a name
INTERROGATE_URL = "METAGATE_INTERROGATE_URL"
INTERROGATE_TOKEN_FILE = "METAGATE_INTERROGATE_TOKEN_FILE"  # noqa: S105 - a name
SPAWN_SURFACE = "METAGATE_SPAWN_SURFACE"
SPAWN_PROFILE = "METAGATE_SPAWN_PROFILE"
DELEGATE_URL = "METAGATE_DELEGATE_URL"
DELEGATE_TOKEN_FILE = "METAGATE_DELEGATE_TOKEN_FILE"  # noqa: S105 - a name

PROJECTED_TOKENS = "/var/run/secrets/{gate}/token"
"""Where the examples mount the token of each gate's audience; used when nothing else is configured and it is there."""

_PORTS = {"memorygate": 8001, "asyncgate": 8002, "depotgate": 8003, "delegate": 8004, "interrogate": 8005}


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


class GateFinder:
    """Finds gates for one process. `api_key_file`, `api_key_header` and `ca_file` are those of every gate.

    Raises MisconfiguredError for what cannot be.
    """

    __slots__ = ("_api_key_file", "_ca_file", "_env", "_header", "_packet")

    def __init__(
        self,
        *,
        api_key_file: str | None = None,
        api_key_header: str | None = None,
        ca_file: str | None = None,
        packet: Packet | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._env = env = environment() if environ is None else environ
        self._packet = read(env[PACKET_FILE]) if packet is None and env.get(PACKET_FILE) else packet
        self._api_key_file = api_key_file
        self._ca_file = ca_file or env.get(CA_FILE) or None
        self._header = api_key_header or env.get(API_KEY_HEADER) or "X-API-Key"

    def find(
        self, gate: str, url: str | None = None, token_file: str | None = None, *, must_be_usable: bool = True
    ) -> GateAccess | None:
        """The gate of this name; None where no address of it is known, or no credential and it need not be usable."""
        endpoint = url or self._env.get(f"METAGATE_{gate.upper()}_URL") or _endpoint(self._packet, gate)
        if not endpoint:
            return None
        key = self._api_key_file or (None if token_file else self._env.get(API_KEY_FILE))
        token = token_file or (None if self._api_key_file else _token_file(gate, self._env, has_key=bool(key)))
        if not must_be_usable and not token and not key:
            return None
        return GateAccess(
            gate, endpoint, token_file=token, api_key_file=key, api_key_header=self._header, ca_file=self._ca_file
        )


class WorkerSettings:
    """AsyncGate; the other gates where they are known.

    The ledger is asked how a task's needs ended, DepotGate for inputs and outputs, InterroGate admits what is spawned,
    DeleGate closes plans. `surface` and `policy_profile` are those at which InterroGate judges what is spawned.

    `url`, `token_file` and `api_key_file` are AsyncGate's. Raises MisconfiguredError for what cannot be.
    """

    __slots__ = ("asyncgate", "delegate", "depotgate", "interrogate", "memorygate", "policy_profile", "surface")

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
        depot_url: str | None = None,
        depot_token_file: str | None = None,
        interrogate_url: str | None = None,
        interrogate_token_file: str | None = None,
        delegate_url: str | None = None,
        delegate_token_file: str | None = None,
        surface: str | None = None,
        policy_profile: str | None = None,
        packet: Packet | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        _one_credential(token_file, api_key_file)
        gates = GateFinder(
            api_key_file=api_key_file, api_key_header=api_key_header, ca_file=ca_file, packet=packet, environ=environ
        )
        asyncgate = gates.find("asyncgate", url, token_file)
        if asyncgate is None:
            raise MisconfiguredError(
                f"AsyncGate's address is not known: set {ASYNCGATE_URL}, or {PACKET_FILE} to a packet that names it"
            )
        self.asyncgate = asyncgate
        # A packet names these gates also for workers that have no token for them.
        self.memorygate = gates.find("memorygate", ledger_url, ledger_token_file, must_be_usable=False)
        self.depotgate = gates.find("depotgate", depot_url, depot_token_file, must_be_usable=False)
        self.interrogate = gates.find("interrogate", interrogate_url, interrogate_token_file, must_be_usable=False)
        env = environment() if environ is None else environ
        self.surface = surface or env.get(SPAWN_SURFACE) or "public"
        self.policy_profile = policy_profile or env.get(SPAWN_PROFILE) or "default"
        self.delegate = gates.find("delegate", delegate_url, delegate_token_file, must_be_usable=False)

    def __repr__(self) -> str:
        return f"<WorkerSettings {self.asyncgate!r}>"


def find_depotgate(**options: Any) -> GateAccess:
    """DepotGate alone, for who is no worker. `options` are those of `find_gate`. Raises MisconfiguredError."""
    return find_gate("depotgate", "DepotGate", **options)


def find_memorygate(**options: Any) -> GateAccess:
    """The ledger alone, for who is no worker. `options` are those of `find_gate`. Raises MisconfiguredError."""
    return find_gate("memorygate", "The ledger", **options)


def find_gate(
    gate: str,
    title: str,
    *,
    url: str | None = None,
    token_file: str | None = None,
    api_key_file: str | None = None,
    **more: Any,
) -> GateAccess:
    """One gate. `more`: the other arguments of GateFinder. Raises MisconfiguredError where its address is not known."""
    _one_credential(token_file, api_key_file)
    access = GateFinder(api_key_file=api_key_file, **more).find(gate, url, token_file)
    if access is None:
        setting = f"METAGATE_{gate.upper()}_URL"
        raise MisconfiguredError(
            f"{title}'s address is not known: set {setting}, or {PACKET_FILE} to a packet that names it"
        )
    return access


def _one_credential(token_file: str | None, api_key_file: str | None) -> None:
    if token_file and api_key_file:
        raise MisconfiguredError("both a token file and an API key file are configured: choose one")


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
