"""Is this token what it says, for us, and now?

One function decides, `verify`. Its order matters: the form first, because that costs nothing; then the issuer, because
it alone says which algorithms and keys count; then a key of that issuer only; then the signature; and only of a signed
token the claims. The library computes signatures, nothing else is left to it.

`TokenVerifier` remembers what it has verified, by digest and until it expires, because a signature costs twenty times
as much as looking it up. What it remembers rests on an issuer and a key: when either is replaced or gone, so is the
memory (D-45).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from legivellum.identity import claims
from legivellum.identity.caller import AuthFailure, Changes, Credential, FailureReason, Pod, VerificationContext
from legivellum.identity.compact_jws import Compact, take_apart
from legivellum.identity.issuers import Issuer, IssuerRing
from legivellum.identity.public_keys import PublicKey
from legivellum.identity.shared_secret import SharedSecret

_LONGEST_KID: Final = 256

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
    """A token that holds. `rests_on` are the issuer and key it was verified with, as they were then; `audience` is
    None where none is asked for (D-37).
    """

    credential: Credential
    audience: str | None
    algorithm: str
    times: claims.Times
    service_account: bool
    pod: Pod | None
    rests_on: tuple[Issuer | SharedSecret, PublicKey | None]

    @property
    def issued_at(self) -> int:
        return self.times.issued_at

    @property
    def expires_at(self) -> datetime:
        return datetime.fromtimestamp(self.times.expires_at, UTC)

    @property
    def ground(self) -> VerificationContext:
        issuer = self.rests_on[0]
        secret = issuer.fingerprint if isinstance(issuer, SharedSecret) else None
        return VerificationContext(self.audience, self.algorithm, secret)


def verify(
    token: bytes, *, ring: IssuerRing, audience: str | None, now: float, shared: SharedSecret | None = None
) -> Verified | AuthFailure:
    """Whether this token holds for a gate that answers to `audience`, at `now` (seconds since the epoch).

    `audience` None: for any gate that its issuer is believed for; whoever is told so must look which (D-48).
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
    return _verify_signed(parts, issuer, ring, audience, now)


def _verify_signed(
    parts: Compact, issuer: Issuer, ring: IssuerRing, audience: str | None, now: float
) -> Verified | AuthFailure:
    algorithm, kid = parts.header.get("alg"), parts.header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
        return _ALGORITHM
    if not isinstance(kid, str) or not 0 < len(kid) <= _LONGEST_KID:
        return _NO_KID
    key = ring.key(issuer.issuer, kid)
    if key is None:
        return _KID
    if algorithm not in key.algorithms:
        return _ALGORITHM
    if not key.verifies(algorithm, parts.signed, parts.signature):
        return _SIGNATURE
    meant_for = claims.audience(parts.payload, audience, issuer.audiences)
    if isinstance(meant_for, AuthFailure):
        return meant_for
    return _believed(parts, kid, meant_for, (issuer, key), now, service_accounts_only=issuer.cluster)


def _verify_shared(parts: Compact, shared: SharedSecret, now: float) -> Verified | AuthFailure:
    if parts.header.get("alg") != shared.algorithm:
        return _ALGORITHM
    if not shared.verifies(shared.algorithm, parts.signed, parts.signature):
        return _SIGNATURE
    meant_for = None
    if shared.audience is not None:
        found = claims.audience(parts.payload, shared.audience, (shared.audience,))
        if isinstance(found, AuthFailure):
            return found
        meant_for = found
    return _believed(parts, None, meant_for, (shared, None), now, service_accounts_only=False)


def _believed(
    parts: Compact,
    kid: str | None,
    audience: str | None,
    rests_on: tuple[Issuer | SharedSecret, PublicKey | None],
    now: float,
    *,
    service_accounts_only: bool,
) -> Verified | AuthFailure:
    issuer = rests_on[0]
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
        rests_on=rests_on,
    )


class TokenVerifier:
    """`verify`, with a bounded memory of tokens that held. Made for one event loop, like `Authenticator`.

    `audience` is this gate's own (D-44). `limit`: how many tokens are remembered, about 1 KB each; the least recently
    used go first. Only verified tokens are remembered, so junk can push nothing out.
    """

    def __init__(self, *, audience: str, shared: SharedSecret | None = None, limit: int = 16_384) -> None:
        if not audience:
            raise ValueError("METAGATE_AUDIENCE must not be empty: without it any service could replay a token here")
        self.ring = IssuerRing()
        self._audience = audience
        self._shared = shared
        self._limit = limit
        self._verified: dict[bytes, Verified] = {}

    def apply(self, changes: Changes) -> None:
        """Take over what was published."""
        self.ring.apply(changes)

    def recognise(self, value: bytes, now: float) -> Verified | AuthFailure:
        """Whether this token holds at `now` (seconds since the epoch)."""
        digest = hashlib.sha256(value).digest()
        known = self._verified.pop(digest, None)
        if known is not None and self._stands(known):
            refused = known.times.refuse(now)
            if refused is None:
                self._verified[digest] = known
            return refused or known
        found = verify(value, ring=self.ring, audience=self._audience, now=now, shared=self._shared)
        if isinstance(found, Verified):
            if len(self._verified) >= self._limit:
                del self._verified[next(iter(self._verified))]
            self._verified[digest] = found
        return found

    def examine(self, value: bytes, now: float) -> Verified | AuthFailure:
        """Whether this token holds for whichever gate it names (D-48). Never remembered: it may not be meant for us."""
        return verify(value, ring=self.ring, audience=None, now=now, shared=self._shared)

    def stands(self, name: str, kid: str | None, ground: VerificationContext) -> bool:
        """Whether a token of this issuer, key and ground would be believed now, were it not expired."""
        shared = self._shared
        if shared is not None and name == shared.issuer:
            return kid is None and hmac.compare_digest(ground.secret or "", shared.fingerprint)
        issuer, key = self.ring.issuer(name), None if kid is None else self.ring.key(name, kid)
        if issuer is None or key is None or ground.secret is not None:
            return False
        believed = ground.audience == self._audience and ground.audience in issuer.audiences
        return believed and ground.algorithm in issuer.algorithms and ground.algorithm in key.algorithms

    def _stands(self, known: Verified) -> bool:
        issuer, key = known.rests_on
        if issuer is self._shared:
            return True
        name, kid = known.credential.issuer, known.credential.kid
        return kid is not None and self.ring.issuer(name) is issuer and self.ring.key(name, kid) is key
