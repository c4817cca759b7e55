"""A Welcome Packet as its reader sees it: the bytes that came, what they say, and whether they are from now."""

from __future__ import annotations

import json

from metagate_client.errors import MisconfiguredError, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Packet:
    """`content` is what the packet says, `body` the bytes as they came.

    A packet is `stale` when it was read from a file because MetaGate was away: it may be of any age, and the startup it
    names has been reported long ago.
    """

    __slots__ = ("body", "content", "stale")

    def __init__(self, body: bytes, content: dict[str, Any], *, stale: bool = False) -> None:
        self.body, self.content, self.stale = body, content, stale

    @classmethod
    def from_body(cls, body: bytes, *, stale: bool = False) -> Packet:
        """Raises UnavailableError for anything that is not a packet."""
        try:
            content = json.loads(body)
            if isinstance(content["startup"]["startup_id"], str):
                return cls(body, content, stale=stale)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise UnavailableError("what was read is not a Welcome Packet; check METAGATE_URL and the packet file")

    def __repr__(self) -> str:
        """Which packet it is, and nothing of what it holds."""
        content = self.content
        owner = f"{content.get('principal_key')} as {content.get('component_key')}"
        return f"<Packet of {owner}, startup {content['startup']['startup_id']}{', STALE' if self.stale else ''}>"

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    @property
    def startup_id(self) -> str | None:
        """The session to report; None for a stale packet, whose session belongs to an earlier start."""
        startup_id: str = self.content["startup"]["startup_id"]
        return None if self.stale else startup_id

    @property
    def issued_at(self) -> str:
        return str(self.content.get("issued_at", "an unknown time"))

    def services(self, kind: str | None = None) -> dict[str, dict[str, Any]]:
        """The services by name, all or those of one type."""
        services: Mapping[str, dict[str, Any]] = self.content.get("services") or {}
        return {name: service for name, service in services.items() if kind is None or service.get("type") == kind}

    def service(self, kind: str) -> dict[str, Any]:
        """The one service of a type. Raises LookupError when there is none, or more than one."""
        services = self.services(kind)
        if len(services) != 1:
            raise LookupError(f"{len(services)} services of type {kind!r} in the packet, not one")
        return next(iter(services.values()))

    def find(self, path: str) -> Any:
        """What stands at `services.mail.endpoint`, or at `/services/mail.internal/endpoint` where names have dots.

        Raises LookupError.
        """
        value: Any = self.content
        for part in path[1:].split("/") if path.startswith("/") else path.split("."):
            key = part.replace("~1", "/").replace("~0", "~") if path.startswith("/") else part
            if isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, dict) and key in value:
                value = value[key]
            else:
                raise LookupError(f"the packet has no {path}")
        return value

    def secret(self, name: str) -> tuple[str, str]:
        """Where the pod has a secret: `Env` and the variable, or `File` and the path. Raises MisconfiguredError."""
        for secret in self.content.get("required_env") or []:
            if secret["name"] == name:
                return str(secret["ref_kind"]), str(secret["ref_name"])
        raise MisconfiguredError(f"the packet does not say where the secret {name} is")

    def missing_secrets(self, environ: Mapping[str, str], exists: Any) -> list[str]:
        """Names of required secrets that are neither in the environment nor mounted where the packet says."""
        missing = []
        for secret in self.content.get("required_env") or []:
            kind, name = str(secret["ref_kind"]).lower(), secret["ref_name"]
            present = exists(name) if kind == "file" else name in environ
            if secret.get("required") and not present:
                missing.append(f"{secret['ref_kind']} {secret['ref_name']}")
        return missing


def to_environment_value(value: object) -> str:
    """A value of the packet as an environment variable: texts as they are, everything else as JSON."""
    if isinstance(value, str):
        if "\x00" in value:
            raise MisconfiguredError("a value with NUL cannot become an environment variable")
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
