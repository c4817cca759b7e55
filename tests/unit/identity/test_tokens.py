"""The corpus against `verify`, with PyJWT as a second opinion."""

import json
import warnings
from datetime import datetime, tzinfo
from typing import Any
from unittest import mock

import jwt as pyjwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import corpora
from tests.unit.identity import corpus
from tests.unit.identity.issued import (
    AUDIENCE,
    CLUSTER,
    NOW,
    OUTSIDE,
    SECRET,
    SHARED,
    Changed,
    IssuerKeyRowStub,
    IssuerRowStub,
    account,
    claims,
    published,
    signers,
    token,
)

from legivellum.identity.caller import AuthFailure, FailureReason, Pod
from legivellum.identity.shared_secret import SharedSecret
from legivellum.identity.tokens import TokenVerifier, Verified

ATTACKS = corpus.attacks()
GOOD = corpus.good()


def verifier(**changes: Any) -> TokenVerifier:
    made = TokenVerifier(audiences=(AUDIENCE,), shared=SharedSecret(SHARED, SECRET), **changes)
    made.apply(published())
    return made


@pytest.fixture
def tokens() -> TokenVerifier:
    return verifier()


@pytest.mark.invariant("INV-002", "INV-003")
@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_refused(tokens: TokenVerifier, name: str) -> None:
    """No token of an attacker is believed, the first time or the second, and the reason is one of the closed list."""
    for _ in range(2):
        token_claims = tokens.verify(ATTACKS[name], NOW)
        assert isinstance(token_claims, AuthFailure), name
        assert token_claims.status == 401
        assert ATTACKS[name].decode("utf-8", "replace") not in token_claims.detail or len(ATTACKS[name]) < 3
    corpora.count("tokens by reason", token_claims.reason)


@pytest.mark.invariant("INV-003")
@pytest.mark.parametrize("name", GOOD)
def test_every_good_token_is_believed(tokens: TokenVerifier, name: str) -> None:
    """A token that keeps all rules is believed, the first time and from memory."""
    first, second = tokens.verify(GOOD[name], NOW), tokens.verify(GOOD[name], NOW)
    assert isinstance(first, Verified), first
    assert second is first


def test_the_corpus_is_as_large_as_it_says() -> None:
    """The corpus holds what was asked of it, and nothing twice."""
    assert len(ATTACKS) >= 60
    assert len(set(ATTACKS.values())) == len(ATTACKS)


