"""An optional signature over an answer: a detached JWS (RFC 7515, appendix F) with Ed25519 (EXT-09).

Over the canonical form of the JSON (RFC 8785), which the caller of this module makes: a client that has parsed the
packet can make the same bytes again. The public key stands in the discovery document; who wants the signature to prove
more than TLS does gets it on another way and pins it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_LONGEST: Final = 1024


class PacketSigner:
    """Signs with one private key, read from a Secret once."""

    def __init__(self, pem: bytes) -> None:
        """`pem`: an unencrypted PKCS#8 Ed25519 private key. Raises ValueError for anything else."""
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as error:
            raise ValueError("the signing key must be an unencrypted Ed25519 private key in PEM") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("the signing key must be an Ed25519 key: openssl genpkey -algorithm ed25519")  # noqa: TRY004
        self._key = key
        x = _encode(key.public_key().public_bytes_raw())
        thumbprint = _encode(hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode()).digest())
        self.public_jwk: dict[str, str] = {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": x,
            "kid": thumbprint,
            "alg": "EdDSA",
            "use": "sig",
        }
        header = json.dumps({"alg": "EdDSA", "kid": thumbprint}, separators=(",", ":"))
        self._header = _encode(header.encode())

    def sign(self, canonical: bytes) -> str:
        """The detached signature `<header>..<signature>` over canonical JSON."""
        signed = f"{self._header}.{_encode(canonical)}".encode()
        return f"{self._header}..{_encode(self._key.sign(signed))}"

    def sign_attached(self, payload: bytes) -> str:
        """A compact JWS (RFC 7515, 7.1) that carries its payload: a token, where the payload is claims."""
        signed = f"{self._header}.{_encode(payload)}"
        return f"{signed}.{_encode(self._key.sign(signed.encode()))}"


def verifies(detached: str, canonical: bytes, jwk: dict[str, Any]) -> bool:
    """Whether this detached signature over these bytes was made with the private half of this Ed25519 JWK."""
    parts = detached.split(".") if len(detached) <= _LONGEST else []
    if len(parts) != 3 or parts[1]:
        return False
    try:
        header = json.loads(_decode(parts[0]))
        if header != {"alg": "EdDSA", "kid": jwk.get("kid")} or jwk.get("crv") != "Ed25519":
            return False
        key = Ed25519PublicKey.from_public_bytes(_decode(str(jwk.get("x"))))
        key.verify(_decode(parts[2]), f"{parts[0]}.{_encode(canonical)}".encode())
    except (ValueError, InvalidSignature):
        return False
    return True


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")


def _decode(value: str) -> bytes:
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
