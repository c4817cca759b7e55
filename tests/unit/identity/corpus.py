"""Tokens of attackers, and good ones beside them so that refusing everything is not a way to pass.

`attacks()` and `good()` are pure data: the unit tests give them to `verify`, the integration tests to a served API.
"""

import base64
import json
from dataclasses import asdict
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.unit.identity.issued import (
    AUDIENCE,
    CLUSTER,
    NOW,
    OTHER,
    OUTSIDE,
    SECRET,
    SHARED,
    TokenSigner,
    account,
    b64,
    claims,
    published,
    rsa_key,
    signers,
    token,
)


def good() -> dict[str, bytes]:
    shared = {"iss": SHARED, "sub": "tester", "iat": NOW - 10, "exp": NOW + 600}
    return {
        "RS256 of an outside issuer": token(claims()),
        "PS256": token(claims(), "ps"),
        "ES256": token(claims(), "es"),
        "EdDSA": token(claims(), "ed"),
        "no typ": token(claims(), typ=None),
        "typ at+jwt": token(claims(), typ="at+jwt"),
        "x5t beside kid": token(claims(), x5t="abc"),
        "one audience in a list": token(claims(aud=[AUDIENCE])),
        "expired a moment ago": token(claims(iat=NOW - 100, exp=NOW - 5)),
        "issued a moment ahead": token(claims(iat=NOW + 20, exp=NOW + 600)),
        "exactly the longest life": token(claims(iat=NOW - 10, exp=NOW + 3590)),
        "service account, RS256": token(account()),
        "service account, ES256": token(account(), "es"),
        "service account without a pod": token(
            account(**{"kubernetes.io": {"namespace": "team-a", "serviceaccount": {"name": "indexer", "uid": "b"}}})
        ),
        "HS256": token(shared, "shared"),
        "unknown private claims": token(claims(groups=["a", "b"], ratio=0.5, nested={"a": [1, {"b": None}]})),
        "sub that is not ASCII": token(claims(sub="jörg")),
    }


def attacks() -> dict[str, bytes]:
    every = {**_form(), **_algorithms(), **_keys(), **_headers(), **_times(), **_audiences(), **_subjects(), **_json()}
    return {**every, **_long()}


def _resigned(value: bytes, signature: bytes) -> bytes:
    return value.rsplit(b".", 1)[0] + b"." + b64(signature).encode()


def _form() -> dict[str, bytes]:
    item = token(claims())
    head, body, signature = item.split(b".")
    spare = base64.urlsafe_b64decode(signature + b"==")
    loose = bytearray(token(claims(), "ed"))  # 64 bytes: two spare bits in the last character
    loose[-1] = {ord("A"): ord("B"), ord("Q"): ord("R"), ord("g"): ord("h"), ord("w"): ord("x")}[loose[-1]]
    return {
        "empty": b"",
        "dots": b"..",
        "one part": head,
        "two parts": head + b"." + body,
        "four parts": item + b".x",
        "five parts (JWE)": item + b".AAAA.AAAA",
        "empty signature": head + b"." + body + b".",
        "empty payload": head + b".." + signature,
        "empty header": b"." + body + b"." + signature,
        "padding": head + b"." + body + b"." + signature + b"==",
        "padding in the header": head + b"=." + body + b"." + signature,
        "standard alphabet": head + b"." + body + b"." + base64.b64encode(b"\xfb\xff" * 128).rstrip(b"="),
        "leading space": b" " + item,
        "trailing space": item + b" ",
        "newline at the end": item + b"\n",
        "newline inside": head + b"." + body[:8] + b"\n" + body[8:] + b"." + signature,
        "tab": item.replace(b".", b"\t.", 1),
        "NUL": item + b"\x00",
        "spare bits in the signature": bytes(loose),
        "a byte more of signature": _resigned(item, spare + b"\x00"),
        "a byte less of signature": _resigned(item, spare[:-1]),
        "signature of zeros": _resigned(item, bytes(256)),
        "signature larger than the modulus": _resigned(item, b"\xff" * 256),
        "impossible length": head + b"." + body + b"." + b"AAAAA",
        "other payload": head + b"." + b64(json.dumps(claims(sub="root")).encode()).encode() + b"." + signature,
        "JSON serialisation": json.dumps({"payload": body.decode(), "protected": head.decode()}).encode(),
        "not ASCII": "ключ.ключ.ключ".encode(),
        "a key of ours": b"mgk_0123456789_" + b"0" * 49,
    }