class Then(datetime):
    """The moment for which the corpus was made: PyJWT reads the clock itself, and a long run must not let tokens expire."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.fromtimestamp(NOW, tz)


def second_opinion(value: bytes) -> dict[str, Any] | None:
    """What PyJWT says of a token, with the key and rules of the issuer that the token names."""
    keys = {(row.issuer, row.kid): row.jwk for row in published().issuer_keys}
    rules = {row.issuer: row.algorithms for row in published().issuers}
    try:
        issuer = pyjwt.decode(value, options={"verify_signature": False})["iss"]
        if issuer == SHARED:
            key: Any = SECRET
            algorithms, options = ["HS256"], {"require": ["exp", "iat", "sub"], "verify_aud": False}
        else:
            kid = pyjwt.get_unverified_header(value)["kid"]
            key = pyjwt.PyJWK(keys[issuer, kid], algorithm=pyjwt.get_unverified_header(value)["alg"])
            algorithms, options = list(rules[issuer]), {"require": ["exp", "iat", "sub", "aud"]}
        with warnings.catch_warnings(), mock.patch("jwt.api_jwt.datetime", Then):
            warnings.simplefilter("ignore")
            return dict(
                pyjwt.decode(
                    value, key, algorithms=algorithms, audience=AUDIENCE, issuer=issuer, leeway=30, options=options
                )
            )
    except (pyjwt.PyJWTError, KeyError, TypeError, ValueError, AttributeError, RecursionError, NotImplementedError):
        return None


def test_a_second_library_believes_the_good_tokens_too() -> None:
    """PyJWT accepts every good token: our own signer is not the only one that calls them good."""
    assert [name for name, value in GOOD.items() if second_opinion(value) is None] == []


def test_our_own_rules_refuse_more_than_a_second_library(capsys: pytest.CaptureFixture[str]) -> None:
    """What PyJWT refuses is refused here (checked above); the attacks it would let pass are the worth of our checks."""
    passed = [name for name, value in ATTACKS.items() if second_opinion(value) is not None]
    with capsys.disabled():
        print(f"\ntoken corpus: PyJWT alone would have believed {len(passed)} of {len(ATTACKS)} attacks")
    assert passed


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
header_members = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "cty", "zip", "enc"])
    | st.text(max_size=6),
    json_values | st.sampled_from(["RS256", "HS256", "none", "rs-1", "ps-1", "JWT"]),
    max_size=3,
)
payload_members = st.dictionaries(
    st.sampled_from(["iss", "sub", "aud", "exp", "iat", "nbf", "kubernetes.io"]) | st.text(max_size=6),
    json_values | st.sampled_from([OUTSIDE, CLUSTER, AUDIENCE, NOW, NOW + 60, [AUDIENCE], [AUDIENCE, AUDIENCE]]),
    max_size=3,
)
SHARED_VERIFIER = verifier()


@settings(max_examples=400, deadline=None)
@given(header_members, payload_members)
def test_what_is_believed_keeps_every_rule(header: dict[str, Any], payload: dict[str, Any]) -> None:
    """However header and payload are changed before signing, a believed token keeps the rules and PyJWT agrees."""
    head = {"alg": "EdDSA", "kid": "ed-1", **header}
    body = {**claims(), **payload}
    value = token(json.dumps(body).encode(), "ed", header=json.dumps(head).encode())
    token_claims = SHARED_VERIFIER.verify(value, NOW)
    if isinstance(token_claims, AuthFailure):
        return
    assert head["alg"] == "EdDSA"
    assert head["kid"] == "ed-1"
    assert not {"crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc", "cty"} & head.keys()
    assert body["aud"] in (AUDIENCE, [AUDIENCE])
    assert type(body["exp"]) is int
    assert 0 < body["exp"] - body["iat"] <= 3600
    assert token_claims.credential.subject == body["sub"]
    assert second_opinion(value) is not None


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_no_byte_of_a_good_token_can_be_changed(name: str, data: st.DataObject) -> None:
    """Changing, removing or adding a single byte anywhere turns every good token into a refused one."""
    value = bytearray(GOOD[name])
    at = data.draw(st.integers(0, len(value) - 1))
    change = data.draw(st.sampled_from(["set", "drop", "add"]))
    byte = data.draw(st.integers(0, 255))
    if change == "set":
        value[at] = byte
    elif change == "drop":
        del value[at]
    else:
        value.insert(at, byte)
    if bytes(value) != GOOD[name]:
        assert isinstance(SHARED_VERIFIER.verify(bytes(value), NOW), AuthFailure)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | st.from_regex(rb"[A-Za-z0-9_-]{1,60}\.[A-Za-z0-9_-]{1,60}\.[A-Za-z0-9_-]{1,60}"))
def test_arbitrary_bytes_are_refused_and_raise_nothing(value: bytes) -> None:
    """Whatever bytes stand in the header, the answer is a refusal and never an exception."""
    assert isinstance(SHARED_VERIFIER.verify(value, NOW), AuthFailure)


def test_the_bound_pod_is_told(tokens: TokenVerifier) -> None:
    """A projected token says which pod and node it belongs to (D-43)."""
    token_claims = tokens.verify(token(account()), NOW)
    assert isinstance(token_claims, Verified)
    assert token_claims.pod == Pod("5f0c0b6e-1f57-4a4b-9f0f-3b1e6a0b5d11", "indexer-7c9", "node-1")
    assert token_claims.service_account
    assert token_claims.credential.kid == "rs-1"


@pytest.mark.parametrize(("seconds", "believed"), [(589, True), (619, True), (620, False), (700, False)])
def test_a_remembered_token_still_expires(tokens: TokenVerifier, seconds: int, believed: bool) -> None:
    """Memory ends with the token: after exp and the leeway of 30 s it is refused although its signature was checked."""
    value = token(claims(iat=NOW - 10, exp=NOW + 590))
    assert isinstance(tokens.verify(value, NOW), Verified)
    token_claims = tokens.verify(value, NOW + seconds)
    assert isinstance(token_claims, Verified) is believed
    assert believed or (isinstance(token_claims, AuthFailure) and token_claims.reason is FailureReason.EXPIRED)


@pytest.mark.parametrize(
    "change",
    [
        Changed(gone_issuers=(OUTSIDE,)),
        Changed(gone_issuer_keys=((OUTSIDE, "rs-1"),)),
        Changed(issuers=(IssuerRowStub(OUTSIDE, audiences=("memorygate",)),)),
        Changed(issuers=(IssuerRowStub(OUTSIDE, algorithms=("ES256",)),)),
        Changed(issuers=(IssuerRowStub(OUTSIDE, max_token_lifetime_seconds=60),)),
        Changed(issuer_keys=(IssuerKeyRowStub(OUTSIDE, "rs-1", signers()["stranger"].jwk()),)),
        Changed(issuer_keys=(IssuerKeyRowStub(OUTSIDE, "rs-1", {"kty": "oct", "k": "AAAA"}),)),
        Changed(full=True),
    ],
    ids=["issuer gone", "key gone", "audience", "algorithm", "lifetime", "key replaced", "key unusable", "all new"],
)
def test_a_remembered_token_never_outlives_what_it_rests_on(tokens: TokenVerifier, change: Changed) -> None:
    """When its issuer or key goes or changes, a token that was believed a moment ago is judged anew (D-45)."""
    value = token(claims())
    assert isinstance(tokens.verify(value, NOW), Verified)
    tokens.apply(change)
    assert isinstance(tokens.verify(value, NOW), AuthFailure)


def test_old_and_new_key_hold_together(tokens: TokenVerifier) -> None:
    """While an issuer publishes two keys the tokens of both are believed; after the old one goes only the new."""
    tokens.apply(Changed(issuer_keys=(IssuerKeyRowStub(OUTSIDE, "other-1", signers()["other"].jwk()),)))
    old, new = token(claims()), token(claims(), "other")
    assert isinstance(tokens.verify(old, NOW), Verified)
    assert isinstance(tokens.verify(new, NOW), Verified)
    tokens.apply(Changed(gone_issuer_keys=((OUTSIDE, "rs-1"),)))
    assert isinstance(tokens.verify(old, NOW), AuthFailure)
    assert isinstance(tokens.verify(new, NOW), Verified)


def test_memory_is_bounded_and_junk_pushes_nothing_out() -> None:
    """Only verified tokens are remembered, at most as many as allowed, the least recently used leaving first."""
    tokens = verifier(limit=3)
    kept = [token(claims(jti=str(n)), "ed") for n in range(4)]
    first = tokens.verify(kept[0], NOW)
    for value in kept[1:3]:
        tokens.verify(value, NOW)
    assert tokens.verify(kept[0], NOW) is first
    for n in range(100):
        tokens.verify(token(claims(jti=f"junk {n}"), "stranger"), NOW)
    assert tokens.verify(kept[0], NOW) is first
    tokens.verify(kept[3], NOW)
    assert len(tokens._cache) == 3
    assert tokens.verify(kept[0], NOW) is first


@pytest.mark.parametrize(("audience", "accepted"), [("metagate", True), ("sample", True), ("memorygate", False)])
def test_a_gate_accepts_each_of_its_audiences_and_no_other(audience: str, accepted: bool) -> None:
    """A token for any of the gate's audiences is valid and stays current; one for another gate is refused (D-44)."""
    tokens = TokenVerifier(audiences=("metagate", "sample"))
    issuer = IssuerRowStub(OUTSIDE, audiences=("metagate", "sample", "memorygate"))
    tokens.apply(Changed(issuers=(issuer,), issuer_keys=published().issuer_keys))
    verified = tokens.verify(token(claims(aud=audience)), NOW)
    assert isinstance(verified, Verified) is accepted
    if isinstance(verified, Verified):
        assert verified.audience == audience
        assert tokens.is_current(verified.credential.issuer, verified.credential.kid, verified.verification)
    else:
        assert verified.reason is FailureReason.AUDIENCE


