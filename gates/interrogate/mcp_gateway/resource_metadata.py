"""What OAuth clients are told of this resource server (RFC 9728), and under which names it may be called (GW-04)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final
from urllib.parse import urlsplit

from interrogate.problem_codes import Code
from interrogate.settings import Settings
from interrogate.targets import comma_separated
from legivellum.http import strict_json
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.problems import refuse

MCP_PATH: Final = "/mcp"
METADATA_PATH: Final = f"/.well-known/oauth-protected-resource{MCP_PATH}"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """The MCP endpoint as its clients know it."""

    resource: str
    """The URI that tokens are made for."""
    metadata_url: str
    authorization_servers: tuple[str, ...]
    hosts: tuple[str, ...]
    """Globs of host names, in lower case."""

    @classmethod
    def of(cls, settings: Settings) -> ProtectedResource:
        base = settings.resource.rstrip("/")
        own = urlsplit(base).hostname or ""
        return cls(
            resource=base + MCP_PATH,
            metadata_url=base + METADATA_PATH,
            authorization_servers=comma_separated(settings.authorization_servers),
            hosts=tuple(filter(None, (own, *_LOOPBACK, *comma_separated(settings.allowed_hosts.lower())))),
        )

    @property
    def metadata(self) -> Mapping[str, Any]:
        """RFC 9728 §2. There are no scopes in v1: what a principal may do is in policies."""
        servers = {"authorization_servers": list(self.authorization_servers)} if self.authorization_servers else {}
        return {
            "resource": self.resource,
            **servers,
            "bearer_methods_supported": ["header"],
            "resource_name": "InterroGate MCP gateway",
        }

    @property
    def challenge(self) -> bytes:
        """The value of WWW-Authenticate of a 401."""
        return f'Bearer resource_metadata="{self.metadata_url}"'.encode("latin-1", "replace")

    def require_own_name(self, exchange: Exchange) -> None:
        """A page may bind a name of its own to this gate's address and so call it from a browser inside the network.

        Raises HOST_NOT_ALLOWED (421), ORIGIN_NOT_ALLOWED (403).
        """
        if not self._is_own(f"//{_text(exchange.header(b'host'))}"):
            raise refuse(Code.HOST_NOT_ALLOWED, "This gate is not called by that host name.")
        origin = exchange.header(b"origin")
        if origin is not None and not self._is_own(_text(origin)):
            raise refuse(Code.ORIGIN_NOT_ALLOWED, "Pages of that origin may not call this gate.")

    def _is_own(self, url: str) -> bool:
        try:
            host = urlsplit(url).hostname
        except ValueError:
            return False
        return host is not None and any(fnmatchcase(host, glob) for glob in self.hosts)


class ResourceMetadata:
    """GET /.well-known/oauth-protected-resource/mcp"""

    def __init__(self, resource: ProtectedResource) -> None:
        self._body = strict_json.encode(resource.metadata)

    async def __call__(self, _exchange: Exchange) -> Response:
        return json_response(200, self._body)


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode("latin-1")
