"""Who is speaking: the identity package's answer in the ledger's words."""

from legivellum.base.token_bucket import TokenBuckets
from legivellum.http.exchange import Exchange
from legivellum.identity import request_authenticator
from legivellum.identity.caller import Caller
from legivellum.identity.request_authenticator import Authenticate, require_caller
from memorygate import metrics

__all__ = ["Authenticate", "Caller", "Door", "require_caller"]


class Door(request_authenticator.RequestAuthenticator):
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
        return require_caller(await self.authenticate(exchange))
