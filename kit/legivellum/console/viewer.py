"""Whether a session's credential is still good: asked again for every page and while a stream is open."""

from legivellum.console.definition import ConsoleDefinition, ConsolePorts
from legivellum.console.sessions import Session, Viewer
from legivellum.identity.caller import Identity, reads_everywhere


async def authorized_viewer(session: Session, definition: ConsoleDefinition, ports: ConsolePorts) -> Viewer | None:
    """The principal whom the session's credential still speaks for, as the gate and the trusted issuers say now; None
    when it may not look (any more). Raises what the gate's storage raises.
    """
    credential = session.credential
    if not ports.is_current(credential.issuer, credential.kid, session.verification):
        return None
    viewer = _viewer(session, await ports.resolve(session))
    return viewer if viewer is not None and definition.admits(viewer.type) else None


def _viewer(session: Session, identity: Identity | None) -> Viewer | None:
    if identity is None or identity.suspended:
        return None
    if (identity.tenant, identity.principal_key) != (session.tenant, session.principal_key):
        return None  # the credential was given to another principal since
    return Viewer(
        tenant=identity.tenant,
        namespace=identity.namespace,
        principal_key=identity.principal_key,
        type=identity.type,
        everywhere=reads_everywhere(identity.scope, identity.type),
        session=session,
        rights=identity.rights,
    )
