"""What looks like a secret is refused by path, and its text appears nowhere (D-15, INV-033, INV-034)."""

import base64
import hashlib
import json
import time

import pytest
from tests.unit.crds.worlds import MANIFEST, all_messages, bootable_objects, compiled, declared, rows

from legivellum.identity.shared_secret import SharedSecret
from metagate_crds import reasons
from metagate_crds.rules import secret_detection
from metagate_crds.validation import validate

# Put together here, so that scanners of this repository find nothing.
CANARIES = {
    "aws": "AKIA" + "IOSFODNN7EXAMPLE",
    "github": "gh" + "p_" + "a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7H8",
    "slack": "xo" + "xb-123456789012-abcdefghij",
    "stripe": "sk_" + "live_" + "a1b2c3d4e5f6g7h8i9j0k1l2",
    "own": "mg" + "k_0123456789_" + "aB3" * 16 + "z",
    "url": "postgres://app:hunter2" + "@db:5432/app",
    "url without a user": "redis://:hunter2" + "@cache:6379",
    "dsn": "host=db user=app pass" + "word=hunter2",
    "query": "https://api.example.com/x?api_" + "key=hunter2hunter2",
    "pem": "-----BEGIN RSA PRIV" + "ATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIV" + "ATE KEY-----",
    "jwt": ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": "1234567890", "name": "x"})
    )
    + ".SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV",
    "random": "x7Kq9ZpL2mVw8RtYb4NcD6Hs1JgF3aEuQ0",
    "hex": "9f86d081884c7d659a2feaa0c55ad015",
}

ORDINARY = [
    "http://memorygate:8001",
    "http://memorygate.team-a.svc.cluster.local:8001/inbox?wait=5s&limit=100",
    "https://kubernetes.default.svc.cluster.local",
    "amqp://broker.example.com:5672/%2Fvhost",
    "postgres://db.example.com:5432/app?sslmode=verify-full",
    "postgres://app:$(DB_PASSWORD)@db:5432/app",
    "urn:legivellum:receipt:1.1",
    "system:serviceaccount:team-a:indexer",
    "2026-11-21T11:30:00Z",
    "1.27.3-rc.1+build.20261121",
    "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    "ghcr.io/legivellum/metagate:v1.2.3",
    "123e4567-e89b-12d3-a456-426614174000",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "ReadWriteMany/PersistentVolumeClaims-foo-bar",
    "APACHEKAFKACLUSTER",
    "kubernetes/v1/namespaces/metagate/services/indexer",
    "The quick brown fox jumps over the lazy dog; tokens are counted, passwords are not.",
    "arn:aws:iam::123456789012:role/indexer",
    "CN=indexer,OU=Agents,O=Example Corporation,C=DE",
    "doc.*",
    "payload.size() < 100 && token.audience == 'metagate'",
]


@pytest.mark.invariant("INV-033", "INV-034")
@pytest.mark.parametrize("name", CANARIES)
def test_a_value_that_looks_like_a_secret_is_refused_wherever_it_stands(name):
    """The finding names the path and never the text, in values, lists and keys alike."""
    canary = CANARIES[name]
    for kind, spec, path in (
        ("Profile", {"capabilities": {"a": {"b": [canary]}}}, "spec.capabilities.a.b[0]"),
        ("Manifest", {"environment": {"a": canary}}, "spec.environment.a"),
        ("Manifest", {"services": {"a": {"endpoint": "x", "metadata": {"b": canary}}}}, "spec.services.a.metadata.b"),
        ("PrincipalBinding", {"overrides": {"policy": {"a": canary}}}, "spec.overrides.policy.a"),
    ):
        findings = [item for item in validate(kind, spec) if item.reason == reasons.SECRET_VALUE]
        assert [item.path for item in findings] == [path]
        assert canary not in str(findings)
        assert "hunter2" not in str(findings)


@pytest.mark.invariant("INV-034")
def test_a_key_that_looks_like_a_secret_is_refused_and_not_shown():
    """Somebody who pastes a secret on the wrong side of the colon must not find it in a status."""
    findings = validate("Profile", {"capabilities": {CANARIES["aws"]: {"deploy": 1}}})
    assert {item.reason for item in findings} == {reasons.SECRET_VALUE, reasons.FORBIDDEN_KEY}
    assert CANARIES["aws"] not in str(findings)


@pytest.mark.invariant("INV-034")
def test_an_unknown_field_that_is_a_secret_is_not_shown():
    """The schema's findings mask as the rules' do."""
    assert CANARIES["github"] not in str(validate("Principal", {CANARIES["github"]: "x"}))


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_no_secret(text):
    """Endpoints, urns, versions, digests, ids and prose pass."""
    assert validate("Manifest", {"environment": {"about": text, "more": [text]}}) == ()


