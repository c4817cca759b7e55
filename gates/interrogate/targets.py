"""Where a target is, and whether the gate may speak to it: a tenant names its own services, never an address of the
gate's network (IG-09).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import urlsplit, urlunsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


def comma_separated(text: str) -> tuple[str, ...]:
    """The globs of a setting."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


@dataclass(frozen=True, slots=True)
class TargetHosts:
    """Which hosts outside a tenant's namespace may be contacted: globs of `host` or `host:port`, in lower case."""

    globs: Sequence[str] = ()

    @classmethod
    def parse(cls, text: str) -> TargetHosts:
        return cls(comma_separated(text.lower()))

    def resolve(self, url: str, namespace: str) -> str | None:
        """The URL to call for a target of a tenant; None where it may not be called.

        A bare host is a service of the tenant's namespace: the resolver would look for it in the gate's own.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            return None
        if parts.scheme not in _DEFAULT_PORTS or not host or parts.username is not None or parts.password is not None:
            return None
        if "." not in host and ":" not in host:
            authority = f"{host}.{namespace}.svc" + ("" if port is None else f":{port}")
            return urlunsplit(parts._replace(netloc=authority, fragment=""))
        place = f"{host}:{_DEFAULT_PORTS[parts.scheme] if port is None else port}"
        if any(fnmatchcase(host, glob) or fnmatchcase(place, glob) for glob in self.globs):
            return urlunsplit(parts._replace(fragment=""))
        return None
