"""Authenticates requests and limits their rate, with the problem codes of the wire (D-32, D-42)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from legivellum.base.token_bucket import TokenBuckets
from legivellum.http.exchange import Exchange
from legivellum.http.problem_codes import Code
from legivellum.http.problems import RequestRefused, refuse
from legivellum.identity.caller import AuthFailure, Caller, FailureReason
from legivellum.postgres.errors import DatabaseError

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
    """`refused` and `limited` count refusals. `informed`: whether the published keys and issuers were ever loaded."""

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
                # Before the published keys were read, a good credential cannot be told from a bad one.
                raise refuse(Code.UNAVAILABLE, "The database was not reached yet.")
            self._refused(caller.reason)
            exchange.reason = caller.reason.value
            refused = refuse(_CODES.get(caller.reason, Code.CREDENTIAL_INVALID), caller.detail)
            if caller.status == 403:
                return refused
            raise refused
        exchange.principal = (str(caller.tenant), caller.principal_key)
        exchange.caller_type = caller.role
        self._charge(caller, 1)
        if exchange.callers is not None and caller.role not in exchange.callers and not caller.suspended:
            # Returned and not raised, as above: what a type may not do is no reason to read its body less strictly.
            return refuse(Code.ROLE_REQUIRED, f"Principals of type {caller.role} do not call this endpoint.")
        return caller

    async def caller(self, exchange: Exchange) -> Caller:
        """The caller of a request without a body. Raises every refusal of its credential at once."""
        return require_caller(await self.authenticate(exchange))

    def charge_batch(self, caller: Caller, items: int) -> None:
        """A batch costs one token per item (D-68); the request itself was the first. Raises RATE_LIMITED."""
        if items > 1:
            self._charge(caller, items - 1, taken=1)

    def _charge(self, caller: Caller, tokens: int, *, taken: int = 0) -> None:
        wait = self._buckets.take((caller.tenant, caller.principal_key), tokens, taken=taken)
        if wait:
            self._limited()
            raise refuse(Code.RATE_LIMITED, f"This principal asks too often; wait {wait} s.")

    async def current(self, exchange: Exchange, caller: Caller) -> Caller | None:
        """The caller as a new request with the same credential would find it now; None when that would be refused, or
        when the credential belongs to somebody else since. For answers that last (D-67): nothing is counted or charged.
        """
        try:
            now = await self._authenticator.authenticate(exchange.headers)
        except DatabaseError:
            return None  # what is known of principals is too old: fail closed, as for a request
        if isinstance(now, AuthFailure) or now.suspended:
            return None
        return now if (now.tenant, now.principal_key) == (caller.tenant, caller.principal_key) else None


def require_caller(speaker: Caller | RequestRefused) -> Caller:
    """Whoever may be answered. Raises the 403 that was kept, and that of a suspended principal."""
    if isinstance(speaker, RequestRefused):
        raise speaker
    if speaker.suspended:
        raise principal_suspended()
    return speaker


def principal_suspended() -> RequestRefused:
    return refuse(Code.PRINCIPAL_SUSPENDED, "This principal is suspended.")
