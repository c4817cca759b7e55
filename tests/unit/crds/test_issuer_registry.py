"""Whose subject is it: TokenIssuers, namespaces, conflicts (D-13, D-31, D-37, D-44, D-45, D-46)."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.crds.worlds import (
    CLUSTER_ISSUER,
    PRINCIPAL,
    SETTINGS,
    all_messages,
    api_key,
    compiled,
    conditions_of,
    declared,
    external_issuer,
    rows,
    verdict_of,
    world,
)

from metagate_crds import reasons
from metagate_crds.compile.compiler import compile_world
from metagate_crds.objects import CompileSettings, ObjectKey
from metagate_crds.rules import patterns
from metagate_crds.validation import validate

IDP = "https://idp.example.com"
CLUSTER = declared("TokenIssuer", "cluster", CLUSTER_ISSUER)


def principal(name, *claims, namespace="team", age=0.0, **more):
    subjects_ = [
        {"serviceAccount": {"name": claim}}
        if isinstance(claim, str)
        else dict(zip(("issuer", "subject"), claim, strict=True))
        for claim in claims
    ]
    return declared("Principal", name, {"subjects": subjects_, **more}, namespace=namespace, age=age)


def resolved(result, name="p", namespace="team"):
    return conditions_of(verdict_of(result, "Principal", name, namespace))["ResolvedRefs"]


def test_service_accounts_are_of_the_principals_own_namespace():
    """The subject is spelled by the compiler, so nobody can name another namespace's account (D-31)."""
    result = compiled(CLUSTER, principal("p", "sa"), principal("p", "sa", namespace="other"))
    assert [row["subject"] for row in rows(result, "subject")] == [
        "system:serviceaccount:other:sa",
        "system:serviceaccount:team:sa",
    ]
    assert all(verdict.ready for verdict in result.verdicts.values())


@pytest.mark.parametrize("issuer", [SETTINGS.cluster_issuer, "https://declared.example.com"])
def test_an_explicit_subject_of_the_cluster_issuer_is_refused(issuer):
    """Discovered or declared: otherwise one tenant could capture another tenant's pods."""
    own = declared("TokenIssuer", "cluster", {**CLUSTER_ISSUER, "issuer": "https://declared.example.com"})
    result = compiled(own, principal("p", (issuer, "system:serviceaccount:other:sa")))
    assert resolved(result) == ("False", reasons.CLUSTER_SUBJECT)
    assert rows(result, "subject") == []


def test_an_outside_issuer_cannot_be_made_of_the_clusters_name():
    """Even when a TokenIssuer with another source has the cluster's issuer."""
    thief = declared("TokenIssuer", "thief", external_issuer(SETTINGS.cluster_issuer, namespaces=["team"]), age=-1)
    result = compiled(thief, CLUSTER, principal("p", (SETTINGS.cluster_issuer, "system:serviceaccount:other:sa")))
    assert resolved(result) == ("False", reasons.CLUSTER_SUBJECT)
    assert rows(result, "subject") == []


def test_without_a_cluster_issuer_service_accounts_do_not_resolve():
    """No TokenIssuer with source Cluster, or one whose issuer nobody knows."""
    assert resolved(compiled(principal("p", "sa"))) == ("False", reasons.NO_CLUSTER_ISSUER)
    blind = CompileSettings(cluster_issuer=None)
    result = compiled(CLUSTER, principal("p", "sa"), settings=blind)
    assert resolved(result) == ("False", reasons.NO_CLUSTER_ISSUER)
    assert conditions_of(verdict_of(result, "TokenIssuer", "cluster"))["ResolvedRefs"] == (
        "False",
        reasons.NO_CLUSTER_ISSUER,
    )
    named = declared("TokenIssuer", "cluster", {**CLUSTER_ISSUER, "issuer": "https://k"})
    assert rows(compiled(named, principal("p", "sa"), settings=blind), "subject")[0]["issuer"] == "https://k"


