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

from legivellum.base.public_jwk import ALGORITHMS, UnusableJwkError, parse_public_jwk

__all__ = ["ALGORITHMS", "PublicKey", "UnusableKeyError", "public_key"]

_NUMBERS: Final = ("kty", "n", "e", "crv", "x", "y")
_TYPES: Final[Mapping[str, type[RSAKey | ECKey | OKPKey]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


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
    try:
        parsed = parse_public_jwk(jwk, ALGORITHMS if alg is None else {alg} & ALGORITHMS.keys())
        numbers: dict[str, str | list[str]] = {
            name: value for name, value in parsed.members.items() if name in _NUMBERS
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, which `parse_public_jwk` refuses
            key = _TYPES[parsed.members["kty"]].import_key(numbers)
            _ = key.public_key  # decoded when it is first asked for, so a bad key would fail at its first token
    except UnusableJwkError as error:
        raise UnusableKeyError(f"the key {error}") from error
    except (
        ValueError,
        TypeError,
        AttributeError,
        JoseError,
    ) as error:  # pragma: no cover - it was parsed
        raise UnusableKeyError("its numbers are not those of a public key") from error
    return PublicKey(key, parsed.algorithms)
