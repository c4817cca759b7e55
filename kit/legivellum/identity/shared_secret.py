"""HS256 as the seeds have it (D-37): one secret, known to whoever issues tokens and to the gate.

Whoever can verify can also sign, so this is for trying out and for installations that already work this way. It is off
unless `JWT_SECRET` is set.
"""

from __future__ import annotations

import hmac
import warnings
from dataclasses import dataclass, field
from typing import Any, Final

from joserfc import jwt
from joserfc.jwk import OctKey
from joserfc.jws import JWSRegistry

ALGORITHMS: Final = frozenset({"HS256", "HS384", "HS512"})


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """`audience` is checked when it is set; `longest_life` is in seconds.

    Raises ValueError for an algorithm that is not an HMAC, for an empty secret and for one that is a public key.
    """

    issuer: str
    secret: bytes = field(repr=False)
    algorithm: str = "HS256"
    audience: str | None = None
    longest_life: int = 86_400
    key: OctKey = field(init=False, repr=False, compare=False)
    fingerprint: str = field(init=False, repr=False, compare=False)
    """Another one when the secret, or what its tokens must say, is another; nothing else of the secret is told."""

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"JWT_ALGORITHM must be one of {', '.join(sorted(ALGORITHMS))}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about short ones, which the gate's settings refuse
            object.__setattr__(self, "key", OctKey.import_key(self.secret))
        identity = repr(("metagate fingerprint of JWT_SECRET", self.issuer, self.algorithm, self.audience))
        object.__setattr__(self, "fingerprint", hmac.digest(self.secret, identity.encode(), "sha256")[:12].hex())

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether this secret made the signature, with the one algorithm it is used with."""
        return algorithm == self.algorithm and JWSRegistry.algorithms[algorithm].verify(signed, signature, self.key)

    def mint(self, subject: str, *, now: float, lifetime: int = 3600) -> str:
        """A token for a subject, valid from `now` for `lifetime` seconds (`metagate token create`)."""
        if not 0 < lifetime <= self.longest_life:
            raise ValueError(f"the lifetime must be between 1 and {self.longest_life} seconds")
        claims: dict[str, Any] = {"iss": self.issuer, "sub": subject, "iat": int(now), "exp": int(now) + lifetime}
        if self.audience is not None:
            claims["aud"] = self.audience
        header = {"alg": self.algorithm, "typ": "JWT"}
        return jwt.encode(header, claims, self.key, algorithms=[self.algorithm])