def _algorithms() -> dict[str, bytes]:
    public = rsa_key().public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    unsigned = {
        f"alg {spelling}": f"{b64(json.dumps({'alg': spelling, 'kid': 'rs-1'}).encode())}.".encode()
        + b64(json.dumps(claims()).encode()).encode()
        + b"."
        for spelling in ("none", "None", "nOnE", "NONE")
    }
    with_signature = {
        f"alg {spelling} with a signature": token(claims(), alg=spelling) for spelling in ("none", "NonE", "")
    }
    es = token(claims(), "es")
    rs = signers()["rs"]
    return {
        **unsigned,
        **with_signature,
        "HS256 with the PEM public key": token(claims(), TokenSigner("HS256", "rs-1", pem)),
        "HS256 with the stripped PEM": token(claims(), TokenSigner("HS256", "rs-1", pem.strip())),
        "HS256 with the DER public key": token(claims(), TokenSigner("HS256", "rs-1", der)),
        "HS256 with the modulus": token(claims(), TokenSigner("HS256", "rs-1", rs.jwk()["n"].encode())),
        "HS256 with our secret for an outside issuer": token(claims(), "shared", kid="rs-1"),
        "HS512 for the shared issuer": token({**claims(), "iss": SHARED}, "shared", alg="HS512"),
        "HS256 empty secret": token({**claims(), "iss": SHARED}, TokenSigner("HS256", "", b"")),
        "HS256 wrong secret": token({**claims(), "iss": SHARED}, TokenSigner("HS256", "", b"wrong")),
        "RS256 for the shared issuer": token(claims(iss=SHARED)),
        "none for the shared issuer": token(claims(iss=SHARED), "shared", alg="none"),
        "RS256 signed, PS256 said": token(claims(), alg="PS256"),
        "PS256 signed, RS256 said": token(claims(), "ps", alg="RS256"),
        "ES256 said over an RSA key": token(claims(), alg="ES256"),
        "RS256 said over an EC key": token(claims(), "es", alg="RS256"),
        "EdDSA said over an EC key": token(claims(), "es", alg="EdDSA"),
        "an algorithm the issuer may not use": token(account(), "ps"),
        "EdDSA that the cluster may not use": token(account(), "ed"),
        "RS1": token(claims(), alg="RS1"),
        "ES256K": token(claims(), "es", alg="ES256K"),
        "alg in lower case": token(claims(), alg="rs256"),
        "alg with a space": token(claims(), alg="RS256 "),
        "alg as a list": token(claims(), alg=["RS256"]),
        "alg as a number": token(claims(), alg=256),
        "no alg": token(claims(), alg=None),
        "ES256 zeros": _resigned(es, bytes(64)),
        "ES256 as DER": _resigned(es, signers()["es"].private.sign(es.rsplit(b".", 1)[0], ec.ECDSA(_sha256()))),
        "ES256 r = order": _resigned(es, _ORDER.to_bytes(32, "big") + (1).to_bytes(32, "big")),
        "EdDSA zeros": _resigned(token(claims(), "ed"), bytes(64)),
    }


_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _sha256() -> Any:
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


