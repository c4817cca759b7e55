"""Which public keys signatures can be verified with: the one check of a JWK (RFC 7517, RFC 7518, RFC 8037).

Status, the writer that stores keys and the verifier all decide by `parse_public_jwk`, so that a key that is reported
as good is one that tokens verify with. It needs nothing but the standard library; a key that passes it is one that the
cryptography library imports.

Numbers are normalized on the way: publishers pad base64url with `=`, write the alphabet of plain base64, or begin a
modulus with zero octets. All of these name the same number, but decoders disagree about them, and one that drops what
it does not know reads another key.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

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
"""The algorithms there are for issuers' keys, each with the type of key it needs. All asymmetric."""

SMALLEST_RSA_BITS: Final = 2048
LARGEST_RSA_BITS: Final = 8192
_LARGEST_EXPONENT: Final = 2**33
_CURVE_OF: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_BASE64: Final = re.compile(r"[A-Za-z0-9_\-+/]+={0,2}")
_LONGEST_NUMBER: Final = 4096
_SHOWN: Final = 5
LONGEST_KID: Final = 256
_PRESENTABLE_KID: Final = re.compile(r"[A-Za-z0-9._:+/=-]{1,64}")


class _Curve(NamedTuple):
    """A prime curve y² = x³ - 3x + b (SEC 2, FIPS 186-5)."""

    octets: int
    prime: int
    b: int


_CURVES: Final = {
    "P-256": _Curve(
        32,
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    ),
    "P-384": _Curve(
        48,
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
    ),
    "P-521": _Curve(
        66,
        2**521 - 1,
        0x0051953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E156193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00,
    ),
}
_ED25519_PRIME: Final = 2**255 - 19
_ED25519_D: Final = -121665 * pow(121666, -1, _ED25519_PRIME) % _ED25519_PRIME


class UnusableJwkError(ValueError):
    """The JWK cannot be used to verify tokens. The text completes "the key …" and holds nothing of the key."""


class PrivateJwkError(UnusableJwkError):
    """The JWK holds private or symmetric key material: whoever sees it can sign."""


@dataclass(frozen=True, slots=True)
class PublicJwk:
    """A usable key: the members that verifying needs, normalized, and the algorithms it is good for."""

    kid: str | None
    members: Mapping[str, str]
    algorithms: frozenset[str]


@dataclass(frozen=True, slots=True)
class SkippedJwk:
    """A key of a set that is not used. `kid` is None where it has none that can be shown."""

    index: int
    kid: str | None
    problem: str
    private: bool

    def __str__(self) -> str:
        return f"key {self.index}{f' ({self.kid})' if self.kid else ''} {self.problem}"


@dataclass(frozen=True, slots=True)
class JwkSet:
    """The usable keys of a set, each kid once, and the others."""

    keys: tuple[PublicJwk, ...]
    skipped: tuple[SkippedJwk, ...]

    @property
    def skipped_text(self) -> str:
        """The skipped keys in words, the first few of them; empty without any."""
        shown = "; ".join(map(str, self.skipped[:_SHOWN]))
        more = len(self.skipped) - _SHOWN
        return f"{shown}; and {more} more" if more > 0 else shown


def parse_jwk_set(keys: Sequence[Any], algorithms: Collection[str] = ALGORITHMS) -> JwkSet:
    """The usable keys of a set, taken one by one, so that a bad one never takes a good one with it.

    `algorithms` are those that the issuer may sign with: a key that fits none of them verifies nothing.
    """
    usable: dict[str, PublicJwk] = {}
    skipped = []
    for index, jwk in enumerate(keys):
        try:
            key = parse_public_jwk(jwk, algorithms)
            usable[_free_kid(key, usable)] = key
        except UnusableJwkError as error:
            private = isinstance(error, PrivateJwkError)
            skipped.append(SkippedJwk(index, _presentable_kid(jwk), str(error), private))
    return JwkSet(tuple(usable.values()), tuple(skipped))


def _free_kid(key: PublicJwk, usable: Collection[str]) -> str:
    if key.kid is None:
        raise UnusableJwkError("must have a kid")
    if key.kid in usable:
        raise UnusableJwkError("has the kid of an earlier key")
    return key.kid


def parse_public_jwk(jwk: Any, algorithms: Collection[str] = ALGORITHMS) -> PublicJwk:
    """One key, normalized. A kid is checked where there is one.

    Raises:
        PrivateJwkError: it holds private or symmetric key material.
        UnusableJwkError: anything else for which it verifies nothing.

    """
    if not isinstance(jwk, Mapping):
        raise UnusableJwkError("is not a key")
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise PrivateJwkError("holds private or symmetric key material: it can sign, and must be replaced")
    members = normalize_members(jwk)
    if not all(isinstance(value, str) for value in members.values()):
        raise UnusableJwkError("must have text in kty, kid, use, alg and crv, and its numbers as base64url")
    kid = members.get("kid")
    # A kid is stored and looked up as text: PostgreSQL takes no NUL, and no encoder a lone surrogate.
    if kid is not None and not (1 <= len(kid) <= LONGEST_KID and kid.isprintable()):
        raise UnusableJwkError(f"must have a kid of 1 to {LONGEST_KID} printable characters")
    if members.get("use", "sig") != "sig":
        raise UnusableJwkError("is not a key for signatures (use)")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise UnusableJwkError("is not a key for verifying signatures (key_ops)")
    _check_numbers(members)
    return PublicJwk(kid, members, _fitting_algorithms(members, algorithms))