def test_the_oldest_issuer_has_the_url_and_the_oldest_cluster_issuer_the_cluster():
    """The younger ones are told by name: TokenIssuers belong to the whole cluster."""
    result = compiled(
        CLUSTER,
        declared("TokenIssuer", "a", external_issuer(), age=2),
        declared("TokenIssuer", "b", external_issuer(), age=1),
        declared("TokenIssuer", "c", {**CLUSTER_ISSUER, "issuer": "https://c"}, age=3),
    )
    assert [row["name"] for row in rows(result, "issuer")] == ["cluster", "b"]
    assert conditions_of(verdict_of(result, "TokenIssuer", "a"))["Conflicted"] == ("True", reasons.ISSUER_CONFLICT)
    assert "TokenIssuer b" in verdict_of(result, "TokenIssuer", "a").condition("Conflicted").message
    assert conditions_of(verdict_of(result, "TokenIssuer", "c"))["Conflicted"] == ("True", reasons.ISSUER_CONFLICT)


def test_an_outside_issuer_admits_nobody_by_default():
    """Namespaces are named, or `*`."""
    claim = principal("p", (IDP, "x@team.example.com"))
    assert resolved(compiled(claim)) == ("False", reasons.ISSUER_NOT_FOUND)
    assert resolved(compiled(declared("TokenIssuer", "idp", external_issuer()), claim)) == (
        "False",
        reasons.ISSUER_NOT_ADMITTING,
    )
    for namespaces in (["other"], []):
        issuer = declared("TokenIssuer", "idp", external_issuer(namespaces=namespaces))
        assert resolved(compiled(issuer, claim)) == ("False", reasons.ISSUER_NOT_ADMITTING)
    issuer = declared("TokenIssuer", "idp", external_issuer(namespaces=["team"]))
    assert rows(compiled(issuer, claim), "subject")[0]["principal_key"] == "p"


def test_a_subject_pattern_keeps_namespaces_apart():
    """A namespace claims what the pattern gives it, and nothing of its neighbour."""
    issuer = declared(
        "TokenIssuer", "idp", external_issuer(namespaces=["*"], subjectPattern="*@{namespace}.example.com")
    )
    mine = compiled(issuer, principal("p", (IDP, "x@team.example.com")))
    assert resolved(mine)[0] == "True"
    for foreign in ("x@other.example.com", "x@team.example.com.evil.org", "team.example.com", "x@a-team.example.com"):
        result = compiled(issuer, principal("p", (IDP, foreign)))
        assert resolved(result) == ("False", reasons.SUBJECT_NOT_ADMITTED)
        assert foreign not in all_messages(result)


@pytest.mark.parametrize(
    "pattern",
    [
        "{namespace}-*",
        "*{namespace}",
        "x{namespace}",
        "{namespace}*",
        "{namespace}{namespace}",
        "a-{namespace}:*",
        "{ns}:{namespace}",
        "*",
        "fixed",
    ],
)
def test_a_pattern_that_would_admit_a_neighbour_is_refused(pattern):
    """`team` must not claim what belongs to `team-a`."""
    (finding,) = validate("TokenIssuer", external_issuer(namespaces=["a", "b"], subjectPattern=pattern))
    assert finding.reason == reasons.INVALID_PATTERN


@pytest.mark.parametrize(
    "pattern", ["*@{namespace}.example.com", "{namespace}:*", "repo:{namespace}/*", "{namespace}", "urn_{namespace}_*"]
)
def test_a_pattern_with_clear_borders_is_accepted(pattern):
    """Anything that no namespace name contains may stand beside the namespace."""
    assert validate("TokenIssuer", external_issuer(namespaces=["*"], subjectPattern=pattern)) == ()
    assert not patterns.subject_permitted(pattern, "team", pattern.replace("{namespace}", "team-a").replace("*", "x"))


@given(
    pattern=st.text("ab*", max_size=8),
    subject=st.text("ab\n", max_size=10),
)
def test_a_star_stands_for_any_text(pattern, subject):
    """The same as a regular expression says in which each star is anything."""
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), subject, re.DOTALL) is not None
    assert patterns.subject_permitted(pattern, "team", subject) is expected


