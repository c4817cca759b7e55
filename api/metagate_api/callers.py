"""Who is speaking: the identity package's answer in this gate's words (codes, rows)."""

import asyncio
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from legivellum.base.token_bucket import TokenBuckets
from legivellum.http.batching import Batcher
from legivellum.identity import request_authenticator
from legivellum.identity.caller import AuthFailure, Caller, VerificationContext
from legivellum.identity.request_authenticator import principal_suspended, require_caller
from metagate_api import metrics
from metagate_store.rows import CredentialRow, IdentityRow, PodRow

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


class ResolvedIdentity:
    """An Identity as the identity package wants it. `namespace_created` None: nobody knows, so no service account
    can show that its token is not its predecessor's (D-46).
    """

    __slots__ = ("namespace", "namespace_created", "principal_key", "rights", "scope", "suspended", "tenant", "type")

    def __init__(self, row: IdentityRow) -> None:
        self.tenant: UUID = row.tenant
        self.namespace = row.namespace
        self.namespace_created = row.namespace_created
        self.principal_key = row.principal_key
        self.type = row.type
        self.scope = row.scope
        self.rights = row.rights
        self.suspended = row.suspended


class SubjectDirectory:
    """Where the authenticator asks whose a subject is: many questions, one statement, remembered until told otherwise.

    What is remembered was true when `forget` was last called, which the follower does whenever anything is published
    and whenever it cannot know; every statement checks suspension and credential again in any case (D-45).
    """

    def __init__(
        self, batcher: Batcher[CredentialRow, IdentityRow | None], *, seconds: float, limit: int = 65_536
    ) -> None:
        self._batcher = batcher
        self._seconds = seconds
        self._limit = limit
        self._known: dict[tuple[str, str], ResolvedIdentity] = {}

    async def resolve(self, issuer: str, subject: str) -> ResolvedIdentity | None:
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
        # An answer that was asked for before a `forget` may be older than it: it goes where nobody looks any more.
        identity = asked_of[issuer, subject] = ResolvedIdentity(row)
        return identity

    def forget(self) -> None:
        self._known = {}
