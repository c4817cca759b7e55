"""From the headers of a request to a caller, or to the reason why there is none.

One credential, in one place: the API key header (`X-API-Key`, or what the installation calls it) or
`Authorization: Bearer`. Keys and signatures are checked against what is held in memory, the subject is looked up in the
directory. Nothing is ever fetched from anywhere (INV-024).
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, Protocol

from legivellum.identity.caller import (
    AuthFailure,
    Caller,
    Changes,
    Credential,
    Directory,
    FailureReason,
    Identity,
    Pod,
    VerificationContext,
    status_of,
)

__all__ = [
    "AuthFailure",
    "Authenticator",
    "Caller",
    "Changes",
    "Credential",
    "Directory",
    "FailureReason",
    "Identity",
    "Keys",
    "Pod",
    "Tokens",
    "status_of",
]

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
# Headers that mean something else already; a credential there would be logged, cached or rewritten on its way.
_TAKEN: Final = frozenset({b"authorization", b"cookie", b"host", b"content-type", b"content-length", b"forwarded"})
_JOINED_BEARER: Final = re.compile(rb",\s*bearer\s", re.IGNORECASE)

_SEVERAL: Final = AuthFailure(
    FailureReason.MULTIPLE_CREDENTIALS,
    "Several credentials in one request: send exactly one, in exactly one header.",
)
_MISSING: Final = AuthFailure(
    FailureReason.MISSING, "No credential: send an API key in its header, or a token as Authorization: Bearer."
)
_SCHEME: Final = AuthFailure(FailureReason.SCHEME, "The Authorization header is not of the form: Bearer <token>.")
_NOBODY: Final = AuthFailure(
    FailureReason.SUBJECT_UNKNOWN, "The credential is good, but no Principal declares its subject."
)
_TOO_OLD: Final = AuthFailure(
    FailureReason.BEFORE_NAMESPACE,
    "The token was issued before its namespace was created: it belongs to another tenant.",
)


class ValidToken(Protocol):
    """A token whose signature and claims are valid, before the directory was asked whose it is (`tokens.Verified`)."""

    @property
    def credential(self) -> Credential: ...
    @property
    def audience(self) -> str | None: ...
    @property
    def verification(self) -> VerificationContext | None: ...
    @property
    def pod(self) -> Pod | None: ...
    @property
    def issued_at(self) -> int: ...
    @property
    def expires_at(self) -> datetime | None: ...
    @property
    def service_account(self) -> bool: ...


class Keys(Protocol):
    """API keys held in memory (`keyring.KeyRing`)."""

    def apply(self, changes: Changes) -> None: ...
    def verify(self, value: bytes, now: float) -> tuple[Credential, datetime | None] | AuthFailure: ...


class Tokens(Protocol):
    """Tokens verified against keys held in memory (`tokens.TokenVerifier`)."""

    def apply(self, changes: Changes) -> None: ...
    def verify(self, value: bytes, now: float) -> ValidToken | AuthFailure: ...
    def verify_any_audience(self, value: bytes, now: float) -> ValidToken | AuthFailure: ...
    def is_current(self, name: str, kid: str | None, verification: VerificationContext) -> bool: ...


class Authenticator:
    """Finds the caller of a request. One per process; not thread-safe, made for one event loop.

    `apply` takes over published keys and issuers. The directory is asked for every request: it answers from memory,
    so a cache here would only make its answers older. `throttle` is awaited before a refused credential is answered: it
    slows senders of junk, and nobody else.
    """

    def __init__(
        self,
        *,
        keys: Keys,
        tokens: Tokens,
        directory: Directory,
        api_key_header: str = "X-API-Key",
        clock: Callable[[], float] = time.time,
        throttle: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        header = api_key_header.lower().encode("ascii", "replace")
        if not _HEADER_NAME.match(api_key_header) or header in _TAKEN:
            raise ValueError(f"API_KEY_HEADER cannot be {api_key_header!r}: name a header of its own, like X-API-Key")
        self._header = header
        self._keys = keys
        self._tokens = tokens
        self._directory = directory
        self._clock = clock
        self._throttle = throttle

    async def authenticate(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller | AuthFailure:
        """The caller of a request with these raw headers (names in any case), or why there is none.

        Raises what the directory raises, and nothing else.
        """
        return await self._slow_failures(await self._authenticate(headers))

    async def introspect(self, credential: bytes) -> Caller | AuthFailure:
        """Whose credential this is that another gate received: a key, or a token for any audience of its issuer (D-48).
        The other gate must compare the caller's `audience` with its own.
        """
        now = self._clock()
        if credential.startswith(b"mgk_"):
            return await self._slow_failures(await self._by_key(credential, now))
        return await self._slow_failures(await self._by_token(self._tokens.verify_any_audience(credential, now)))

    def is_current(self, issuer: str, kid: str | None, verification: VerificationContext | None) -> bool:
        """Whether a token that was accepted once would still be accepted, were it not expired. Of an API key
        (issuer "") only the directory knows: this answers True.
        """
        if verification is None:
            return not issuer
        return self._tokens.is_current(issuer, kid, verification)

    async def _slow_failures(self, answer: Caller | AuthFailure) -> Caller | AuthFailure:
        if (
            self._throttle is not None
            and isinstance(answer, AuthFailure)
            # A probe without a credential guesses at nothing, and load balancers send many of them.
            and answer.reason is not FailureReason.MISSING
        ):
            await self._throttle()
        return answer

    def apply(self, changes: Changes) -> None:
        """Take over what was published."""
        self._keys.apply(changes)
        self._tokens.apply(changes)

    async def _authenticate(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller | AuthFailure:
        sent = self._credential(headers)
        if isinstance(sent, AuthFailure):
            return sent
        is_key, value = sent
        now = self._clock()
        if is_key:
            return await self._by_key(value, now)
        return await self._by_token(self._tokens.verify(value, now))

    def _credential(self, headers: Sequence[tuple[bytes, bytes]]) -> tuple[bool, bytes] | AuthFailure:
        key: bytes | None = None
        authorization: bytes | None = None
        for name, value in headers:
            name = name.lower()  # noqa: PLW2901 - HTTP/1.1 servers lower it already, others may not
            if name == self._header:
                if key is not None or authorization is not None:
                    return _SEVERAL
                key = value
            elif name == b"authorization":
                if key is not None or authorization is not None:
                    return _SEVERAL
                authorization = value
        if key is not None:
            # A proxy may join repeated headers with a comma.
            return _SEVERAL if key.count(b"mgk_") > 1 else (True, key)
        if authorization is None:
            return _MISSING
        if _JOINED_BEARER.search(authorization):
            return _SEVERAL
        if authorization[:7].lower() != b"bearer ":
            return _SCHEME
        return False, authorization[7:]

    async def _by_key(self, value: bytes, now: float) -> Caller | AuthFailure:
        verified = self._keys.verify(value, now)
        if isinstance(verified, AuthFailure):
            return verified
        credential, expires_at = verified
        identity = await self._directory.resolve("", credential.subject)
        if identity is None:
            return _NOBODY
        return _caller(identity, credential, expires_at, None)

    async def _by_token(self, token: ValidToken | AuthFailure) -> Caller | AuthFailure:
        if isinstance(token, AuthFailure):
            return token
        credential = token.credential
        identity = await self._directory.resolve(credential.issuer, credential.subject)
        if identity is None:
            return _NOBODY
        # D-46: a recreated namespace inherits nothing, not even from tokens of its predecessor that have not expired.
        if token.service_account:
            created = identity.namespace_created
            # Unknown counts as too old: a token must never open a tenant because its namespace was not read yet.
            if created is None or token.issued_at < int(created.timestamp()):
                return _TOO_OLD
        return _caller(identity, credential, token.expires_at, token)


def _caller(
    identity: Identity, credential: Credential, expires_at: datetime | None, token: ValidToken | None
) -> Caller:
    rights = identity.rights
    return Caller(
        tenant=identity.tenant,
        namespace=identity.namespace,
        principal_key=identity.principal_key,
        type=identity.type,
        scope=identity.scope,
        rights=rights if isinstance(rights, frozenset) else frozenset(rights),
        suspended=identity.suspended,
        credential=credential,
        pod=None if token is None else token.pod,
        expires_at=expires_at,
        audience=None if token is None else token.audience,
        verification=None if token is None else token.verification,
    )
