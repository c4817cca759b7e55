"""Who is speaking: the identity package's answer in this gate's words (codes, rows)."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol
from uuid import UUID

from legivellum_http.batching import Batcher
from legivellum_http.codes import Code
from legivellum_http.exchange import Exchange
from legivellum_http.problems import Refused, refuse
from legivellum_http.rate_limit import TokenBuckets
from legivellum_identity.caller import Caller, Reason, Refusal
from metagate_api import metrics
from metagate_store.rows import Credential, Identity, Pod

__all__ = ["Authenticate", "Caller", "Directory", "Door", "credential_row", "pod_row"]

_CODES: Final = {
    Reason.MULTIPLE_CREDENTIALS: Code.SEVERAL_CREDENTIALS,
    Reason.MISSING: Code.CREDENTIAL_MISSING,
    Reason.KEY_EXPIRED: Code.CREDENTIAL_EXPIRED,
    Reason.EXPIRED: Code.CREDENTIAL_EXPIRED,
    Reason.SUBJECT_UNKNOWN: Code.PRINCIPAL_UNKNOWN,
}

CLUSTER: Final = "Cluster"


class Authenticate(Protocol):
    """`legivellum_identity.authenticator.Authenticator`, or a double of it."""

    async def authenticate(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller | Refusal: ...
    async def examine(self, shown: bytes) -> Caller | Refusal: ...


class Door:
    """Lets requests in: authentication, then the principal's rate. What it refuses is counted by reason.

    `informed` says whether the published keys and issuers were ever loaded.
    """

    def __init__(self, authenticator: Authenticate, buckets: TokenBuckets, *, informed: Callable[[], bool]) -> None:
        self._authenticator = authenticator
        self._buckets = buckets
        self._informed = informed

    async def admit(self, exchange: Exchange) -> Caller | Refused:
        """The caller. Raises 400, 401 and 429; a genuine credential of nobody is returned as the 403 that it is,
        because the body is judged before permission (D-42).
        """
        caller = await self._authenticator.authenticate(exchange.headers)
        if isinstance(caller, Refusal):
            if caller.reason is not Reason.MISSING and not self._informed():
                # Who has not seen the published keys yet must not call a good one bad.
                raise refuse(Code.UNAVAILABLE, "The database was not reached yet.")
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


def suspended() -> Refused:
    return refuse(Code.PRINCIPAL_SUSPENDED, "This principal is suspended.")


def credential_row(caller: Caller) -> Credential:
    shown = caller.credential
    return Credential(shown.kind, shown.issuer, shown.subject, shown.kid)


def pod_row(caller: Caller) -> Pod | None:
    pod = caller.pod
    return None if pod is None else Pod(pod.uid, pod.name, pod.node)


class KnownIdentity:
    """An Identity as the identity package wants it. `namespace_created` None: nobody knows, so no service account
    can show that its token is not its predecessor's (D-46).
    """

    __slots__ = ("namespace", "namespace_created", "principal_key", "rights", "scope", "suspended", "tenant", "type")

    def __init__(self, row: Identity) -> None:
        self.tenant: UUID = row.tenant
        self.namespace = row.namespace
        self.namespace_created = row.namespace_created
        self.principal_key = row.principal_key
        self.type = row.type
        self.scope = row.scope
        self.rights = row.rights
        self.suspended = row.suspended


class Directory:
    """Where the authenticator asks whose a subject is: many questions, one statement, remembered until told otherwise.

    What is remembered was true when `forget` was last called, which the follower does whenever anything is published
    and whenever it cannot know; every statement checks suspension and credential again in any case (D-45).
    """

    def __init__(self, batcher: Batcher[Credential, Identity | None], *, seconds: float, limit: int = 65_536) -> None:
        self._batcher = batcher
        self._seconds = seconds
        self._limit = limit
        self._known: dict[tuple[str, str], KnownIdentity] = {}

    async def resolve(self, issuer: str, subject: str) -> KnownIdentity | None:
        known = self._known.get((issuer, subject))
        if known is not None:
            return known
        asked_of = self._known
        credential = Credential("token" if issuer else "key", issuer, subject)
        row = await self._batcher.ask(credential, asyncio.get_running_loop().time() + self._seconds)
        if row is None:
            return None
        if len(self._known) >= self._limit:
            self._known = {}
        # An answer that was asked for before a `forget` may be older than it: it goes where nobody looks any more.
        found = asked_of[issuer, subject] = KnownIdentity(row)
        return found

    def forget(self) -> None:
        self._known = {}
