"""Public keys of issuers: what a key must be before a signature is checked with it.

Keys are imported one by one, so that one bad key never takes a good one with it. What a key may be used for is decided
by the key (its type, curve and declared `alg`), and again by the issuer's list; never by the token.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

ALGORITHMS: Final[Mapping[str, str]] = {
    "RS256": "RSA",
    "RS384": "RSA",
    "RS512": "RSA",
    "PS256": "RSA",
    "PS384": "RSA",
    "PS512": "RSA",
    "ES256": "EC",
    "ES384": "EC",
    "ES512": "EC",
    "EdDSA": "OKP",
    "Ed25519": "OKP",
}
"""The algorithms there are for issuers' keys, each with the type of key it needs. All asymmetric (D-14)."""

_CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
_TYPES: Final[Mapping[str, type[RSAKey | ECKey | OKPKey]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_SMALLEST_RSA: Final = 2048
_LARGEST_RSA: Final = 8192


class UnusableKeyError(ValueError):
    """The JWK cannot be trusted to verify anything. The text says why and holds nothing of the key."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key of an issuer and the algorithms it is good for."""

    key: RSAKey | ECKey | OKPKey
    algorithms: frozenset[str]

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether this key made the signature, with an algorithm this key is good for."""
        if algorithm not in self.algorithms:
            return False
        try:
            return JWSRegistry.algorithms[algorithm].verify(signed, signature, self.key)
        except (ValueError, JoseError):  # complaints about numbers that no signature has
            return False


def public_key(jwk: Mapping[str, Any], alg: str | None = None) -> PublicKey:
    """Import one JWK. `alg` narrows what it may be used for, like the JWK's own. Raises `UnusableKeyError`."""
    kind = jwk.get("kty")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise UnusableKeyError("kty must be RSA, EC or OKP: an issuer's key is a public one")
    if _PRIVATE & jwk.keys():
        raise UnusableKeyError(
            "this is a private key; publish only its public half, and replace it: it is not secret now"
        )
    if jwk.get("use", "sig") != "sig":
        raise UnusableKeyError("use must be sig")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise UnusableKeyError("key_ops must contain verify")
    key = _imported(_TYPES[kind], jwk)
    narrowed = [name for name in (alg, jwk.get("alg")) if name is not None]
    algorithms = frozenset(
        name
        for name, needs in ALGORITHMS.items()
        if needs == kind and _fits(name, key) and all(only == name for only in narrowed)
    )
    if not algorithms:
        raise UnusableKeyError("its type, curve and alg leave no algorithm that it could be used with")
    return PublicKey(key, algorithms)


def _imported(kind: type[RSAKey | ECKey | OKPKey], jwk: Mapping[str, Any]) -> RSAKey | ECKey | OKPKey:
    members = {name: jwk[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in jwk}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, which are refused below
            key = kind.import_key(members)
            native = key.public_key
    except (ValueError, TypeError, AttributeError, JoseError) as error:
        raise UnusableKeyError("its numbers are not those of a public key") from error
    if isinstance(key, RSAKey):
        bits, exponent = key.public_key.key_size, key.public_key.public_numbers().e
        if not _SMALLEST_RSA <= bits <= _LARGEST_RSA:
            raise UnusableKeyError(f"an RSA key must have {_SMALLEST_RSA} to {_LARGEST_RSA} bits")
        if exponent not in range(3, 2**33, 2):
            raise UnusableKeyError("the exponent of an RSA key must be odd, at least 3 and at most 33 bits long")
    del native
    return key


def _fits(algorithm: str, key: RSAKey | ECKey | OKPKey) -> bool:
    return isinstance(key, RSAKey) or _CURVES.get(algorithm) == key.curve_name
