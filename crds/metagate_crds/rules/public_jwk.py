"""Public keys as they may be declared inline: asymmetric, strong enough, and nothing private about them."""

import base64
import binascii
from typing import Any, Final

ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_CURVES: Final = {"EC": {"P-256": 32, "P-384": 48, "P-521": 66}, "OKP": {"Ed25519": 32}}
_LEAST_RSA_BITS: Final = 2048
_MOST_RSA_BITS: Final = 8192


def jwk_problem(jwk: Any) -> str | None:
    """Why this JWK cannot be used to verify tokens, None when it can. The answer holds nothing of the key."""
    if not isinstance(jwk, dict):
        return "is not a key"
    if not all(isinstance(jwk.get(name, ""), str) for name in ("kty", "crv", "alg", "use")):
        return "must have kty, crv, alg and use as text"
    if not _PRIVATE.isdisjoint(jwk):
        return "holds private or symmetric key material"
    kid = jwk.get("kid")
    if not isinstance(kid, str) or not 1 <= len(kid) <= 256:
        return "must have a kid"
    if jwk.get("use", "sig") != "sig":
        return "is not a key for signatures"
    if "alg" in jwk and jwk["alg"] not in ALGORITHMS:
        return "must have an asymmetric signature alg, or none"
    if jwk.get("kty") == "RSA":
        return _rsa_problem(jwk)
    if jwk.get("kty") in _CURVES:
        return _curve_problem(jwk)
    return "must be of type RSA, EC or OKP"


def verification_members(jwk: dict[str, Any]) -> dict[str, Any]:
    """The members of a usable JWK that verifying needs."""
    return {name: jwk[name] for name in ("kty", "kid", "use", "alg", "crv", "n", "e", "x", "y") if name in jwk}


def _rsa_problem(jwk: dict[str, Any]) -> str | None:
    modulus, exponent = _number(jwk.get("n")), _number(jwk.get("e"))
    if modulus is None or exponent is None:
        return "must have n and e as base64url"
    if not _LEAST_RSA_BITS <= modulus.bit_length() <= _MOST_RSA_BITS:
        return f"must have between {_LEAST_RSA_BITS} and {_MOST_RSA_BITS} bits"
    if modulus % 2 == 0 or exponent % 2 == 0 or not 3 <= exponent < 2**32:
        return "is not an RSA key"
    return None


def _curve_problem(jwk: dict[str, Any]) -> str | None:
    size = _CURVES[jwk["kty"]].get(jwk.get("crv", ""))
    if size is None:
        return "must be on the curve P-256, P-384, P-521 or Ed25519"
    for name in ("x", "y") if jwk["kty"] == "EC" else ("x",):
        raw = _decoded(jwk.get(name))
        if raw is None or len(raw) != size:
            return f"must have {name} of {size} bytes as base64url"
    return None


def _number(text: Any) -> int | None:
    raw = _decoded(text)
    return int.from_bytes(raw) if raw else None


def _decoded(text: Any) -> bytes | None:
    if not isinstance(text, str) or len(text) > 4096:
        return None
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