def _keys() -> dict[str, bytes]:
    keys = signers()
    mine = TokenSigner("RS256", "mine", rsa_key(which=4))
    return {
        "signed by a stranger with a known kid": token(claims(), "stranger"),
        "unknown kid": token(claims(), kid="nobody"),
        "no kid": token(claims(), kid=None),
        "empty kid": token(claims(), kid=""),
        "kid as a number": token(claims(), kid=1),
        "kid as a list": token(claims(), kid=["rs-1"]),
        "kid as an object": token(claims(), kid={"rs-1": True}),
        "kid is a path": token(claims(), TokenSigner("HS256", "../../../../dev/null", b"")),
        "kid is SQL": token(claims(), kid="rs-1' OR '1'='1"),
        "kid is a URL": token(claims(), kid="https://evil.example/key"),
        "kid with another case": token(claims(), kid="RS-1"),
        "kid with a space": token(claims(), kid="rs-1 "),
        "kid with NUL": token(claims(), kid="rs-1\x00"),
        "kid of 10,000 characters": token(claims(), kid="k" * 3000),
        "kid of another key of the issuer": token(claims(), kid="ps-1"),
        "another believed issuer's key": token(claims(), "other"),
        "signed by another issuer, its kid kept": token(claims(), keys["other"], kid="rs-1"),
        "an issuer that is not for this audience": token(claims(iss=OTHER), "other"),
        "the cluster's issuer signed by the outside one": token(account(), keys["ps"], alg="RS256"),
        "key in jwk": token(claims(), mine, jwk=mine.jwk()),
        "key in jwk with a known kid": token(claims(), mine, kid="rs-1", jwk={**mine.jwk(), "kid": "rs-1"}),
        "address in jku": token(claims(), mine, jku="https://evil.example/jwks"),
        "good key, jku beside": token(claims(), jku="https://idp.example.com/jwks"),
        "good key, jwk beside": token(claims(), jwk=keys["rs"].jwk()),
        "x5u": token(claims(), mine, x5u="https://evil.example/cert"),
        "x5c": token(claims(), mine, x5c=["MIIB"]),
        "good key, x5c beside": token(claims(), x5c=["MIIB"]),
        "ECDSA on another curve": token(
            claims(), TokenSigner("EdDSA", "es-1", ed25519.Ed25519PrivateKey.generate()), alg="ES256"
        ),
        "HMAC with the kid as its key": token(claims(), TokenSigner("HS256", "rs-1", b"rs-1")),
    }


def _headers() -> dict[str, bytes]:
    return {
        "crit empty": token(claims(), crit=[]),
        "crit exp": token(claims(), crit=["exp"]),
        "crit b64": token(claims(), crit=["b64"], b64=False),
        "b64 false": token(claims(), b64=False),
        "b64 true": token(claims(), b64=True),
        "crit unknown": token(claims(), crit=["urn:evil"], **{"urn:evil": 1}),
        "zip": token(claims(), zip="DEF"),
        "enc": token(claims(), enc="A256GCM"),
        "cty JWT": token(claims(), cty="JWT"),
        "typ of a logout token": token(claims(), typ="logout+jwt"),
        "typ of a DPoP proof": token(claims(), typ="dpop+jwt"),
        "typ as a list": token(claims(), typ=["JWT"]),
        "header is a list": token(claims(), header=b'["RS256"]'),
        "header is null": token(claims(), header=b"null"),
        "header is a text": token(claims(), header=b'"RS256"'),
        "header is not JSON": token(claims(), header=b"{alg:RS256}"),
        "alg twice": token(claims(), header=b'{"alg":"RS256","kid":"rs-1","alg":"none"}'),
        "kid twice": token(claims(), header=b'{"alg":"RS256","kid":"nobody","kid":"rs-1"}'),
        "header in UTF-16": token(claims(), header='{"alg":"RS256","kid":"rs-1"}'.encode("utf-16")),
        "header with a BOM": token(claims(), header=b'\xef\xbb\xbf{"alg":"RS256","kid":"rs-1"}'),
        "header with bytes after it": token(claims(), header=b'{"alg":"RS256","kid":"rs-1"}{}'),
    }


