"""One function decides which keys are good: what status calls good, the verifier verifies with (D-73)."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.crds.worlds import compiled, declared, rows, verdict_of
from tests.unit.identity.issued import (
    NOW,
    OUTSIDE,
    Changed,
    IssuerKeyRowStub,
    IssuerRowStub,
    b64,
    claims,
    number,
    signers,
    token,
)

from legivellum.base.public_jwk import ALGORITHMS, PrivateJwkError, UnusableJwkError, parse_jwk_set, parse_public_jwk
from legivellum.identity.caller import AuthFailure
from legivellum.identity.public_keys import UnusableKeyError, public_key
from legivellum.identity.tokens import TokenVerifier
from metagate_crds import reasons
from metagate_crds.validation import validate
from metagate_operator.issuers.jwks import InvalidKeySet, parse_key_set

ALL = ["RS256", "PS256", "ES256", "EdDSA"]
RSA, EC, OKP = (signers()[name].jwk() for name in ("rs", "es", "ed"))


def plain(text: str) -> str:
    """The same number in the alphabet of plain base64."""
    return text.replace("-", "+").replace("_", "/")


def padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)


def zeros(text: str, count: int = 1) -> str:
    """The same number with zero octets in front."""
    return b64(b"\0" * count + base64.urlsafe_b64decode(padded(text)))


SPELLINGS = {
    "as RFC 7518 writes it": lambda jwk: jwk,
    "two = behind n": lambda jwk: {**jwk, "n": jwk["n"] + "=="},
    "padded": lambda jwk: {**jwk, "n": padded(jwk["n"]), "e": padded(jwk["e"])},
    "alphabet of plain base64": lambda jwk: {**jwk, "n": plain(jwk["n"])},
    "plain base64": lambda jwk: {**jwk, "n": padded(plain(jwk["n"]))},
    "a zero octet before n": lambda jwk: {**jwk, "n": zeros(jwk["n"])},
    "zero octets before e": lambda jwk: {**jwk, "e": zeros(jwk["e"], 5)},
    "certificates beside it": lambda jwk: {**jwk, "x5c": ["MII"], "x5t": "a", "nbf": 1},
    "key_ops": lambda jwk: {**jwk, "key_ops": ["sign", "verify"]},
    "a space in n": lambda jwk: {**jwk, "n": jwk["n"][:8] + " " + jwk["n"][8:]},
    "a line break in n": lambda jwk: {**jwk, "n": jwk["n"] + "\n"},
    "a character of no alphabet": lambda jwk: {**jwk, "n": jwk["n"][:-1] + "!"},
    "three =": lambda jwk: {**jwk, "n": jwk["n"] + "==="},
    "= within": lambda jwk: {**jwk, "n": jwk["n"][:8] + "=" + jwk["n"][8:]},
    "six bits too many": lambda jwk: {**jwk, "n": jwk["n"][:-1]},
    "an even modulus": lambda jwk: {**jwk, "n": number(int.from_bytes(base64.urlsafe_b64decode(padded(jwk["n"]))) - 1)},
    "a short modulus": lambda jwk: {**jwk, "n": jwk["n"][:300]},
    "an even exponent": lambda jwk: {**jwk, "e": number(65536)},
    "exponent one": lambda jwk: {**jwk, "e": number(1)},
    "no exponent": lambda jwk: {name: value for name, value in jwk.items() if name != "e"},
    "a number for n": lambda jwk: {**jwk, "n": 7},
    "use enc": lambda jwk: {**jwk, "use": "enc"},
    "key_ops of another use": lambda jwk: {**jwk, "key_ops": ["encrypt"]},
    "alg of encryption": lambda jwk: {**jwk, "alg": "RSA-OAEP"},
    "alg of another type": lambda jwk: {**jwk, "alg": "ES256"},
    "alg that the issuer does not sign with": lambda jwk: {**jwk, "alg": "RS384"},
    "unknown kty": lambda jwk: {**jwk, "kty": "AKP"},
    "kty in lower case": lambda jwk: {**jwk, "kty": "rsa"},
    "no kid": lambda jwk: {name: value for name, value in jwk.items() if name != "kid"},
    "empty kid": lambda jwk: {**jwk, "kid": ""},
    "NUL in kid": lambda jwk: {**jwk, "kid": "a\0b"},
    "lone surrogate in kid": lambda jwk: {**jwk, "kid": "\ud800"},
    "long kid": lambda jwk: {**jwk, "kid": "k" * 257},
    "not a key": lambda _jwk: {},
}
GOOD = set(list(SPELLINGS)[:9])
NO_TEXT = {"NUL in kid", "lone surrogate in kid"}


def issuer(*keys: Any, algorithms: list[str] = ALL) -> dict[str, Any]:
    jwks = {"source": "Inline", "inline": {"keys": list(keys)}}
    return {"issuer": OUTSIDE, "audiences": ["metagate"], "algorithms": algorithms, "jwks": jwks}


def verified(spec: dict[str, Any], signer: str) -> bool:
    """Whether a token of this signer is good by what compiling the TokenIssuer publishes."""
    result = compiled(declared("TokenIssuer", "idp", spec))
    issuers = [
        IssuerRowStub(row["issuer"], tuple(row["audiences"]), tuple(row["algorithms"]))
        for row in rows(result, "issuer")
    ]
    keys = [
        IssuerKeyRowStub(row["issuer"], row["kid"], json.loads(json.dumps(row["jwk"])), row["alg"])
        for row in rows(result, "issuer_key")
    ]
    verifier = TokenVerifier(audiences=("metagate",))
    verifier.apply(Changed(full=True, issuers=tuple(issuers), issuer_keys=tuple(keys)))
    assert not verifier.ring.unusable
    return not isinstance(verifier.verify(token(claims(), signer), NOW), AuthFailure)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_ready_verifies_and_what_is_not_says_so(spelling: str) -> None:
    """F9 and its kind: an inline set with one key is Ready and its tokens are good, or it is refused. Nothing between."""
    spec = issuer(SPELLINGS[spelling](RSA))
    verdict = verdict_of(compiled(declared("TokenIssuer", "idp", spec)), "TokenIssuer", "idp")
    assert verdict.ready == (spelling in GOOD)
    assert verified(spec, "rs") == verdict.ready


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_source_decides_alike(spelling: str) -> None:
    """The set of a URL or of the cluster is judged by the same function as an inline one."""
    jwk = SPELLINGS[spelling](RSA)
    document = json.dumps({"keys": [jwk]}).encode()
    if spelling in GOOD:
        (key,) = parse_key_set(document, ALL).keys
        assert public_key(key.jwk, key.alg).algorithms
        assert not validate("TokenIssuer", issuer(jwk))
    else:
        with pytest.raises(InvalidKeySet):
            parse_key_set(document, ALL)
        assert validate("TokenIssuer", issuer(jwk))


@pytest.mark.parametrize("useless", [name for name in SPELLINGS if name not in GOOD])
def test_a_key_of_no_use_takes_nothing_with_it(useless: str) -> None:
    """A rotation that adds one loses nothing: the good key goes on, and status names the other."""
    extra = {"kid": "extra", **SPELLINGS[useless]({**signers()["other"].jwk(), "kid": "extra"})}
    if useless == "no kid":
        del extra["kid"]
    fetched = parse_key_set(json.dumps({"keys": [RSA, extra]}).encode(), ALL)
    assert [key.kid for key in fetched.keys] == ["rs-1"]
    if useless in NO_TEXT:
        return  # no spec may hold it anywhere
    spec = issuer(RSA, extra)
    verdict = verdict_of(compiled(declared("TokenIssuer", "idp", spec)), "TokenIssuer", "idp")
    fresh = verdict.condition("KeysFresh")
    assert verdict.ready
    assert verified(spec, "rs")
    assert fresh is not None
    assert "not used: key 1" in fresh.message
    assert fetched.skipped in fresh.message


def test_a_kid_twice_is_the_first_of_them() -> None:
    """The second is named; whose token the first did not sign is refused."""
    twin = {**signers()["other"].jwk(), "kid": "rs-1"}
    assert verified(issuer(RSA, twin), "rs")
    assert not verified(issuer(twin, RSA), "rs")
    assert [str(skipped) for skipped in parse_jwk_set([RSA, twin]).skipped] == [
        "key 1 (rs-1) has the kid of an earlier key"
    ]


@pytest.mark.parametrize("private", [{"d": "AQAB"}, {"k": "AAAA"}, {"p": "AQAB", "q": "AQAB"}])
def test_a_private_key_is_refused_where_it_is_declared(private: dict[str, str]) -> None:
    """Skipping it would leave a key that can sign in a declaration; a fetched set is not ours to refuse."""
    findings = validate("TokenIssuer", issuer(RSA, {**EC, **private}))
    assert [finding.reason for finding in findings] == [reasons.INVALID_JWK]
    assert "key 1 holds private or symmetric key material" in findings[0].message
    assert [key.kid for key in parse_key_set(json.dumps({"keys": [RSA, {**EC, **private}]}).encode(), ALL).keys] == [
        "rs-1"
    ]
    with pytest.raises(PrivateJwkError):
        parse_public_jwk({**EC, **private})


def test_an_issuer_needs_a_key_for_one_of_its_algorithms() -> None:
    """An EC key of an issuer that signs with RS256 verifies nothing, so it is not called good."""
    (finding,) = validate("TokenIssuer", issuer(EC, algorithms=["RS256"]))
    assert (finding.reason, "none of the algorithms" in finding.message) == (reasons.INVALID_JWK, True)
    assert verified(issuer(EC, RSA, algorithms=["RS256"]), "rs")


@pytest.mark.parametrize(
    ("curve", "name"), [(ec.SECP256R1(), "P-256"), (ec.SECP384R1(), "P-384"), (ec.SECP521R1(), "P-521")]
)
def test_points_of_each_curve_and_no_others(curve: ec.EllipticCurve, name: str) -> None:
    """A point beside the curve, of another curve, too short or beyond the prime is no key."""
    point = ec.generate_private_key(curve).public_key().public_numbers()
    size = (curve.key_size + 7) // 8
    jwk = {"kty": "EC", "kid": "k", "crv": name, "x": number(point.x, size), "y": number(point.y, size)}
    assert public_key(jwk).algorithms
    for wrong in (
        {"y": number(point.y ^ 1, size)},
        {"x": number(point.x, size + 1)},
        {"x": b64(b"\xff" * size)},
        {"x": b64(b"\0" * size), "y": b64(b"\0" * size)},
        {"crv": "P-256" if name != "P-256" else "P-384"},
        {"crv": "secp256k1"},
    ):
        with pytest.raises(UnusableJwkError):
            parse_public_jwk({**jwk, **wrong})


def test_what_is_no_point_of_ed25519_is_no_key() -> None:
    """Half of all texts of 32 bytes are not; the library would import them and verify nothing."""
    point = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    assert parse_public_jwk({**OKP, "x": b64(point)}).algorithms == {"EdDSA", "Ed25519"}
    refused = 0
    for number_ in range(64):
        try:
            parse_public_jwk({**OKP, "x": b64(bytes([number_]) + point[1:])})
        except UnusableJwkError:
            refused += 1
    assert 10 < refused < 54
    for wrong in (b64(b"\xff" * 32), b64(point[:31]), b64(point + b"\0")):
        with pytest.raises(UnusableJwkError):
            parse_public_jwk({**OKP, "x": wrong})


MEMBERS = ("kty", "kid", "use", "alg", "crv", "n", "e", "x", "y", "key_ops", "d", "k")
VALUES = st.one_of(
    st.sampled_from(["RSA", "EC", "OKP", "oct", "sig", "enc", "P-256", "P-384", "Ed25519", "AQAB", "AQAB==", "", *ALL]),
    st.text(alphabet="ABab01-_+/= \n", max_size=60),
    st.none() | st.integers() | st.lists(st.just("verify"), max_size=1),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([RSA, EC, OKP]), st.dictionaries(st.sampled_from(MEMBERS), VALUES, max_size=3))
def test_the_check_and_the_library_agree(jwk: dict[str, Any], changes: dict[str, Any]) -> None:
    """Whatever is written into a good key: a key that passes is imported, and the answer holds none of its text."""
    changed = {**jwk, **changes}
    try:
        parsed = parse_public_jwk(changed)
    except UnusableJwkError:
        with pytest.raises(UnusableKeyError) as refused:
            public_key(changed)
        assert not any(
            isinstance(text, str) and len(text) > 16 and text in str(refused.value) for text in changed.values()
        )
    else:
        assert public_key(parsed.members).algorithms == public_key(changed).algorithms == parsed.algorithms
        assert parse_public_jwk(parsed.members) == parsed
        assert parsed.algorithms <= ALGORITHMS.keys()


@settings(max_examples=100, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda s: st.lists(s, max_size=3)))
def test_anything_at_all_is_a_skipped_key(value: Any) -> None:
    """No value of JSON raises anything but what is named."""
    parsed = parse_jwk_set([value, RSA])
    assert [key.kid for key in parsed.keys] == ["rs-1"]
    assert [skipped.index for skipped in parsed.skipped] == [0]
