"""From the headers of a request to a caller, or to the reason why there is none.

One credential, in one place: the API key header (`X-API-Key`, or what the installation calls it) or
`Authorization: Bearer`. Keys and signatures are checked against what is held in memory; only a subject that was not
seen since the last publication asks the directory. Nothing is ever fetched from anywhere (INV-024).
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


class Recognised(Protocol):
    """A credential that holds, before anybody asked whose it is."""

    @property
    def credential(self) -> Credential: ...
    @property
    def audience(self) -> str | None: ...
    @property
    def ground(self) -> VerificationContext | None: ...
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
    def recognise(self, value: bytes, now: float) -> tuple[Credential, datetime | None] | AuthFailure: ...


class Tokens(Protocol):
    """Tokens verified against keys held in memory (`tokens.TokenVerifier`)."""

    def apply(self, changes: Changes) -> None: ...
    def recognise(self, value: bytes, now: float) -> Recognised | AuthFailure: ...
    def examine(self, value: bytes, now: float) -> Recognised | AuthFailure: ...
    def stands(self, name: str, kid: str | None, ground: VerificationContext) -> bool: ...


class Authenticator:
    """Answers who is speaking. One per process; not thread-safe, made for one event loop.

    `apply` takes what the store says has changed. An answer of the directory serves other requests for `identity_ttl`
    seconds at most, which bounds how long a changed `type`, `scope` or `rights`, or a subject that moved to another
    principal, can go unnoticed; whether the credential still stands is checked again in the statement of every request
    (D-45). `penance` is awaited before a refused credential is answered: it slows whoever sends junk, and nobody else.
    """

    def __init__(
        self,
        *,
        keys: Keys,
        tokens: Tokens,
        directory: Directory,
        api_key_header: str = "X-API-Key",
        identity_ttl: float = 0.25,
        identity_limit: int = 65_536,
        clock: Callable[[], float] = time.time,
        penance: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        header = api_key_header.lower().encode("ascii", "replace")
        if not _HEADER_NAME.match(api_key_header) or header in _TAKEN:
            raise ValueError(f"API_KEY_HEADER cannot be {api_key_header!r}: name a header of its own, like X-API-Key")
        self._header = header
        self._keys = keys
        self._tokens = tokens
        self._directory = directory
        self._ttl = identity_ttl
        self._limit = identity_limit
        self._clock = clock
        self._penance = penance
        self._mark = -1
        self._seen: dict[tuple[str, str], tuple[float, Identity]] = {}

    async def authenticate(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller | AuthFailure:
        """The caller of a request with these raw headers (names in any case), or why there is none.

        Raises what the directory raises, and nothing else.
        """
        return await self._answered(await self._authenticate(headers))

    async def examine(self, shown: bytes) -> Caller | AuthFailure:
        """Whose credential this is that another gate was shown: a key, or a token for any audience that its issuer is
        believed for (D-48). Whoever is told so must compare the `audience` with its own.
        """
        now = self._clock()
        if shown.startswith(b"mgk_"):
            return await self._answered(await self._by_key(shown, now))
        return await self._answered(await self._by_token(self._tokens.examine(shown, now), now))

    def stands(self, issuer: str, kid: str | None, ground: VerificationContext | None) -> bool:
        """Whether what a caller showed once would still be believed here; whose it is, the directory knows. Of a key
        (issuer "") that is the directory's to say alone.
        """
        if ground is None:
            return not issuer
        return self._tokens.stands(issuer, kid, ground)

    async def _answered(self, answer: Caller | AuthFailure) -> Caller | AuthFailure:
        if self._penance is not None and isinstance(answer, AuthFailure) and answer.reason is not FailureReason.MISSING:
            await self._penance()
        return answer

    def apply(self, changes: Changes) -> None:
        """Take over what was published. Forgets who was who whenever a credential changed since."""
        self._keys.apply(changes)
        self._tokens.apply(changes)
        if changes.full or changes.mark != self._mark:
            self._mark = changes.mark
            self._seen.clear()

    async def _authenticate(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller | AuthFailure:
        found = self._credential(headers)
        if isinstance(found, AuthFailure):
            return found
        is_key, value = found
        now = self._clock()
        if is_key:
            return await self._by_key(value, now)
        return await self._by_token(self._tokens.recognise(value, now), now)

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
        found = self._keys.recognise(value, now)
        if isinstance(found, AuthFailure):
            return found
        credential, expires_at = found
        identity = await self._identity("", credential.subject, now)
        if identity is None:
            return _NOBODY
        return _caller(identity, credential, expires_at, None)

    async def _by_token(self, found: Recognised | AuthFailure, now: float) -> Caller | AuthFailure:
        if isinstance(found, AuthFailure):
            return found
        credential = found.credential
        identity = await self._identity(credential.issuer, credential.subject, now)
        if identity is None:
            return _NOBODY
        # D-46: a recreated namespace inherits nothing, not even from tokens of its predecessor that have not expired.
        if found.service_account:
            created = identity.namespace_created
            if created is None or found.issued_at < int(created.timestamp()):
                return _TOO_OLD
        return _caller(identity, credential, found.expires_at, found)

    async def _identity(self, issuer: str, subject: str, now: float) -> Identity | None:
        key = (issuer, subject)
        seen = self._seen.get(key)
        if seen is not None and 0 <= now - seen[0] < self._ttl:
            return seen[1]
        identity = await self._directory.resolve(issuer, subject)
        if identity is None:
            self._seen.pop(key, None)
            return None
        if len(self._seen) >= self._limit:
            self._seen.clear()
        self._seen[key] = (now, identity)
        return identity


def _caller(
    identity: Identity, credential: Credential, expires_at: datetime | None, token: Recognised | None
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
        ground=None if token is None else token.ground,
    )
