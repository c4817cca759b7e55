"""What a target is shown: a token that only says which admission this is, and verifies with the published key."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from jwt import PyJWK, decode

from interrogate.admission_token import AdmissionTokens
from legivellum.base.public_jwk import parse_public_jwk


def pem_of(key, encryption=None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def test_a_token_says_what_was_admitted_for_one_minute() -> None:
    """A second implementation verifies it with the key that the gate publishes."""
    tokens = AdmissionTokens(pem_of(Ed25519PrivateKey.generate()), issuer="https://ig.example", clock=lambda: 1000.7)
    token = tokens.token(namespace="team-a", audience="worker", admission="01J", task="t-1", payload_sha256="ab" * 32)
    claims = decode(
        token,
        PyJWK(tokens.public_jwk),
        ["EdDSA"],
        audience="worker",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims == {
        "iss": "https://ig.example",
        "sub": "interrogate:team-a",
        "aud": "worker",
        "iat": 1000,
        "nbf": 1000,
        "exp": 1060,
        "admission": "01J",
        "task": "t-1",
        "payload_sha256": "ab" * 32,
    }
    assert parse_public_jwk(tokens.public_jwk).kid == tokens.public_jwk["kid"]
    assert "d" not in tokens.public_jwk


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"no key",
        pem_of(generate_private_key(SECP256R1())),
        pem_of(Ed25519PrivateKey.generate(), BestAvailableEncryption(b"word")),
    ],
    ids=["empty", "text", "another curve", "encrypted"],
)
def test_another_key_is_refused_at_start(pem: bytes) -> None:
    with pytest.raises(ValueError, match="Ed25519"):
        AdmissionTokens(pem, issuer="https://ig.example")


def test_no_file_no_tokens() -> None:
    assert AdmissionTokens.from_file(None, issuer="https://ig.example") is None
