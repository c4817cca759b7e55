"""Whether a token is valid, meant for this gate, and not expired.

One function decides, `verify_token`. Its order matters: the form first, because that costs nothing; then the issuer,
because it alone says which algorithms and keys count; then a key of that issuer only; then the signature; and only of a
signed token the claims. The library computes signatures, nothing else is left to it.

`TokenVerifier` caches tokens that were valid, by digest and until they expire, because a signature costs twenty times
as much as a look-up. A cached token depends on an issuer and a key: when either is replaced or removed, the entry is no
longer used (D-45).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from legivellum.base.public_jwk import LONGEST_KID
from legivellum.identity import claims
from legivellum.identity.caller import AuthFailure, Changes, Credential, FailureReason, Pod, VerificationContext
from legivellum.identity.compact_jws import Compact, take_apart
from legivellum.identity.issuers import Issuer, IssuerRing
from legivellum.identity.public_keys import PublicKey
from legivellum.identity.shared_secret import SharedSecret

_ISSUER: Final = AuthFailure(
    FailureReason.ISSUER_UNKNOWN, "The token's issuer is not believed here: no TokenIssuer names it."
)
_ALGORITHM: Final = AuthFailure(FailureReason.ALGORITHM, "The token's algorithm is not one that its issuer may use.")
_NO_KID: Final = AuthFailure(FailureReason.TOKEN_HEADER, "The token's header names no key (kid).")
_KID: Final = AuthFailure(
    FailureReason.KEY_ID_UNKNOWN, "The token is signed with a key that its issuer has not published here."
)
_SIGNATURE: Final = AuthFailure(FailureReason.SIGNATURE, "The token's signature is wrong.")


@dataclass(frozen=True, slots=True)
class Verified:
    """A valid token. `verified_with` are the issuer and key it was verified with, as they were then; `audience` is
    None where none is asked for (D-37).
    """

    credential: Credential
    audience: str | None
    algorithm: str
    times: claims.Times
    service_account: bool
    pod: Pod | None
    verified_with: tuple[Issuer | SharedSecret, PublicKey | None]

    @property
    def issued_at(self) -> int:
        return self.times.issued_at

    @property
    def expires_at(self) -> datetime:
        return datetime.fromtimestamp(self.times.expires_at, UTC)

    @property
    def verification(self) -> VerificationContext:
        issuer = self.verified_with[0]
        secret = issuer.fingerprint if isinstance(issuer, SharedSecret) else None
        lifetime = self.times.expires_at - self.times.issued_at
        return VerificationContext(self.audience, self.algorithm, secret, lifetime)


def verify_token(
    token: bytes, *, ring: IssuerRing, audiences: Collection[str] | None, now: float, shared: SharedSecret | None = None
) -> Verified | AuthFailure:
    """Whether this token is valid for a gate that accepts `audiences`, at `now` (seconds since the epoch).

    `audiences` None: for any audience of its issuer; whoever relies on the answer must compare it (D-48).
    """
    parts = take_apart(token)
    if isinstance(parts, AuthFailure):
        return parts
    name = parts.payload.get("iss")
    if not isinstance(name, str):
        return _ISSUER
    if shared is not None and name == shared.issuer:
        return _verify_shared(parts, shared, now)
    issuer = ring.issuer(name)
    if issuer is None:
        return _ISSUER
    return _verify_signed(parts, issuer, ring, audiences, now)


def _verify_signed(
    parts: Compact, issuer: Issuer, ring: IssuerRing, audiences: Collection[str] | None, now: float
) -> Verified | AuthFailure:
    algorithm, kid = parts.header.get("alg"), parts.header.get("kid")
    # Judged by what the issuer may use and never by what the token says of itself (`alg: none`, RS256 as HS256).
    if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
        return _ALGORITHM
    if not isinstance(kid, str) or not 0 < len(kid) <= LONGEST_KID:
        return _NO_KID
    key = ring.key(issuer.issuer, kid)
    if key is None:
        return _KID
    # A published key may be meant for one algorithm only (RFC 7517, `alg`).
    if algorithm not in key.algorithms:
        return _ALGORITHM
    if not key.verifies(algorithm, parts.signed, parts.signature):
        return _SIGNATURE
    meant_for = claims.audience(parts.payload, audiences, issuer.audiences)
    if isinstance(meant_for, AuthFailure):
        return meant_for
    return _verified(parts, kid, meant_for, (issuer, key), now, service_accounts_only=issuer.cluster)


def _verify_shared(parts: Compact, shared: SharedSecret, now: float) -> Verified | AuthFailure:
    if parts.header.get("alg") != shared.algorithm:
        return _ALGORITHM
    if not shared.verifies(shared.algorithm, parts.signed, parts.signature):
        return _SIGNATURE
    meant_for = None
    if shared.audience is not None:
        sent_audience = claims.audience(parts.payload, None, (shared.audience,))
        if isinstance(sent_audience, AuthFailure):
            return sent_audience
        meant_for = sent_audience
    return _verified(parts, None, meant_for, (shared, None), now, service_accounts_only=False)


def _verified(
    parts: Compact,
    kid: str | None,
    audience: str | None,
    verified_with: tuple[Issuer | SharedSecret, PublicKey | None],
    now: float,
    *,
    service_accounts_only: bool,
) -> Verified | AuthFailure:
    issuer = verified_with[0]
    times = claims.times(parts.payload, issuer.longest_life)
    if isinstance(times, AuthFailure):
        return times
    refused = times.refuse(now)
    if refused is not None:
        return refused
    subject = claims.subject(parts.payload)
    if isinstance(subject, AuthFailure):
        return subject
    account = claims.service_account(parts.payload, subject, required=service_accounts_only)
    if isinstance(account, AuthFailure):
        return account
    return Verified(
        credential=Credential("token", issuer.issuer, subject, kid),
        audience=audience,
        algorithm=str(parts.header["alg"]),
        times=times,
        service_account=account is not None,
        pod=None if account is None else account.pod,
        verified_with=verified_with,
    )


class TokenVerifier:
    """`verify_token` with a bounded cache of valid tokens. Made for one event loop, like `Authenticator`.

    `audiences` are those this gate accepts (D-44). `limit`: how many tokens are cached, about 1 KB each; the least
    recently used go first. Only valid tokens are cached, so junk cannot evict any.
    """

    def __init__(self, *, audiences: Collection[str], shared: SharedSecret | None = None, limit: int = 16_384) -> None:
        if not audiences or not all(audiences):
            raise ValueError("the audience must not be empty: without it any service could replay a token here")
        self.ring = IssuerRing()
        self._audiences = frozenset(audiences)
        self._shared = shared
        self._limit = limit
        self._cache: dict[bytes, Verified] = {}

    def apply(self, changes: Changes) -> None:
        """Take over what was published."""
        self.ring.apply(changes)

    def verify(self, value: bytes, now: float) -> Verified | AuthFailure:
        """Whether this token is valid at `now` (seconds since the epoch)."""
        digest = hashlib.sha256(value).digest()
        cached = self._cache.pop(digest, None)
        # By identity of the objects: a key that was replaced under the same kid is another object.
        if cached is not None and self._key_unchanged(cached):
            refused = cached.times.refuse(now)
            if refused is None:
                self._cache[digest] = cached  # put back at the end: the least recently used is evicted first
            return refused or cached
        verified = verify_token(value, ring=self.ring, audiences=self._audiences, now=now, shared=self._shared)
        if isinstance(verified, Verified):
            if len(self._cache) >= self._limit:
                del self._cache[next(iter(self._cache))]
            self._cache[digest] = verified
        return verified

    def verify_any_audience(self, value: bytes, now: float) -> Verified | AuthFailure:
        """Whether this token is valid for the gate it names (D-48). Never cached: it may not be meant for this one."""
        return verify_token(value, ring=self.ring, audiences=None, now=now, shared=self._shared)

    def is_current(self, name: str, kid: str | None, verification: VerificationContext) -> bool:
        """Whether a token of this issuer and key, verified like this, would be accepted now, were it not expired."""
        shared = self._shared
        if shared is not None and name == shared.issuer:
            # A session that was opened under an earlier secret must not outlive its rotation.
            return kid is None and hmac.compare_digest(verification.secret or "", shared.fingerprint)
        issuer, key = self.ring.issuer(name), None if kid is None else self.ring.key(name, kid)
        if issuer is None or key is None or verification.secret is not None:
            return False
        if verification.lifetime > issuer.longest_life:
            return False
        accepted = verification.audience in self._audiences and verification.audience in issuer.audiences
        return accepted and verification.algorithm in issuer.algorithms and verification.algorithm in key.algorithms

    def _key_unchanged(self, cached: Verified) -> bool:
        issuer, key = cached.verified_with
        if issuer is self._shared:
            return True
        name, kid = cached.credential.issuer, cached.credential.kid
        return kid is not None and self.ring.issuer(name) is issuer and self.ring.key(name, kid) is key