def _times() -> dict[str, bytes]:
    return {
        "expired beyond leeway": token(claims(iat=NOW - 100, exp=NOW - 40)),
        "expired a day ago": token(claims(iat=NOW - 90000, exp=NOW - 86400)),
        "no exp": token(claims(exp=None)),
        "no iat": token(claims(iat=None)),
        "exp as text": token(claims(exp=str(NOW + 600))),
        "exp as float": token(json.dumps(claims()).replace(str(NOW + 590), f"{NOW + 590}.5").encode()),
        "exp as exponent": token(json.dumps(claims()).replace(str(NOW + 590), "1e11").encode()),
        "exp true": token(claims(exp=True)),
        "exp null": token({**claims(), "exp": None}),
        "exp as a list": token(claims(exp=[NOW + 600])),
        "exp NaN": token(json.dumps(claims()).replace(str(NOW + 590), "NaN").encode()),
        "exp Infinity": token(json.dumps(claims()).replace(str(NOW + 590), "Infinity").encode()),
        "exp huge": token(claims(exp=10**300)),
        "exp with 5,000 digits": token(json.dumps(claims()).replace(str(NOW + 590), "9" * 5000).encode()),
        "exp negative": token(claims(exp=-1)),
        "exp zero": token(claims(exp=0)),
        "iat as text": token(claims(iat=str(NOW))),
        "iat as float": token(claims(iat=NOW + 0.5)),
        "iat in the future": token(claims(iat=NOW + 120)),
        "iat after exp": token(claims(iat=NOW + 20, exp=NOW + 10)),
        "iat negative": token(claims(iat=-(10**10))),
        "iat false": token(claims(iat=False)),
        "nbf in the future": token(claims(nbf=NOW + 300)),
        "nbf as text": token(claims(nbf="0")),
        "nbf after exp": token(claims(nbf=NOW + 600)),
        "a second longer than allowed": token(claims(iat=NOW - 10, exp=NOW + 3591)),
        "ten years": token(claims(exp=NOW + 315_360_000)),
    }


def _audiences() -> dict[str, bytes]:
    return {
        "no aud": token(claims(aud=None)),
        "aud null": token({**claims(), "aud": None}),
        "aud empty": token(claims(aud="")),
        "aud empty list": token(claims(aud=[])),
        "aud of another gate": token(claims(aud="memorygate")),
        "aud of the API server": token(claims(aud=CLUSTER)),
        "two audiences": token(claims(aud=[AUDIENCE, "memorygate"])),
        "the audience twice": token(claims(aud=[AUDIENCE, AUDIENCE])),
        "aud in another case": token(claims(aud="MetaGate")),
        "aud with a prefix": token(claims(aud="metagate.evil")),
        "aud with a space": token(claims(aud="metagate ")),
        "aud two in one text": token(claims(aud="metagate memorygate")),
        "aud number": token(claims(aud=1)),
        "aud object": token(claims(aud={"metagate": True})),
        "aud nested list": token(claims(aud=[[AUDIENCE]])),
        "aud wildcard": token(claims(aud="*")),
    }


