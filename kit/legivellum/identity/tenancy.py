"""Whose objects somebody may read: their own tenant's, and every tenant's only cluster-wide (D-51)."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse


class Reach(Protocol):
    """`legivellum.identity.caller.Caller`, or whoever looks at a page."""

    @property
    def tenant(self) -> UUID: ...
    @property
    def everywhere(self) -> bool:
        """Reads every tenant."""
        ...


def authorized_tenant(reader: Reach, wanted: UUID | None) -> UUID:
    """Of whose object is told: the reader's own, or, cluster-wide, what they name. Raises TENANT_MISMATCH, the same
    for a tenant that is not there.
    """
    if wanted is None or wanted == reader.tenant:
        return reader.tenant
    if reader.everywhere:
        return wanted
    raise refuse(Code.TENANT_MISMATCH, "tenant: not yours to read.")


def tenants_for(reader: Reach, wanted: UUID | None) -> UUID | None:
    """Of whom a list tells: None is every tenant, for a cluster-wide reader who names none."""
    return None if wanted is None and reader.everywhere else authorized_tenant(reader, wanted)
