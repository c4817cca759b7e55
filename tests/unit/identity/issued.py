"""A little world of issuers: keys, published rows, and tokens signed by hand, without the library under test."""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

NOW = int(time.time())
CLUSTER = "https://kubernetes.default.svc.cluster.local"
OUTSIDE = "https://idp.example.com"
OTHER = "https://other.example.com"
SHARED = "metagate"
SECRET = b"a-secret-of-thirty-two-bytes-for-tests"
AUDIENCE = "metagate"


@dataclass(frozen=True)
class KeyRow:
    sha256: str
    key_id: str
    expires_at: Any = None


@dataclass(frozen=True)
class IssuerRowStub:
    issuer: str
    audiences: tuple[str, ...] = (AUDIENCE,)
    algorithms: tuple[str, ...] = ("RS256", "ES256", "PS256", "EdDSA")
    max_token_lifetime_seconds: int = 3600
    source: str = "Inline"


@dataclass(frozen=True)
class IssuerKeyRowStub:
    issuer: str
    kid: str
    jwk: dict[str, Any]
    alg: str | None = None


@dataclass(frozen=True)
class Changed:
    mark: int = 1
    full: bool = False
    api_keys: tuple[KeyRow, ...] = ()
    issuers: tuple[IssuerRowStub, ...] = ()
    issuer_keys: tuple[IssuerKeyRowStub, ...] = ()
    gone_api_keys: tuple[str, ...] = ()
    gone_issuers: tuple[str, ...] = ()
    gone_issuer_keys: tuple[tuple[str, str], ...] = ()


def b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def number(value: int, length: int | None = None) -> str:
    return b64(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


@dataclass(frozen=True)
class TokenSigner:
    """A private key with a name and the algorithm it signs with."""

    alg: str
    kid: str
    private: Any = field(repr=False)

    def sign(self, signed: bytes) -> bytes:
        if self.alg == "RS256":
            return self.private.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        if self.alg == "PS256":
            pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
            return self.private.sign(signed, pss, hashes.SHA256())
        if self.alg == "ES256":
            r, s = decode_dss_signature(self.private.sign(signed, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        if self.alg == "EdDSA":
            return self.private.sign(signed)
        return hmac.new(self.private, signed, hashlib.sha256).digest()

    def jwk(self) -> dict[str, Any]:
        public = self.private.public_key()
        named = {"kid": self.kid, "use": "sig"}
        if isinstance(public, rsa.RSAPublicKey):
            numbers = public.public_numbers()
            return {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e), **named}
        if isinstance(public, ec.EllipticCurvePublicKey):
            point = public.public_numbers()
            return {"kty": "EC", "crv": "P-256", "x": number(point.x, 32), "y": number(point.y, 32), **named}
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw()), **named}


@cache
def rsa_key(bits: int = 2048, which: int = 0) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def signers() -> dict[str, TokenSigner]:
    return {
        "rs": TokenSigner("RS256", "rs-1", rsa_key()),
        "ps": TokenSigner("PS256", "ps-1", rsa_key(which=1)),
        "es": TokenSigner("ES256", "es-1", ec.generate_private_key(ec.SECP256R1())),
        "ed": TokenSigner("EdDSA", "ed-1", ed25519.Ed25519PrivateKey.generate()),
        "other": TokenSigner("RS256", "other-1", rsa_key(which=2)),
        "stranger": TokenSigner("RS256", "rs-1", rsa_key(which=3)),
        "shared": TokenSigner("HS256", "", SECRET),
    }


def published(mark: int = 1) -> Changed:
    keys = signers()
    own = [keys["rs"], keys["ps"], keys["es"], keys["ed"]]
    return Changed(
        mark=mark,
        full=True,
        issuers=(
            IssuerRowStub(CLUSTER, algorithms=("RS256", "ES256"), source="Cluster"),
            IssuerRowStub(OUTSIDE, audiences=(AUDIENCE, "memorygate")),
            IssuerRowStub(OTHER, audiences=("something-else",)),
        ),
        issuer_keys=(
            *(IssuerKeyRowStub(CLUSTER, key.kid, key.jwk()) for key in (keys["rs"], keys["es"])),
            *(IssuerKeyRowStub(OUTSIDE, key.kid, key.jwk()) for key in own),
            IssuerKeyRowStub(OTHER, "other-1", keys["other"].jwk()),
        ),
    )


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims of the outside issuer; a change to None removes the claim."""
    good = {"iss": OUTSIDE, "sub": "indexer@example.com", "aud": AUDIENCE, "iat": NOW - 10, "exp": NOW + 590}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def account(**changes: Any) -> dict[str, Any]:
    """Good claims of a projected service-account token, as kube-apiserver writes them."""
    good = {
        "iss": CLUSTER,
        "sub": "system:serviceaccount:team-a:indexer",
        "aud": [AUDIENCE],
        "iat": NOW - 10,
        "nbf": NOW - 10,
        "exp": NOW + 3590,
        "jti": "1c0ba6ef-4f5a-4d8c-ae54-37f0b9a7f6b0",
        "kubernetes.io": {
            "namespace": "team-a",
            "node": {"name": "node-1", "uid": "aaaa"},
            "pod": {"name": "indexer-7c9", "uid": "5f0c0b6e-1f57-4a4b-9f0f-3b1e6a0b5d11"},
            "serviceaccount": {"name": "indexer", "uid": "bbbb"},
        },
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def token(payload: Any, signer: TokenSigner | str = "rs", header: Any = None, **members: Any) -> bytes:
    """Sign anything at all: `payload` and `header` may be objects or raw bytes; `members` change the header."""
    key = signers()[signer] if isinstance(signer, str) else signer
    if header is None:
        good = {"alg": key.alg, "kid": key.kid or None, "typ": "JWT"}
        header = {name: value for name, value in {**good, **members}.items() if value is not None}
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signed = f"{b64(head)}.{b64(body)}".encode()
    return signed + b"." + b64(key.sign(signed)).encode()