@pytest.mark.parametrize("key", ["commit", "imageDigest", "sha256", "git_revision", "etag", "trace_id", "version"])
def test_digests_pass_under_names_that_say_digest(key):
    """A hex digest is public, and its name says what it is."""
    assert validate("Manifest", {"environment": {key: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"}}) == ()


@pytest.mark.invariant("INV-033")
@pytest.mark.parametrize(
    "key", ["password", "dbPassword", "DB_PASSWD", "api-key", "apiKey", "client_secret", "token", "privateKey"]
)
def test_a_name_that_says_secret_holds_no_text(key):
    """Short secrets have no shape, so their names decide; structures and switches under such names are fine."""
    assert [item.reason for item in validate("Manifest", {"environment": {key: "x"}})] == [reasons.SECRET_VALUE]
    assert [item.path for item in validate("Manifest", {"environment": {key: ["x"]}})] == [f"spec.environment.{key}[0]"]
    assert validate("Manifest", {"environment": {key: True, "a": {key: {"required": True}}, "b": {key: ""}}}) == ()


@pytest.mark.parametrize(
    "key", ["tokenUrl", "passwordFile", "secretRef", "max_tokens", "token_endpoint", "keys", "keyboard"]
)
def test_a_name_that_only_mentions_secrets_may_hold_text(key):
    """References and limits are what people should write instead."""
    assert validate("Manifest", {"environment": {key: "x"}}) == ()
    assert validate("Manifest", {"environment": {key: 4096}}) == ()


def test_a_number_under_a_password_is_a_secret():
    """A PIN is short, numeric, and a secret."""
    assert validate("Manifest", {"environment": {"password": 1234}})[0].reason == reasons.SECRET_VALUE


def test_a_list_of_names_and_values_is_read_as_pairs():
    """The form that environment variables have in a pod."""
    findings = validate(
        "Manifest", {"environment": {"vars": [{"name": "DB_PASSWORD", "value": "x"}, {"name": "A", "value": "x"}]}}
    )
    assert [item.path for item in findings] == ["spec.environment.vars[0].value"]


@pytest.mark.invariant("INV-033")
def test_a_secret_reference_defaults_to_env_and_never_holds_a_value():
    """`kind` may be left out, inline is refused, and so is every field that could hold a value."""
    result = compiled(*bootable_objects())
    packet = json.loads(next(iter(result.packets.values())))
    assert packet["required_env"] == [{"name": "db", "ref_kind": "Env", "ref_name": "DB_PASSWORD", "required": True}]
    for wrong in (
        {"kind": "Inline"},
        {"kind": "inline"},
        {"kind": "env"},
        {"value": "hunter2"},
        {"inline": "hunter2"},
        {"data": {"x": "hunter2"}},
        {"default": "hunter2"},
    ):
        findings = validate("Profile", {"secretRefs": [{"name": "db", "ref": "DB", **wrong}]})
        assert reasons.INLINE_SECRET in {item.reason for item in findings}
        assert "hunter2" not in str(findings)


@pytest.mark.parametrize("ref", ["DB-PASSWORD", "1DB", "a b", "", "$(X)", "DB_PASSWORD=hunter2"])
def test_an_env_reference_is_the_name_of_a_variable(ref):
    """Anything else might be the value itself."""
    findings = validate("Profile", {"secretRefs": [{"name": "db", "ref": ref}]})
    assert findings
    assert "hunter2" not in str(findings)


@pytest.mark.parametrize("ref", ["relative", "/run/../etc/passwd", "/with space", "C:\\x"])
def test_a_file_reference_is_an_absolute_path(ref):
    """And does not climb."""
    assert validate("Profile", {"secretRefs": [{"name": "db", "kind": "File", "ref": ref}]})
    assert validate("Profile", {"secretRefs": [{"name": "db", "kind": "File", "ref": "/run/secrets/db"}]}) == ()


@pytest.mark.invariant("INV-034")
def test_no_canary_reaches_rows_packets_or_conditions():
    """A world full of secrets compiles to nothing that repeats them."""
    broken = declared("Manifest", "prod", {**MANIFEST, "environment": dict(CANARIES)}, generation=2)
    objects = [broken if item.key == broken.key else item for item in bootable_objects()]
    result = compiled(*objects)
    shown = all_messages(result) + json.dumps(rows(result, "resource")) + str(result.packets)
    for canary in (*CANARIES.values(), "hunter2"):
        assert canary not in shown


@pytest.mark.parametrize("name", CANARIES)
def test_redaction_replaces_what_was_found_and_keeps_the_rest(name):
    """Errors that components report stay readable without their secrets (D-43)."""
    text = f"cannot connect: {CANARIES[name]} refused"
    shown = secret_detection.redact({"error": text, "list": [text], "ok": "plain"})
    assert CANARIES[name] not in str(shown)
    assert "hunter2" not in str(shown)
    assert "cannot connect" in shown["error"]
    assert shown["ok"] == "plain"
    assert secret_detection.REDACTED in shown["error"]


def test_redaction_covers_names_and_leaves_other_values():
    """Values under secret names go, whatever they look like."""
    assert secret_detection.redact({"password": "x", "pin": 1234, "n": 5, "token": True, "t": None}) == {
        "password": secret_detection.REDACTED,
        "pin": secret_detection.REDACTED,
        "n": 5,
        "token": True,
        "t": None,
    }


@pytest.mark.parametrize(
    "hostile",
    [
        "eyJ" * 20_000,
        "//" * 30_000 + ":_authToken",
        "sk-" * 20_000 + "T3BlbkFJ",
        "key" + " " * 60_000,
        "://" + ":" * 60_000,
        "BEGIN " * 10_000,
        "a" * 65_000,
        "cl-token " * 7_000,
    ],
    ids=lambda text: text[:10],
)
def test_no_text_makes_the_search_slow(hostile):
    """Texts made for the patterns' weak spots are answered in well under a second."""
    started = time.process_time()
    secret_detection.looks_secret(hostile)
    secret_detection.redact(hostile)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    "around", ["cannot log in with {}", "Bearer {}, again", "token%20{}", '{{"jwt":"{}"}}', "{}x", "{}."]
)
def test_no_part_of_a_token_is_left(around: str) -> None:
    """Whatever its signature looks like: words of it can be as plain as a name."""
    for number in range(300):
        secret = hashlib.sha256(f"{around}{number}".encode()).digest()
        token = SharedSecret(issuer="metagate", secret=secret).mint("system:serviceaccount:team:pod", now=1.8e9)
        left = secret_detection.redact(around.format(token))
        assert not any(part in left for part in token.split(".")), left
