"""Who looks, and at what they may look: an admin at all of their tenant, an observer at its startups and at what D-49's
topology tells of its principals and services.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from legivellum_http.codes import Code
from legivellum_http.problems import refuse
from metagate_console.ports import Ports
from metagate_console.sessions import Session
from metagate_store.rows import Identity

MAY_LOOK: Final = frozenset({"admin", "observer"})
_CLUSTER: Final = "Cluster"


@dataclass(frozen=True, slots=True)
class Viewer:
    tenant: UUID
    namespace: str
    principal_key: str
    admin: bool
    """Sees packets, layers, history, bindings, credentials and issuers too; an observer does not, as in the API."""
    everywhere: bool
    """Reads every tenant (D-51)."""
    session: Session

    def tenant_for(self, wanted: UUID | None) -> UUID:
        """Of whose object a page tells. Raises TENANT_MISMATCH, the same for a tenant that is not there."""
        if wanted is None or wanted == self.tenant:
            return self.tenant
        if self.everywhere:
            return wanted
        raise refuse(Code.TENANT_MISMATCH, "This tenant is not yours to read.")

    def tenants_for(self, wanted: UUID | None) -> UUID | None:
        """Of whom a list tells: None is every tenant, for a cluster-wide reader who chose none."""
        return None if wanted is None and self.everywhere else self.tenant_for(wanted)


async def viewer_of(session: Session | None, ports: Ports) -> Viewer | None:
    """Whoever the session's credential still speaks for, as the database and the believed issuers say now; None when
    they may not look (any more). Raises what the store raises.
    """
    if session is None:
        return None
    shown = session.credential
    if not ports.stands(shown.issuer, shown.kid, session.ground):
        return None
    (identity,) = await ports.reader().resolve([shown])
    if identity is None or not may_look(identity):
        return None
    if (identity.tenant, identity.principal_key) != (session.tenant, session.principal_key):
        return None  # the credential went to somebody else since
    return Viewer(
        tenant=identity.tenant,
        namespace=identity.namespace,
        principal_key=identity.principal_key,
        admin=identity.type == "admin",
        everywhere=identity.scope == _CLUSTER,
        session=session,
    )


def may_look(identity: Identity) -> bool:
    return identity.type in MAY_LOOK and not identity.suspended
