"""What the gate shows an MCP server: the secret that the target names, else a token of the gate (GW-16).

Never the caller's credential: it was made for this gate, and a server that got it could be this gate's caller.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from interrogate.mcp_gateway.upstream_transport import UpstreamFailure

_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_LARGEST: Final = 16_384
_BEARER: Final = re.compile(rb"[\x21-\x7e]+")


class CredentialFiles:
    """A directory with a folder for each namespace and in it a file for each `secretRef`."""

    def __init__(self, directory: str | None) -> None:
        self._directory = None if directory is None else Path(directory)

    def bearer(self, namespace: str, name: str) -> str:
        """The secret, read anew: a file that was changed counts from the next call on. Raises UpstreamFailure.

        A tenant's target reads the folder of the tenant's namespace only, whatever it names.
        """
        missing = UpstreamFailure("CREDENTIAL_MISSING", f"The gate has no credential {name} for this MCP server.")
        if self._directory is None or not all(map(_NAME.fullmatch, (namespace, name))):
            raise missing
        try:
            with (self._directory / namespace / name).open("rb") as file:
                secret = file.read(_LARGEST).strip()
        except OSError as error:
            raise missing from error
        if not _BEARER.fullmatch(secret):
            raise missing
        return secret.decode("ascii")
