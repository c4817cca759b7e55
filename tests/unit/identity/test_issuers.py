"""Which public keys are believed, and the ring that holds them."""

import copy
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1
from tests.unit.identity.issued import (
    CLUSTER,
    OTHER,
    OUTSIDE,
    Changed,
    IssuerKeyRowStub,
    IssuerRowStub,
    b64,
    number,
    published,
    rsa_key,
    signers,
)

from legivellum.identity.issuers import IssuerRing
from legivellum.identity.public_keys import ALGORITHMS, UnusableKeyError, public_key


def without(jwk: dict[str, Any], *names: str, **changes: Any) -> dict[str, Any]:
    return {**{k: v for k, v in jwk.items() if k not in names}, **changes}


RSA, EC, OKP = (signers()[name].jwk() for name in ("rs", "es", "ed"))
SMALL = rsa_key(1024).public_key().public_numbers()


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "oct", "k": b64(b"x" * 32)},
        {"kty": "oct", "k": b64(b"x" * 32), "n": RSA["n"], "e": RSA["e"]},
        without(RSA, d="AQAB"),
        without(RSA, p="AQAB", q="AQAB"),
        without(EC, d=b64(b"\x01" * 32)),
        without(OKP, d=b64(b"\x01" * 32)),
        without(RSA, k="AAAA"),
        {"kty": "RSA", "n": number(SMALL.n), "e": number(SMALL.e)},
        without(RSA, n=number((1 << 9000) + 1)),
        without(RSA, e=number(1)),
        without(RSA, e=number(65536)),
        without(RSA, e=number((1 << 40) + 1)),
        without(RSA, "n"),
        without(RSA, n=""),
        without(RSA, n=7),
        without(RSA, n="!!!"),
        without(EC, "y"),
        without(EC, x=b64(b"\x01" * 32)),
        without(EC, crv="P-521"),
        without(EC, crv="secp256k1"),
        without(OKP, crv="X25519"),
        without(OKP, x=b64(b"\x01" * 31)),
        {"kty": "OKP", "crv": "Ed448", "x": b64(ed448.Ed448PrivateKey.generate().public_key().public_bytes_raw())},
        without(RSA, use="enc"),
        without(RSA, key_ops=["encrypt"]),
        without(RSA, key_ops="verify"),
        without(RSA, alg="HS256"),
        without(RSA, alg="ES256"),
        without(RSA, alg="none"),
        without(RSA, alg=["RS256"]),
        without(RSA, "kty"),
        without(RSA, kty=["RSA"]),
        without(RSA, kty="AKP"),
        {},
    ],
    ids=str,
)
def test_keys_that_prove_nothing_are_refused(jwk: dict[str, Any]) -> None:
    """Symmetric, private, small, monstrous, malformed and wrongly dedicated keys are refused, without saying their value."""
    with pytest.raises(UnusableKeyError) as refused:
        public_key(jwk)
    assert not any(isinstance(value, str) and len(value) > 12 and value in str(refused.value) for value in jwk.values())


def test_a_curve_that_is_not_for_signing_tokens_is_refused() -> None:
    """secp256k1 belongs to ES256K, which nobody here speaks."""
    point = ec.generate_private_key(SECP256K1()).public_key().public_numbers()
    with pytest.raises(UnusableKeyError):
        public_key({"kty": "EC", "crv": "secp256k1", "x": number(point.x, 32), "y": number(point.y, 32)})


@pytest.mark.parametrize(
    ("jwk", "alg", "algorithms"),
    [
        (RSA, None, {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        (RSA, "RS256", {"RS256"}),
        (without(RSA, alg="PS256"), None, {"PS256"}),
        (without(RSA, "use", key_ops=["verify"]), "RS512", {"RS512"}),
        (EC, None, {"ES256"}),
        (OKP, None, {"EdDSA", "Ed25519"}),
        (without(RSA, x5c=["MII"], x5t="a", nonsense=1), "RS256", {"RS256"}),
    ],
    ids=str,
)
def test_a_key_says_what_it_is_good_for(jwk: dict[str, Any], alg: str | None, algorithms: set[str]) -> None:
    """Type, curve, the JWK's own alg and the row's narrow what a key may be used for."""
    assert public_key(jwk, alg).algorithms == algorithms


def test_two_algs_that_contradict_leave_nothing() -> None:
    """A row and a JWK that name different algorithms make a key that is good for none."""
    with pytest.raises(UnusableKeyError):
        public_key(without(RSA, alg="RS256"), "PS256")


def test_only_asymmetric_algorithms_exist() -> None:
    """No HMAC and no `none` can get into an issuer's list, whatever is published."""
    ring = IssuerRing()
    ring.apply(Changed(issuers=(IssuerRowStub(OUTSIDE, algorithms=("HS256", "none", "RS256", "ES256K")),)))
    issuer = ring.issuer(OUTSIDE)
    assert issuer is not None
    assert issuer.algorithms == {"RS256"}
    assert not any(name.startswith("HS") or name == "none" for name in ALGORITHMS)


def test_one_bad_key_leaves_the_others() -> None:
    """Keys are imported one by one; what was not imported is told with its reason."""
    ring = IssuerRing()
    ring.apply(published())
    bad = (IssuerKeyRowStub(OUTSIDE, "secret", {"kty": "oct", "k": "AAAA"}), IssuerKeyRowStub(OUTSIDE, "new", EC))
    ring.apply(Changed(issuer_keys=bad))
    assert ring.key(OUTSIDE, "secret") is None
    assert ring.key(OUTSIDE, "new") is not None
    assert ring.key(OUTSIDE, "rs-1") is not None
    assert set(ring.unusable) == {(OUTSIDE, "secret")}
    ring.apply(Changed(gone_issuer_keys=((OUTSIDE, "secret"),)))
    assert ring.unusable == {}


def test_a_key_belongs_to_one_issuer() -> None:
    """The same key id of another issuer is another key, and an issuer that has gone takes its keys with it."""
    ring = IssuerRing()
    ring.apply(published())
    assert ring.key(OTHER, "rs-1") is None
    assert ring.key(CLUSTER, "ps-1") is None
    ring.apply(Changed(gone_issuers=(OUTSIDE,)))
    assert ring.issuer(OUTSIDE) is None
    assert ring.key(OUTSIDE, "rs-1") is None
    assert ring.key(CLUSTER, "rs-1") is not None
    assert ring.issuers == (CLUSTER, OTHER)


def test_importing_does_not_change_what_was_published() -> None:
    """The published JWK is read, never written to."""
    jwk = copy.deepcopy(RSA)
    public_key(jwk)
    assert jwk == RSA


def test_a_key_that_is_seen_again_stays_the_same() -> None:
    """A refresh that finds the same key replaces nothing, so what was verified with it stays verified."""
    ring = IssuerRing()
    ring.apply(published())
    before = ring.key(OUTSIDE, "rs-1")
    ring.apply(Changed(issuer_keys=(IssuerKeyRowStub(OUTSIDE, "rs-1", dict(RSA)),)))
    assert ring.key(OUTSIDE, "rs-1") is before
    ring.apply(Changed(issuer_keys=(IssuerKeyRowStub(OUTSIDE, "rs-1", dict(RSA), "RS256"),)))
    assert ring.key(OUTSIDE, "rs-1") is not before
