"""POST /v1/introspect (RFC 7662, D-48): another gate asks who a credential is. `service` principals only.

The token asked about was shown to that gate, so it is meant for it and not for this one (D-44): every audience holds
that its issuer is believed for, and the answer names it. It opens nothing here.
"""

from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request, Response

from legivellum.http import strict_json
from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from legivellum.identity.caller import CLUSTER, AuthFailure
from metagate_api.callers import Caller, credential_row
from metagate_api.gate import Gate, exchange_of, gate_of
from metagate_api.request_parameters import Authentication, revalidated
from metagate_api.responses import json_response

INACTIVE = {"active": False}
_LONGEST = 16_384


async def introspect(request: Request, authentication: Authentication) -> Response:
    exchange = exchange_of(request)
    token = _token(exchange.header(b"content-type") or b"", await request.body())
    caller = await revalidated(gate_of(request), authentication)
    if caller.type != "service":
        raise refuse(Code.ROLE_REQUIRED, "Only a principal of type service may do this.")
    return json_response(await _answer(gate_of(request), caller, token))


async def _answer(gate: Gate, caller: Caller, token: str) -> dict[str, Any]:
    subject = await gate.authenticator.introspect(token.encode("utf-8", "replace"))
    if isinstance(subject, AuthFailure):
        return INACTIVE
    # The authenticator may remember for a moment; an introspection is asked once and believed for longer.
    (identity,) = await gate.reader.resolve([credential_row(subject)])
    if identity is None or identity.suspended:
        return INACTIVE
    # `active: false` and no refusal: whether a credential exists in another tenant is not told (RFC 7662 §2.2).
    if identity.tenant != caller.tenant and caller.scope != CLUSTER:
        return INACTIVE
    return {
        "active": True,
        "tenant": identity.tenant,
        "namespace": identity.namespace,
        "principal_key": identity.principal_key,
        "type": identity.type,
        "scope": identity.scope,
        "rights": identity.rights,
        "aud": subject.audience,
        "exp": None if subject.expires_at is None else int(subject.expires_at.timestamp()),
    }


def _token(media: bytes, body: bytes) -> str:
    """`token=` in a form, as RFC 7662 has it, or a member of a JSON object."""
    kind = media.split(b";", 1)[0].strip().lower()
    if kind == b"application/x-www-form-urlencoded":
        try:
            values = [value for name, value in parse_qsl(body.decode("ascii"), max_num_fields=16) if name == "token"]
        except ValueError:
            raise refuse(Code.INVALID_REQUEST, "The form is malformed.") from None
        # Two `token` fields could be read differently by whoever stands between.
        token = values[0] if len(values) == 1 else None
    elif kind == b"application/json":
        token = strict_json.parse_object(body).get("token")
    else:
        raise refuse(Code.UNSUPPORTED_MEDIA_TYPE, "Send a form or JSON.")
    if not isinstance(token, str) or not 0 < len(token) <= _LONGEST:
        raise refuse(Code.INVALID_REQUEST, "token: required, once.")
    return token
