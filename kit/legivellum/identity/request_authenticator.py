"""Where requests are let in: authentication, then the principal's rate, in the words of the wire (D-32, D-42)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from legivellum.base.token_bucket import TokenBuckets
from legivellum.http.exchange import Exchange
from legivellum.http.problem_codes import Code
from legivellum.http.problems import RequestRefused, refuse
from legivellum.identity.caller import AuthFailure, Caller, FailureReason

_CODES: Final = {
    FailureReason.MULTIPLE_CREDENTIALS: Code.SEVERAL_CREDENTIALS,
    FailureReason.MISSING: Code.CREDENTIAL_MISSING,
    FailureReason.KEY_EXPIRED: Code.CREDENTIAL_EXPIRED,
    FailureReason.EXPIRED: Code.CREDENTIAL_EXPIRED,
    FailureReason.SUBJECT_UNKNOWN: Code.PRINCIPAL_UNKNOWN,
}


class Authenticate(Protocol):
    """`legivellum.identity.authenticator.Authenticator`, or a double of it."""

    async def authenticate(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller | AuthFailure: ...


class RequestAuthenticator:
    """`refused` and `limited` count what is not let in. `informed`: whether the published keys and issuers were ever
    loaded.
    """

    def __init__(
        self,
        authenticator: Authenticate,
        buckets: TokenBuckets,
        *,
        refused: Callable[[FailureReason], None],
        limited: Callable[[], None],
        informed: Callable[[], bool] = lambda: True,
    ) -> None:
        self._authenticator = authenticator
        self._buckets = buckets
        self._refused = refused
        self._limited = limited
        self._informed = informed

    async def authenticate(self, exchange: Exchange) -> Caller | RequestRefused:
        """The caller. Raises 400, 401 and 429; a genuine credential of nobody is returned as the 403 that it is,
        because the body is judged before permission (D-42).
        """
        caller = await self._authenticator.authenticate(exchange.headers)
        if isinstance(caller, AuthFailure):
            if caller.reason is not FailureReason.MISSING and not self._informed():
                # Who has not seen the published keys yet must not call a good one bad.
                raise refuse(Code.UNAVAILABLE, "The database was not reached yet.")
            self._refused(caller.reason)
            exchange.reason = caller.reason.value
            refused = refuse(_CODES.get(caller.reason, Code.CREDENTIAL_INVALID), caller.detail)
            if caller.status == 403:
                return refused
            raise refused
        exchange.who = (str(caller.tenant), caller.principal_key)
        wait = self._buckets.take((caller.tenant, caller.principal_key))
        if wait:
            self._limited()
            raise refuse(Code.RATE_LIMITED, f"This principal asks too often; wait {wait} s.")
        return caller


def require_caller(speaker: Caller | RequestRefused) -> Caller:
    """Whoever may be answered. Raises the 403 that was kept, and that of a suspended principal."""
    if isinstance(speaker, RequestRefused):
        raise speaker
    if speaker.suspended:
        raise principal_suspended()
    return speaker


def principal_suspended() -> RequestRefused:
    return refuse(Code.PRINCIPAL_SUSPENDED, "This principal is suspended.")
