"""Where the gates of a tenant are, and how a person reaches them: by settings, a packet, or the topology.

Only services whose `type` is a gate's name are called: a credential is sent to no other service that somebody declared.
For the same reason addresses come from the caller's own tenant, whichever tenant is asked about.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from metagate_cli.api_client import ApiClient, ApiError, connect, stop_for
from metagate_cli.output import safe_text
from metagate_cli.terminal import FAILURE, USAGE, Stop

if TYPE_CHECKING:
    from legivellum_worker.settings import GateAccess, GateFinder

GATES: Final = ("metagate", "memorygate", "asyncgate", "depotgate", "delegate", "interrogate", "cognigate")
"""The types of services that are gates."""
TITLES: Final[Mapping[str, str]] = {
    "memorygate": "MemoryGate",
    "asyncgate": "AsyncGate",
    "depotgate": "DepotGate",
    "delegate": "DeleGate",
    "interrogate": "InterroGate",
}

MetaGateUrl = Annotated[
    str | None, typer.Option("--url", help="MetaGate, whose topology names the gates.", envvar="METAGATE_URL")
]
MyKeyFile = Annotated[Path | None, typer.Option("--key-file", help="Your API key.", envvar="METAGATE_API_KEY_FILE")]
MyTokenFile = Annotated[Path | None, typer.Option("--token-file", help="A token instead, of the gate's audience.")]
Packet = Annotated[
    Path | None, typer.Option("--packet", help="A Welcome Packet that names the gates.", envvar="METAGATE_PACKET_FILE")
]


@dataclass(frozen=True, slots=True)
class GateAddress:
    """A gate, as a packet or the topology names it."""

    service: str
    type: str
    endpoint: str


class TenantGates:
    """The gates of a person's tenant, each found when it is asked for. Methods raise Stop."""

    def __init__(
        self,
        url: str | None,
        key_file: Path | None,
        token_file: Path | None,
        ca_file: Path | None,
        packet: Path | None,
    ) -> None:
        self._url, self._key_file, self._token_file = url, key_file, token_file
        self._ca_file, self._packet = ca_file, packet

    def client(self, gate: str) -> ApiClient:
        """A client of the gate of this type."""
        return self._client(gate, *self.access(gate))

    def client_or_none(self, gate: str) -> ApiClient | None:
        """None where nothing says where the gate is: a tenant need not have it."""
        address = self._access_or_none(gate)
        return None if address is None else self._client(gate, *address)

    def access(self, gate: str) -> tuple[GateAccess, tuple[str, str]]:
        """Where the gate of this type is, and the header with the caller's credential."""
        address = self._access_or_none(gate)
        if address is None:
            raise Stop(f"where is {TITLES[gate]}? {self._where(gate)}")
        return address

    def _access_or_none(self, gate: str) -> tuple[GateAccess, tuple[str, str]] | None:
        from metagate_client.errors import ClientError

        try:
            access = self._finder.find(gate, None, self._token)
            if access is None and (endpoint := self._declared.get(gate)):
                access = self._finder.find(gate, endpoint, self._token)
            return None if access is None else (access, access.credential())
        except ClientError as error:
            raise Stop(str(error), code=error.exit_code) from error

    def _client(self, gate: str, access: GateAccess, credential: tuple[str, str]) -> ApiClient:
        name, value = credential
        return ApiClient(access.url, {name: value}, ca_file=self._ca_file, gate=TITLES[gate])

    @property
    def _token(self) -> str | None:
        return None if self._token_file is None else str(self._token_file)

    @cached_property
    def _finder(self) -> GateFinder:
        from legivellum_worker.settings import GateFinder

        # A token file that is given goes with every gate, a key only where there is none.
        key = None if self._key_file is None or self._token_file is not None else str(self._key_file)
        return GateFinder(api_key_file=key, ca_file=None if self._ca_file is None else str(self._ca_file))

    @cached_property
    def _declared(self) -> Mapping[str, str]:
        """Endpoints by type of gate: those of the packet, or else of the topology."""
        if self._packet is not None:
            addresses = packet_gates(self._packet)
        elif self._url:
            addresses = topology_gates(connect(self._url, self._key_file, self._token_file, self._ca_file, None))
        else:
            return {}
        return {address.type: address.endpoint for address in reversed(addresses)}

    def _where(self, gate: str) -> str:
        if self._packet is not None:
            return f"{self._packet} names no service of type {gate}: set METAGATE_{gate.upper()}_URL"
        if self._url:
            return f"the topology names no service of type {gate}: set METAGATE_{gate.upper()}_URL"
        return f"Give --url (METAGATE_URL) or --packet, or set METAGATE_{gate.upper()}_URL"


def topology_gates(api: ApiClient) -> list[GateAddress]:
    """Those of the caller's tenant, each address once."""
    services: list[Mapping[str, Any]] = []
    cursor = None
    try:
        while True:
            page = api.get("/v1/topology", cursor=cursor)
            services += page["services"]
            cursor = page.get("next_cursor")
            if cursor is None:
                break
    except ApiError as error:
        raise stop_for(error) from error
    return _gates((service["name"], service.get("type"), service.get("endpoint")) for service in services)


def packet_gates(file: Path) -> list[GateAddress]:
    """Those of a Welcome Packet."""
    try:
        services = json.loads(file.read_text(encoding="utf-8"))["services"]
        return _gates((name, service.get("type"), service.get("endpoint")) for name, service in services.items())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Stop(f"{file}: is no Welcome Packet", code=FAILURE) from error


def _gates(services: Iterable[tuple[Any, Any, Any]]) -> list[GateAddress]:
    gates: dict[str, GateAddress] = {}
    for name, kind, endpoint in services:
        if kind in GATES and isinstance(endpoint, str) and urlsplit(endpoint).scheme in {"http", "https"}:
            gates.setdefault(endpoint.rstrip("/"), GateAddress(str(name), kind, endpoint))
    return sorted(gates.values(), key=lambda gate: (GATES.index(gate.type), gate.service))


def with_configured(gates: Iterable[GateAddress]) -> list[GateAddress]:
    """These, and the gates that `METAGATE_<GATE>_URL` names, as every other command finds them."""
    from metagate_client.settings import environment

    addresses = {gate.endpoint.rstrip("/"): gate for gate in gates}
    for kind in TITLES:
        if endpoint := environment().get(f"METAGATE_{kind.upper()}_URL"):
            addresses.setdefault(endpoint.rstrip("/"), GateAddress(kind, kind, endpoint))
    return sorted(addresses.values(), key=lambda gate: (GATES.index(gate.type), gate.service))


def confirm(question: str, *, yes: bool) -> bool:
    """Whether a person at a terminal agrees; `yes`: it was said already. Raises Stop where nobody can be asked."""
    import sys

    if yes:
        return True
    if not sys.stdin.isatty():
        raise Stop("nobody can be asked here: say --yes", code=USAGE)
    return typer.confirm(safe_text(question), err=True)
