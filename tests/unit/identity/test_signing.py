"""The optional signature over a packet."""

import base64
import json

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from joserfc import jws
from joserfc.jwk import OKPKey

from legivellum.identity.packet_signing import PacketSigner, verifies

PRIVATE = ed25519.Ed25519PrivateKey.generate()
PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PACKET = b'{"capabilities":{},"packet_id":"0190"}'


@pytest.fixture
def signer() -> PacketSigner:
    return PacketSigner(PEM)


@pytest.mark.invariant("EXT-09")
def test_a_signature_verifies_with_the_public_key_alone(signer: PacketSigner) -> None:
    """What was signed verifies with the published JWK, which is public."""
    signature = signer.sign(PACKET)
    assert verifies(signature, PACKET, signer.public_jwk)
    assert "d" not in signer.public_jwk
    assert signer.sign(PACKET) == signature


@pytest.mark.invariant("EXT-09")
def test_anything_changed_does_not_verify(signer: PacketSigner) -> None:
    """Another packet, another key, another header, another spelling: none verifies."""
    signature = signer.sign(PACKET)
    stranger = PacketSigner(
        ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).rstrip(b"=").decode()
    assert not verifies(signature, PACKET + b" ", signer.public_jwk)
    assert not verifies(signature, PACKET, stranger.public_jwk)
    assert not verifies(stranger.sign(PACKET), PACKET, {**stranger.public_jwk, "x": signer.public_jwk["x"]})
    for broken in (
        "",
        "..",
        signature[:-2],
        signature.replace("..", ".e30."),
        f"{none}..",
        f"{none}.." + signature.rsplit(".", 1)[1],
        "x" * 5000,
        signature + ".x",
        "é..é",
    ):
        assert not verifies(broken, PACKET, signer.public_jwk), broken


def test_other_libraries_verify_it_too(signer: PacketSigner) -> None:
    """joserfc and PyJWT accept the signature with the packet put back between the dots."""
    header, _, signature = signer.sign(PACKET).split(".")
    body = base64.urlsafe_b64encode(PACKET).rstrip(b"=").decode()
    whole = f"{header}.{body}.{signature}"
    registry = jws.JWSRegistry(algorithms=["EdDSA"])
    with pytest.warns(UserWarning, match="EdDSA"):
        assert (
            jws.deserialize_compact(whole, OKPKey.import_key(dict(signer.public_jwk)), registry=registry).payload
            == PACKET
        )
    assert pyjwt.PyJWS().decode(whole, pyjwt.PyJWK(signer.public_jwk), algorithms=["EdDSA"]) == PACKET


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"junk",
        ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass")),
    ],
    ids=["empty", "junk", "EC", "encrypted"],
)
def test_a_key_of_another_kind_is_refused(pem: bytes) -> None:
    """Only an unencrypted Ed25519 key in PEM can sign; the message says so and shows nothing of the key."""
    with pytest.raises(ValueError, match="Ed25519"):
        PacketSigner(pem)