def normalize_members(jwk: Mapping[str, Any]) -> dict[str, Any]:
    """The members that verifying needs; those that are base64 in its normal form, anything else as it is."""
    members = {name: jwk[name] for name in ("kty", "kid", "use", "alg", "crv", "n", "e", "x", "y") if name in jwk}
    for name in ("n", "e", "x", "y"):
        octets = _decode(members.get(name))
        if octets is not None:
            # Numbers have as few octets as possible (RFC 7518, 2), coordinates as many as the curve has.
            members[name] = _encode(octets.lstrip(b"\0") if name in {"n", "e"} else octets)
    return members


def _fitting_algorithms(members: Mapping[str, str], allowed: Collection[str]) -> frozenset[str]:
    fitting = {
        name
        for name, kty in ALGORITHMS.items()
        if kty == members["kty"]
        and _CURVE_OF.get(name, members.get("crv")) == members.get("crv")
        and members.get("alg", name) == name
    }
    if not fitting:
        raise UnusableJwkError("has an alg that its type and curve are not for")
    if fitting.isdisjoint(allowed):
        raise UnusableJwkError("is for none of the algorithms that the issuer may sign with")
    return frozenset(fitting.intersection(allowed))


def _check_numbers(members: Mapping[str, str]) -> None:
    kty, curve = members.get("kty"), members.get("crv")
    if kty == "RSA":
        _check_rsa(members)
    elif kty == "EC" and curve in _CURVES:
        _check_point(_CURVES[curve], members)
    elif kty == "OKP" and curve == "Ed25519":
        _check_ed25519(members)
    elif kty in {"EC", "OKP"}:
        raise UnusableJwkError("must be on the curve P-256, P-384, P-521 or Ed25519")
    else:
        raise UnusableJwkError("must be of type RSA, EC or OKP")


def _check_rsa(members: Mapping[str, str]) -> None:
    modulus, exponent = (int.from_bytes(_octets(members, name)) for name in ("n", "e"))
    if not SMALLEST_RSA_BITS <= modulus.bit_length() <= LARGEST_RSA_BITS:
        raise UnusableJwkError(f"must have {SMALLEST_RSA_BITS} to {LARGEST_RSA_BITS} bits")
    if modulus % 2 == 0:
        raise UnusableJwkError("is not an RSA key: its modulus is even")
    if exponent % 2 == 0 or not 3 <= exponent < _LARGEST_EXPONENT:
        raise UnusableJwkError("is not an RSA key: its exponent must be odd, at least 3 and at most 33 bits long")


def _check_point(curve: _Curve, members: Mapping[str, str]) -> None:
    x, y = (int.from_bytes(_octets(members, name, curve.octets)) for name in ("x", "y"))
    on_curve = (y * y - (x * x * x - 3 * x + curve.b)) % curve.prime == 0
    if x >= curve.prime or y >= curve.prime or not on_curve:
        raise UnusableJwkError("is not a point of its curve")


def _check_ed25519(members: Mapping[str, str]) -> None:
    """Whether x decodes to a point (RFC 8032, 5.1.3): (y² - 1) / (d·y² + 1) is a square, and y below the prime."""
    encoded = int.from_bytes(_octets(members, "x", 32), "little")
    y, sign = encoded & (2**255 - 1), encoded >> 255
    square = (y * y - 1) * pow(_ED25519_D * y * y + 1, -1, _ED25519_PRIME) % _ED25519_PRIME
    is_square = pow(square, (_ED25519_PRIME - 1) // 2, _ED25519_PRIME) in {0, 1}
    if y >= _ED25519_PRIME or not is_square or (square == 0 and sign):
        raise UnusableJwkError("is not a point of its curve")


def _octets(members: Mapping[str, str], name: str, length: int | None = None) -> bytes:
    octets = _decode(members.get(name))
    if octets is None:
        raise UnusableJwkError(f"must have {name} as base64url")
    if length is not None and len(octets) != length:
        raise UnusableJwkError(f"must have {name} of {length} bytes as base64url")
    return octets


def _decode(text: Any) -> bytes | None:
    if not isinstance(text, str) or len(text) > _LONGEST_NUMBER or not _BASE64.fullmatch(text):
        return None
    digits = text.rstrip("=").replace("+", "-").replace("/", "_")
    if len(digits) % 4 == 1:
        return None  # six bits are no octet
    return base64.urlsafe_b64decode(digits + "=" * (-len(digits) % 4))


def _encode(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _presentable_kid(jwk: Any) -> str | None:
    """Status and logs show a kid that looks like one, and no other text of a key."""
    kid = jwk.get("kid") if isinstance(jwk, Mapping) else None
    return kid if isinstance(kid, str) and _PRESENTABLE_KID.fullmatch(kid) else None
