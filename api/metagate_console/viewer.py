"""Who looks, and at what they may look: an admin at all of their tenant, an observer at its startups and at what D-49's
topology tells of its principals and services.
"""

from dataclasses import dataclass
from uuid import UUID

from legivellum.identity.caller import may_read_others, reads_everywhere
from metagate_console.ports import Ports
from metagate_console.sessions import Session
from metagate_store.rows import IdentityRow


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


async def authorized_viewer(session: Session, ports: Ports) -> Viewer | None:
    """Whoever the session's credential still speaks for, as the database and the believed issuers say now; None when
    they may not look (any more). Raises what the store raises.
    """
    credential = session.credential
    if not ports.is_current(credential.issuer, credential.kid, session.verification):
        return None
    (identity,) = await ports.reader().resolve([credential])
    if identity is None or not may_look(identity):
        return None
    if (identity.tenant, identity.principal_key) != (session.tenant, session.principal_key):
        return None  # the credential went to somebody else since
    return Viewer(
        tenant=identity.tenant,
        namespace=identity.namespace,
        principal_key=identity.principal_key,
        admin=identity.type == "admin",
        everywhere=reads_everywhere(identity.scope, identity.type),
        session=session,
    )


def may_look(identity: IdentityRow) -> bool:
    return may_read_others(identity.type) and not identity.suspended
