"""Who is speaking: the identity package's answer in this gate's words (codes, rows)."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from legivellum.base.token_bucket import TokenBuckets
from legivellum.http.batching import Batcher
from legivellum.identity import request_authenticator
from legivellum.identity.caller import AuthFailure, Caller, VerificationContext
from legivellum.identity.request_authenticator import principal_suspended, require_caller
from legivellum.postgres.published_identity import KnownPrincipal
from metagate_api import metrics
from metagate_store.rows import CredentialRow, PodRow

__all__ = [
    "ApiAuthenticator",
    "Caller",
    "CallerAuthenticator",
    "SubjectDirectory",
    "credential_row",
    "pod_row",
    "principal_suspended",
    "require_caller",
]


class ApiAuthenticator(request_authenticator.Authenticate, Protocol):
    """`legivellum.identity.authenticator.Authenticator`, or a double of it."""

    async def introspect(self, credential: bytes) -> Caller | AuthFailure: ...
    def is_current(self, issuer: str, kid: str | None, verification: VerificationContext | None) -> bool: ...


class CallerAuthenticator(request_authenticator.RequestAuthenticator):
    """Lets requests in, and counts by reason what it refuses.

    `informed` says whether the published keys and issuers were ever loaded.
    """

    def __init__(self, authenticator: ApiAuthenticator, buckets: TokenBuckets, *, informed: Callable[[], bool]) -> None:
        super().__init__(
            authenticator,
            buckets,
            refused=lambda reason: metrics.AUTH_FAILURES.labels(reason.value).inc(),
            limited=metrics.RATE_LIMITED.inc,
            informed=informed,
        )


def credential_row(caller: Caller) -> CredentialRow:
    shown = caller.credential
    return CredentialRow(shown.kind, shown.issuer, shown.subject, shown.kid)


def pod_row(caller: Caller) -> PodRow | None:
    pod = caller.pod
    return None if pod is None else PodRow(pod.uid, pod.name, pod.node)


class SubjectDirectory:
    """Where the authenticator asks whose a subject is: many questions, one statement, remembered until told otherwise.

    What is remembered was true when `forget` was last called, which the follower does whenever anything is published
    and whenever it cannot know; every statement checks suspension and credential again in any case (D-45).
    """

    def __init__(
        self, batcher: Batcher[CredentialRow, KnownPrincipal | None], *, seconds: float, limit: int = 65_536
    ) -> None:
        self._batcher = batcher
        self._seconds = seconds
        self._limit = limit
        self._known: dict[tuple[str, str], KnownPrincipal] = {}

    async def resolve(self, issuer: str, subject: str) -> KnownPrincipal | None:
        known = self._known.get((issuer, subject))
        if known is not None:
            return known
        asked_of = self._known
        credential = CredentialRow("token" if issuer else "key", issuer, subject)
        row = await self._batcher.submit(credential, asyncio.get_running_loop().time() + self._seconds)
        if row is None:
            return None
        if len(self._known) >= self._limit:
            self._known = {}
        # An answer that was asked for before a `forget` may be older than it: it goes to the mapping that was replaced.
        asked_of[issuer, subject] = row
        return row

    def forget(self) -> None:
        self._known = {}