@pytest.mark.invariant("INV-036")
def test_without_a_secret_no_shared_token_is_believed() -> None:
    """HS256 is off until a secret is set (D-37), also for the issuer name it would have."""
    tokens = TokenVerifier(audiences=(AUDIENCE,))
    tokens.apply(published())
    token_claims = tokens.verify(GOOD["HS256"], NOW)
    assert isinstance(token_claims, AuthFailure)
    assert token_claims.reason is FailureReason.ISSUER_UNKNOWN


def test_the_audience_of_shared_tokens_is_checked_when_it_is_set() -> None:
    """With JWT_AUDIENCE set, a shared token needs exactly that audience (D-37)."""
    tokens = TokenVerifier(audiences=(AUDIENCE,), shared=SharedSecret(SHARED, SECRET, audience="mine"))
    minted = SharedSecret(SHARED, SECRET, audience="mine").mint("tester", now=NOW)
    assert isinstance(tokens.verify(minted.encode(), NOW), Verified)
    assert isinstance(tokens.verify(GOOD["HS256"], NOW), AuthFailure)


def test_minted_tokens_are_believed_and_bounded() -> None:
    """`mint` makes tokens that hold, for no longer than the longest life."""
    shared = SharedSecret(SHARED, SECRET)
    token_claims = TokenVerifier(audiences=(AUDIENCE,), shared=shared).verify(
        shared.mint("tester", now=NOW).encode(), NOW
    )
    assert isinstance(token_claims, Verified)
    assert token_claims.credential.subject == "tester"
    with pytest.raises(ValueError, match="lifetime"):
        shared.mint("tester", now=NOW, lifetime=90_000)


@pytest.mark.parametrize(
    ("secret", "algorithm"), [(b"", "HS256"), (SECRET, "RS256"), (SECRET, "none"), (b"-----BEGIN PUBLIC", "RS512")]
)
def test_a_secret_that_cannot_be_one_is_refused(secret: bytes, algorithm: str) -> None:
    """Empty secrets and algorithms that are not HMACs are refused when they are set, not when somebody logs in."""
    with pytest.raises(ValueError, match=r"JWT_ALGORITHM|empty"):
        SharedSecret(SHARED, secret, algorithm)


def test_a_gate_needs_an_audience() -> None:
    """No gate runs without an audience of its own (D-44)."""
    with pytest.raises(ValueError, match="audience must not be empty"):
        TokenVerifier(audiences=("",))