def _subjects() -> dict[str, bytes]:
    good = account()["kubernetes.io"]
    other = {**good, "namespace": "team-b"}
    return {
        "no sub": token(claims(sub=None)),
        "sub empty": token(claims(sub="")),
        "sub number": token(claims(sub=7)),
        "sub list": token(claims(sub=["indexer@example.com"])),
        "sub with NUL": token(claims(sub="indexer\x00@example.com")),
        "sub with a newline": token(claims(sub="indexer\n")),
        "sub with a lone surrogate": token(json.dumps(claims(sub="SUB")).replace("SUB", "\\ud800").encode()),
        "sub of 2,000 characters": token(claims(sub="s" * 2000)),
        "no iss": token(claims(iss=None)),
        "iss with a slash more": token(claims(iss=OUTSIDE + "/")),
        "iss in another case": token(claims(iss=OUTSIDE.upper())),
        "iss list": token(claims(iss=[OUTSIDE])),
        "iss empty": token(claims(iss="")),
        "iss null": token({**claims(), "iss": None}),
        "iss of nobody": token(claims(iss="https://evil.example")),
        "service account of another namespace": token(account(**{"kubernetes.io": other})),
        "service account by another name": token(
            account(**{"kubernetes.io": {**good, "serviceaccount": {"name": "admin", "uid": "b"}}})
        ),
        "subject of another namespace": token(account(sub="system:serviceaccount:kube-system:indexer")),
        "no kubernetes.io": token(account(**{"kubernetes.io": None})),
        "kubernetes.io a text": token(account(**{"kubernetes.io": "team-a"})),
        "kubernetes.io a list": token(account(**{"kubernetes.io": [good]})),
        "no serviceaccount": token(account(**{"kubernetes.io": {"namespace": "team-a"}})),
        "serviceaccount a text": token(account(**{"kubernetes.io": {**good, "serviceaccount": "indexer"}})),
        "pod a text": token(account(**{"kubernetes.io": {**good, "pod": "x"}})),
        "pod without uid": token(account(**{"kubernetes.io": {**good, "pod": {"name": "x"}}})),
        "pod uid a number": token(account(**{"kubernetes.io": {**good, "pod": {"name": "x", "uid": 1}}})),
        "pod uid with NUL": token(account(**{"kubernetes.io": {**good, "pod": {"name": "x", "uid": "a\x00"}}})),
        "node a text": token(account(**{"kubernetes.io": {**good, "node": "n"}})),
        "cluster token of a user": token(account(sub="kubernetes-admin")),
        "sub with colons moved": token(account(sub="system:serviceaccount:team-a:indexer:x")),
        "outside issuer names a service account": token(claims(sub="system:serviceaccount:team-a:indexer")),
    }


def _json() -> dict[str, bytes]:
    text = json.dumps(claims())
    return {
        "payload is a list": token(b"[]"),
        "payload is a number": token(b"17"),
        "payload is not JSON": token(b"hello there"),
        "payload not UTF-8": token(b'{"iss":"\xff\xfe"}'),
        "payload in UTF-16": token(text.encode("utf-16")),
        "payload with a BOM": token(b"\xef\xbb\xbf" + text.encode()),
        "sub twice": token((text[:-1] + ', "sub": "root"}').encode()),
        "aud twice": token((text[:-1] + ', "aud": "metagate"}').encode()),
        "a member twice, deep inside": token((text[:-1] + ', "x": [{"y": {"a": 1, "a": 2}}]}').encode()),
        "sub twice, once escaped": token((text[:-1] + ', "s\\u0075b": "root"}').encode()),
        "nested too deep": token(b'{"a":' + b"[" * 2900 + b"]" * 2900 + b"}"),
        "trailing comma": token(text[:-1].encode() + b",}"),
        "comment": token(b"/**/" + text.encode()),
        "single quotes": token(text.replace('"', "'").encode()),
    }


def _long() -> dict[str, bytes]:
    return {
        "10 KB of claims": token(claims(pad="x" * 10_000)),
        "a megabyte": token(claims(pad="x" * 1_000_000)),
        "a megabyte of dots": b"." * 1_000_000,
        "a megabyte of As": b"A" * 1_000_000,
        "signature of 9 KB": token(claims()) + b"A" * 9000,
    }


def written() -> dict[str, Any]:
    """Keys and tokens made now, as JSON: for suites that run long after this module was imported."""
    published_now = published()
    return {
        "secret": SECRET.decode(),
        "issuers": [asdict(row) for row in published_now.issuers],
        "issuer_keys": [asdict(row) for row in published_now.issuer_keys],
        "good": {name: value.decode() for name, value in good().items()},
        "attacks": {name: base64.b64encode(value).decode() for name, value in attacks().items()},
        "later": {
            "stranger": token(claims(sub="stranger@example.com")).decode(),
            "another pod": token(account(**{"kubernetes.io": _other_pod()})).decode(),
        },
    }


def _other_pod() -> dict[str, Any]:
    bound: dict[str, Any] = account()["kubernetes.io"]
    return {**bound, "pod": {"name": "indexer-8d1", "uid": "6a1f0b6e-1f57-4a4b-9f0f-3b1e6a0b5d22"}}


if __name__ == "__main__":
    print(json.dumps(written()))
