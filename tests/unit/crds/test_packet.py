"""The shared body, the fields of each request, and what must never be served (D-22, D-38, INV-032)."""

import hashlib
import json

import pytest
from tests.unit.crds.worlds import bootable_objects, compiled

from metagate_crds import canonical_json, packet
from metagate_crds.rules.patterns import component_permitted

REQUEST = packet.RequestFields(
    packet_id="0197a0d2-0000-7000-8000-000000000001",
    issued_at="2026-11-21T11:00:00Z",
    principal_key="indexer",
    component_key='indexer_"1"\n',
    startup_id="0197a0d2-0000-7000-8000-000000000002",
    deadline_at="2026-11-21T11:02:00Z",
    revision=7,
    digest="",
    compiled_at="2026-11-21T10:00:00Z",
)
SEED_KEYS = {
    "packet_id", "packet_etag", "issued_at", "principal_key", "component_key", "profile", "manifest", "capabilities",
    "policy", "services", "memory_map", "polling", "schemas", "required_env", "startup",
}  # fmt: skip


def shared():
    ((digest, body),) = compiled(*bootable_objects()).packets.items()
    return digest, body


def request(digest):
    return packet.RequestFields(
        **{name: getattr(REQUEST, name) for name in packet.RequestFields.__slots__} | {"digest": digest}
    )


@pytest.mark.invariant("INV-013", "INV-014")
def test_a_served_packet_has_the_seventeen_keys():
    """The seed's fifteen, environment and snapshot; the startup block as the seed has it."""
    digest, body = shared()
    served = json.loads(packet.splice(body, request(digest)))
    assert set(served) == SEED_KEYS | {"environment", "snapshot"}
    assert served["startup"] == {
        "startup_id": REQUEST.startup_id,
        "status": "OPEN",
        "deadline_at": REQUEST.deadline_at,
        "followup": ["POST /v1/startup/ready", "POST /v1/startup/failed"],
    }
    assert served["snapshot"] == {"revision": 7, "digest": digest, "compiled_at": REQUEST.compiled_at}
    assert served["component_key"] == REQUEST.component_key
    assert {name: served[name] for name in packet.SHARED_FIELDS} == json.loads(body)


@pytest.mark.invariant("INV-018")
def test_the_etag_is_of_digest_principal_and_component():
    """Two components of one principal have two ETags over one body."""
    digest, body = shared()
    expected = hashlib.sha256(f"{digest}\nindexer\nindexer_1".encode()).hexdigest()
    assert packet.etag(digest, "indexer", "indexer_1") == expected
    assert packet.etag(digest, "indexer", "indexer_2") != expected
    assert json.loads(packet.splice(body, request(digest)))["packet_etag"] == packet.etag(
        digest, REQUEST.principal_key, REQUEST.component_key
    )


def test_what_was_compiled_passes_the_check():
    """And its digest is the sha256 of its bytes."""
    digest, body = shared()
    assert packet.check_body(body, digest) is None
    assert digest == hashlib.sha256(body).hexdigest()


@pytest.mark.invariant("INV-032")
@pytest.mark.parametrize(
    "change", [{"deploy": 1}, {"a": [[{"Work-Items": []}]]}, {"workItems": {}}, {"a": {"b": {"TASKS": None}}}]
)
def test_a_stored_packet_with_a_forbidden_key_is_refused(change):
    """Whoever wrote it into the database, with a digest that fits."""
    _, body = shared()
    for section in ("services", "environment", "capabilities"):
        spoiled = canonical_json.canonical({**json.loads(body), section: change})
        assert packet.check_body(spoiled, canonical_json.digest(spoiled)) is packet.BodyDefect.FORBIDDEN_KEY


@pytest.mark.invariant("INV-032")
def test_a_stored_packet_is_what_its_digest_says():
    """Altered bytes, missing or extra keys, and garbage are refused."""
    digest, body = shared()
    assert packet.check_body(body + b" ", digest) is packet.BodyDefect.DIGEST_MISMATCH
    assert packet.check_body(body.replace(b"eu-1", b"us-1"), digest) is packet.BodyDefect.DIGEST_MISMATCH
    whole = json.loads(body)
    for other in (
        canonical_json.canonical({**whole, "startup": {}}),
        canonical_json.canonical({name: whole[name] for name in list(whole)[1:]}),
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
    ):
        assert packet.check_body(other, canonical_json.digest(other)) is packet.BodyDefect.NOT_A_PACKET


def test_the_shared_keys_are_in_canonical_order():
    """So that canonical sections concatenate to a canonical body."""
    assert list(packet.SHARED_FIELDS) == sorted(packet.SHARED_FIELDS)
    assert SEED_KEYS | {"environment"} >= set(packet.SHARED_FIELDS)


@pytest.mark.invariant("INV-008")
@pytest.mark.parametrize(
    ("components", "component", "permitted"),
    [
        ([], "indexer", False),
        (["*"], "anything at all", True),
        (["indexer"], "indexer", True),
        (["indexer"], "indexer_1", False),
        (["indexer"], "Indexer", False),
        (["indexer_*"], "indexer_1", True),
        (["indexer_*"], "indexer_", True),
        (["indexer_*"], "indexer", False),
        (["a", "b*"], "bc", True),
        (["a.c"], "abc", False),
        (["in?exer"], "indexer", False),
    ],
)
def test_components_are_exact_keys_or_prefixes(components, component, permitted):
    """Nothing in a pattern is special but a star at its end (D-16)."""
    assert component_permitted(components, component) is permitted


def test_canonical_json_is_rfc_8785():
    """The RFC's own example, and members joined give the same bytes as the whole."""
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical_json.canonical(value).decode() == expected
    odd = {"\U0001f600": 1, "\ufb33": 2, "z": {"b": 1, "a": 2}, "é": 3}
    assert canonical_json.join_members(canonical_json.encode_members(odd)) == canonical_json.canonical(odd)
