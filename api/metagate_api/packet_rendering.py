"""A Welcome Packet as it leaves the gate: the checked shared body, the request's own fields, ETag and signature."""

import json
from collections.abc import Mapping
from typing import Final, Protocol
from uuid import UUID

from legivellum.base.timestamps import rfc3339
from legivellum.http.exchange import Response, json_response
from legivellum.http.problems import SECURITY_HEADERS, Headers
from metagate_api.session_opener import OpenedSession
from metagate_crds import packet
from metagate_crds.canonical_json import canonical
from metagate_crds.packet import RequestFields
from metagate_store.rows import BootstrapOutcome, BootstrapResult, PacketResult, require

SIGNATURE: Final = b"metagate-packet-signature"


class Signer(Protocol):
    """`legivellum.identity.packet_signing.PacketSigner`."""

    @property
    def public_jwk(self) -> Mapping[str, str]: ...

    def sign(self, canonical: bytes) -> str: ...


def bootstrap_response(opened: OpenedSession, signer: Signer | None) -> Response:
    """The answer to a bootstrap: 200 with the packet, or 304 for a client that has it already."""
    result = opened.result
    headers: Headers = (
        (b"etag", b'"%s"' % opened.etag.encode()),
        (b"metagate-startup-id", str(require(result.startup_id)).encode()),
        (b"metagate-startup-deadline", rfc3339(require(result.deadline_at)).encode()),
    )
    if result.outcome is BootstrapOutcome.REPLAYED:
        headers = (*headers, (b"idempotency-replayed", b"true"))
    # A session was opened all the same (D-02): its id is in the headers, which a 304 may carry.
    if opened.body is None:
        return Response(304, [*SECURITY_HEADERS, *headers], b"")
    served = render_packet(
        opened.body,
        result,
        principal_key=opened.principal_key,
        component_key=opened.component_key,
        startup_id=require(result.startup_id),
    )
    return json_response(200, served, *headers, *signature_headers(signer, served))


def render_packet(
    body: bytes,
    result: BootstrapResult | PacketResult,
    *,
    principal_key: str,
    component_key: str,
    startup_id: UUID,
) -> bytes:
    """A Welcome Packet (INV-013): 17 keys. `body` is the checked shared body of the result's digest."""
    return packet.splice(
        body,
        RequestFields(
            packet_id=str(require(result.packet_id)),
            issued_at=rfc3339(require(result.issued_at)),
            principal_key=principal_key,
            component_key=component_key,
            startup_id=str(startup_id),
            deadline_at=rfc3339(require(result.deadline_at)),
            revision=require(result.revision),
            digest=require(result.digest),
            compiled_at=rfc3339(require(result.compiled_at)),
        ),
    )


def signature_headers(signer: Signer | None, served: bytes) -> Headers:
    """The header that signs a packet's canonical form, or none where no key is configured (EXT-09)."""
    return () if signer is None else ((SIGNATURE, signer.sign(canonical(json.loads(served))).encode()),)