def test_a_hostile_pattern_costs_nothing():
    """As many stars as a pattern may have, before a subject that almost fits: the answer comes at once."""
    border = "b@{namespace}.example.com"
    pattern = "*a" * ((256 - len(border)) // 2) + border
    issuer = declared("TokenIssuer", "idp", external_issuer(namespaces=["*"], subjectPattern=pattern))
    began = time.process_time()
    result = compiled(issuer, principal("p", (IDP, "a" * 480 + "@team.example.com")))
    assert time.process_time() - began < 5
    assert resolved(result) == ("False", reasons.SUBJECT_NOT_ADMITTED)
    fitting = compiled(issuer, principal("p", (IDP, "a" * 480 + "b@team.example.com")))
    assert resolved(fitting)[0] == "True"


@pytest.mark.parametrize("namespaces", [["a", "b"], ["*"]])
def test_a_pattern_is_mandatory_where_several_namespaces_are_admitted(namespaces):
    """One namespace needs none."""
    assert validate("TokenIssuer", external_issuer(namespaces=namespaces))[0].reason == reasons.INVALID_PATTERN
    assert validate("TokenIssuer", external_issuer(namespaces=["a"])) == ()
    assert validate("TokenIssuer", {**CLUSTER_ISSUER, "namespaces": namespaces}) == ()


def test_a_subject_belongs_to_one_principal_in_the_whole_cluster():
    """The oldest; a loser elsewhere is not told whose it is (D-13, D-44)."""
    issuer = declared("TokenIssuer", "idp", external_issuer(namespaces=["*"], subjectPattern="x:{namespace}/*"))
    shared = (IDP, "x:team/1")
    result = compiled(
        issuer,
        principal("elder", shared, age=1),
        principal("younger", shared, age=2),
        principal("stranger", shared, namespace="other", age=0),
    )
    assert [row["principal_key"] for row in rows(result, "subject")] == ["elder"]
    assert resolved(result, "stranger", "other") == ("False", reasons.SUBJECT_NOT_ADMITTED)
    verdict = verdict_of(result, "Principal", "younger")
    assert conditions_of(verdict)["Conflicted"] == ("True", reasons.SUBJECT_CONFLICT)
    assert "elder" in verdict.condition("Conflicted").message


def test_a_conflict_across_namespaces_names_nobody():
    """Neither the namespace nor the object of the other tenant."""
    loose = declared("TokenIssuer", "idp", external_issuer(namespaces=["*"], subjectPattern="{namespace}"))
    tight = declared(
        "TokenIssuer",
        "one",
        external_issuer("https://one", namespaces=["zebra", "team"], subjectPattern="*:{namespace}:*"),
    )
    both = ("https://one", "a:zebra:b:team:c")
    result = compiled(
        loose,
        tight,
        principal("winner", both, namespace="zebra"),
        principal("loser", both, age=1),
        namespaces=("zebra",),
    )
    verdict = verdict_of(result, "Principal", "loser")
    assert conditions_of(verdict)["Conflicted"] == ("True", reasons.SUBJECT_CONFLICT)
    message = " ".join(item.message for item in verdict.conditions)
    assert "zebra" not in message
    assert "winner" not in message


def test_an_api_key_belongs_to_one_principal():
    """The same digest in two Principals: the oldest has it; the same id blocks nobody (D-45)."""
    keys = {"apiKeys": [api_key(1)]}
    twin = {"apiKeys": [{**api_key(2), "id": api_key(1)["id"]}]}
    result = compiled(
        declared("Principal", "elder", keys, namespace="zebra"),
        declared("Principal", "younger", keys, age=1),
        declared("Principal", "twin", twin, age=1),
        namespaces=("zebra",),
    )
    assert [(row["tenant"], row["principal_key"]) for row in rows(result, "api_key")] == [
        ("tenant-zebra", "elder"),
        ("tenant-team", "twin"),
    ]
    verdict = verdict_of(result, "Principal", "younger")
    assert conditions_of(verdict)["Conflicted"] == ("True", reasons.KEY_CONFLICT)
    assert "zebra" not in verdict.condition("Conflicted").message


def test_an_api_key_belongs_to_the_tenant_that_declared_it_first():
    """Also when an older Principal of another tenant claims it, and when nobody of its own tenant has it now (D-70)."""
    keys = {"apiKeys": [api_key(1), api_key(2)]}
    claimed = world(
        declared("Principal", "thief", keys, namespace="zebra"),
        declared("Principal", "rightful", {"apiKeys": [api_key(1)]}, age=1),
        namespaces=("zebra",),
    )
    claimed.key_owners = {api_key(1)["sha256"]: "tenant-team", api_key(2)["sha256"]: "tenant-gone"}
    result = compile_world(claimed, {})
    assert [(row["tenant"], row["principal_key"]) for row in rows(result, "api_key")] == [("tenant-team", "rightful")]
    verdict = verdict_of(result, "Principal", "thief", "zebra")
    assert conditions_of(verdict)["Conflicted"] == ("True", reasons.KEY_CONFLICT)
    assert "team" not in " ".join(item.message for item in verdict.conditions)
    assert "Conflicted" not in conditions_of(verdict_of(result, "Principal", "rightful"))


def test_the_shared_secrets_issuer_is_claimed_by_namespace():
    """JWT_NAMESPACES admits; off, its subjects resolve to nothing (D-37)."""
    claim = principal("p", ("metagate", "worker-1"))
    assert rows(compiled(claim), "subject")[0]["issuer"] == "metagate"
    closed = CompileSettings(jwt_issuer="metagate", jwt_namespaces=())
    assert resolved(compiled(claim, settings=closed)) == ("False", reasons.ISSUER_NOT_ADMITTING)
    off = CompileSettings(jwt_issuer=None)
    assert resolved(compiled(claim, settings=off)) == ("False", reasons.ISSUER_NOT_FOUND)


def test_the_shared_secrets_issuer_cannot_be_a_token_issuer():
    """Nobody may bring keys for a name that HS256 answers for."""
    issuer = declared("TokenIssuer", "thief", external_issuer("metagate", namespaces=["team"]))
    assert conditions_of(verdict_of(compiled(issuer), "TokenIssuer", "thief"))["Accepted"] == (
        "False",
        reasons.RESERVED_ISSUER,
    )
    assert rows(compiled(issuer), "issuer") == []
    off = CompileSettings(jwt_issuer=None)
    assert verdict_of(compiled(issuer, settings=off), "TokenIssuer", "thief").ready


def test_scope_and_rights_belong_to_the_system_namespace():
    """Anywhere else the object is refused (D-51)."""
    spec = {**PRINCIPAL, "scope": "Cluster", "rights": ["witness"]}
    result = compiled(
        CLUSTER, declared("Principal", "p", spec), declared("Principal", "p", spec, namespace="metagate-system")
    )
    assert conditions_of(verdict_of(result, "Principal", "p"))["Accepted"] == ("False", reasons.SYSTEM_NAMESPACE_ONLY)
    (row,) = rows(result, "principal")
    assert (row["tenant"], row["scope"], row["rights"]) == ("tenant-metagate-system", "Cluster", ["witness"])
    moved = CompileSettings(system_namespace="team", cluster_issuer="https://k")
    assert rows(compiled(declared("Principal", "p", spec), settings=moved), "principal")


@pytest.mark.parametrize(
    "change",
    [
        declared("TokenIssuer", "idp", external_issuer(namespaces=["other"]), generation=2),
        declared("TokenIssuer", "older", external_issuer(), age=-1),
        declared("TokenIssuer", "idp", external_issuer("https://renamed", namespaces=["team"]), generation=2),
        declared("TokenIssuer", "cluster", {**CLUSTER_ISSUER, "namespaces": []}, generation=2),
        declared("TokenIssuer", "older", external_issuer(SETTINGS.cluster_issuer), age=-1),
        declared("TokenIssuer", "older", {**CLUSTER_ISSUER, "issuer": IDP}, age=-1),
    ],
)
def test_a_changed_issuer_affects_those_who_rest_on_it(change):
    """Whichever way it loses or gains: its own Principals are compiled again, and nobody is forgotten."""
    before = [
        CLUSTER,
        declared("TokenIssuer", "idp", external_issuer(namespaces=["team"])),
        principal("outsider", (IDP, "x")),
        principal("pod", "sa"),
        principal("keyed", apiKeys=[api_key(1)]),
    ]
    space = world(*before)
    known = compile_world(space, {})
    affected = space.put(change)
    part = compile_world(space, {}, affected)
    full = compile_world(world(*space.objects.values()), {})
    assert {**known.rows, **part.rows} == full.rows
    assert {**known.verdicts, **part.verdicts} == full.verdicts
    assert part.rows != {key: known.rows.get(key) for key in part.rows}
    assert ObjectKey("Principal", "team", "keyed") not in affected


def test_a_tenant_is_an_incarnation_of_a_namespace():
    """Rows carry the namespace's uid (D-46)."""
    space = world(CLUSTER, principal("p", "sa"))
    before = compile_world(space, {})
    again = compile_world(
        space,
        {},
        space.put_namespace(type(space.namespaces["team"])("team", "second", space.namespaces["team"].created)),
    )
    key = ObjectKey("Principal", "team", "p")
    assert [row.values["tenant"] for row in before.rows[key] if row.table == "principal"] == ["tenant-team"]
    assert [row.values["tenant"] for row in again.rows[key] if row.table == "principal"] == ["second"]


# RFC 7517, appendix A.1
EC = {
    "kty": "EC",
    "kid": "k",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}
OKP = {"kty": "OKP", "kid": "k", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


@pytest.mark.parametrize(
    ("jwk", "sound"),
    [
        (OKP, True),
        ({**OKP, "x": "A" * 42 + "B"}, True),
        (EC, True),
        ({**EC, "alg": "ES256", "use": "sig"}, True),
        ({**EC, "use": "enc"}, False),
        ({**EC, "alg": "HS256"}, False),
        ({**EC, "x": "A" * 42}, False),
        ({**EC, "crv": "secp256k1"}, False),
        ({**EC, "d": "A" * 43}, False),
        ({"kty": "oct", "kid": "k", "k": "AAAA"}, False),
        ({"kty": "RSA", "kid": "k", "n": "AQAB", "e": "AQAB"}, False),
        ({**EC, "x": "A" * 43, "y": "A" * 43}, False),
        ({name: value for name, value in EC.items() if name != "kid"}, False),
        ({**EC, "kid": 7}, False),
        ({**EC, "crv": ["P-256"]}, False),
        ({**EC, "alg": ["x"]}, False),
        ({**EC, "kty": ["EC"]}, False),
        ({}, False),
    ],
)
def test_inline_keys_are_public_asymmetric_and_strong(jwk, sound):
    """Everything else is refused without repeating it."""
    jwks = {"source": "Inline", "inline": {"keys": [jwk]}}
    spec = {"issuer": "x", "audiences": ["a"], "algorithms": ["RS256", "ES256", "EdDSA"], "jwks": jwks}
    findings = validate("TokenIssuer", spec)
    assert [item.reason for item in findings] == ([] if sound else [reasons.INVALID_JWK])
    assert all(
        str(value) not in str(findings)
        for name, value in jwk.items()
        if name in {"d", "k", "x", "n"} and len(value) > 8
    )


def test_inline_keys_become_rows_and_other_sources_wait():
    """KeysFresh says which."""
    inline = {
        "issuer": "x",
        "audiences": ["a"],
        "jwks": {"source": "Inline", "inline": {"keys": [{**EC, "x5t": "zz", "alg": "ES256"}]}},
    }
    result = compiled(declared("TokenIssuer", "in", inline), declared("TokenIssuer", "out", external_issuer()))
    assert rows(result, "issuer_key") == [{"issuer": "x", "kid": "k", "jwk": {**EC, "alg": "ES256"}, "alg": "ES256"}]
    assert conditions_of(verdict_of(result, "TokenIssuer", "in"))["KeysFresh"] == ("True", reasons.KEYS_INLINE)
    assert conditions_of(verdict_of(result, "TokenIssuer", "out"))["KeysFresh"] == ("Unknown", reasons.KEYS_AWAITED)
    assert rows(result, "issuer")[0] == {
        "issuer": IDP,
        "name": "out",
        "audiences": ["metagate"],
        "algorithms": ["RS256"],
        "max_token_lifetime_seconds": 3600,
        "source": "URL",
        "url": "https://idp.example.com/jwks",
        "generation": 1,
    }


@pytest.mark.parametrize("algorithm", ["none", "HS256", "HS512", "RS1", "rs256", ""])
def test_algorithms_are_asymmetric_only(algorithm):
    """A symmetric algorithm would turn a public key into a secret."""
    assert validate("TokenIssuer", {**CLUSTER_ISSUER, "algorithms": [algorithm]})


@pytest.mark.parametrize(
    "url", ["http://x/jwks", "https://user@x/jwks", "https://", "file:///etc/passwd", "https://x/a#b", "x"]
)
def test_key_sets_are_fetched_over_https(url):
    """And from nowhere else."""
    assert validate("TokenIssuer", external_issuer(jwks={"source": "URL", "url": url}))


@pytest.mark.parametrize(
    "jwks",
    [
        {},
        {"source": "URL"},
        {"source": "Inline"},
        {"source": "Cluster", "url": "https://x"},
        {"source": "Inline", "inline": {"keys": []}},
        {"source": "Disk"},
    ],
)
def test_a_key_source_is_one_thing(jwks):
    """What belongs to another source is a mistake."""
    assert validate("TokenIssuer", {"issuer": "x", "audiences": ["a"], "jwks": jwks})
