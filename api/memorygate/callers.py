"""Who is speaking: the identity package's answer in the ledger's words."""

from collections.abc import Sequence
from typing import Final, Protocol
from uuid import UUID

from legivellum_http.codes import Code
from legivellum_http.exchange import Exchange
from legivellum_http.problems import Refused, refuse
from legivellum_http.rate_limit import TokenBuckets
from legivellum_identity.caller import Caller, Reason, Refusal
from memorygate import metrics

__all__ = ["Authenticate", "Caller", "Door", "permitted", "tenant_for"]

_CODES: Final = {
    Reason.MULTIPLE_CREDENTIALS: Code.SEVERAL_CREDENTIALS,
    Reason.MISSING: Code.CREDENTIAL_MISSING,
    Reason.KEY_EXPIRED: Code.CREDENTIAL_EXPIRED,
    Reason.EXPIRED: Code.CREDENTIAL_EXPIRED,
    Reason.SUBJECT_UNKNOWN: Code.PRINCIPAL_UNKNOWN,
}


class Authenticate(Protocol):
    """`legivellum_identity.authenticator.Authenticator`, or a double of it."""

    async def authenticate(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller | Refusal: ...


class Door:
    """Lets requests in: authentication, then the principal's rate. What it refuses is counted by reason."""

    def __init__(self, authenticator: Authenticate, buckets: TokenBuckets) -> None:
        self._authenticator = authenticator
        self._buckets = buckets

    async def admit(self, exchange: Exchange) -> Caller | Refused:
        """The caller. Raises 400, 401 and 429; a 403 is returned, because the body is judged before it (D-42)."""
        caller = await self._authenticator.authenticate(exchange.headers)
        if isinstance(caller, Refusal):
            metrics.AUTH_FAILURES.labels(caller.reason.value).inc()
            exchange.reason = caller.reason.value
            refused = refuse(_CODES.get(caller.reason, Code.CREDENTIAL_INVALID), caller.detail)
            if caller.status == 403:
                return refused
            raise refused
        exchange.who = (str(caller.tenant), caller.principal_key)
        wait = self._buckets.take((caller.tenant, caller.principal_key))
        if wait:
            metrics.RATE_LIMITED.inc()
            raise refuse(Code.RATE_LIMITED, f"This principal asks too often; wait {wait} s.")
        return caller

    async def reader(self, exchange: Exchange) -> Caller:
        """The caller of a request without a body."""
        return permitted(await self.admit(exchange))


def permitted(speaker: Caller | Refused) -> Caller:
    if isinstance(speaker, Refused):
        raise speaker
    if speaker.suspended:
        raise refuse(Code.PRINCIPAL_SUSPENDED, "This principal is suspended.")
    return speaker


def tenant_for(caller: Caller, wanted: UUID | None) -> UUID:
    """Whose receipts are read: the caller's tenant's, or those a cluster-wide admin or observer names (D-51)."""
    if wanted is None or wanted == caller.tenant:
        return caller.tenant
    if caller.scope == "Cluster" and caller.type in {"admin", "observer"}:
        return wanted
    raise refuse(Code.TENANT_MISMATCH, "tenant: not yours to read.")
