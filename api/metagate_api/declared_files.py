"""The port through which a standalone gate writes declared resources (D-12, D-53).

The gate does not know about directories: `metagate dev` hands it an implementation, a cluster hands it none, and then
writing is answered with 405 and the name of the custom resource.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class ResourceFinding:
    """One thing wrong with a resource: where, which rule, in words; never a value."""

    path: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class FileWritten:
    """The file is in place. `created`: there was none before."""

    created: bool


class DeclaredFiles(Protocol):
    """Files `<plural>/<namespace>/<name>.yaml`, written atomically through the same validation as everything else."""

    async def write(
        self, *, kind: str, namespace: str, name: str, resource: Mapping[str, Any]
    ) -> FileWritten | Sequence[ResourceFinding]:
        """Validate and write one resource (`apiVersion`, `kind`, `metadata`, `spec`); complaints when it is invalid.

        `kind` is the resource's kind (`PrincipalBinding`); `namespace` is "" for a TokenIssuer.
        """
        ...

    async def remove(self, *, kind: str, namespace: str, name: str) -> bool:
        """Remove it. False when no file of ours declares it."""
        ...
