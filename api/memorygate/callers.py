"""Who is speaking: the identity package's answer in the ledger's words."""

from uuid import UUID

from legivellum_http.codes import Code
from legivellum_http.exchange import Exchange
from legivellum_http.problems import refuse
from legivellum_http.rate_limit import TokenBuckets
from legivellum_identity import door
from legivellum_identity.caller import Caller
from legivellum_identity.door import Authenticate, permitted
from memorygate import metrics

__all__ = ["Authenticate", "Caller", "Door", "permitted", "tenant_for"]


class Door(door.Door):
    """Lets requests in, and counts by reason what it refuses."""

    def __init__(self, authenticator: Authenticate, buckets: TokenBuckets) -> None:
        super().__init__(
            authenticator,
            buckets,
            refused=lambda reason: metrics.AUTH_FAILURES.labels(reason.value).inc(),
            limited=metrics.RATE_LIMITED.inc,
        )

    async def reader(self, exchange: Exchange) -> Caller:
        """The caller of a request without a body."""
        return permitted(await self.admit(exchange))


def tenant_for(caller: Caller, wanted: UUID | None) -> UUID:
    """Whose receipts are read: the caller's tenant's, or those a cluster-wide admin or observer names (D-51)."""
    if wanted is None or wanted == caller.tenant:
        return caller.tenant
    if caller.scope == "Cluster" and caller.type in {"admin", "observer"}:
        return wanted
    raise refuse(Code.TENANT_MISMATCH, "tenant: not yours to read.")
