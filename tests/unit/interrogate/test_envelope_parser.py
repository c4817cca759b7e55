"""The body of a request for admission: what is an envelope, and what is refused before anything is decided."""

import hashlib
import json
from typing import Any

import pytest
from tests.unit.interrogate.requests import ABSENT, CAUSE, CHILD, ROOT, envelope_from, merged

from interrogate.envelope import NOT_SENT
from interrogate.envelope_parser import parse_envelope
from legivellum.http.problems import RequestRefused


def refusal(changes: dict[str, Any] | bytes) -> str:
    raw = changes if isinstance(changes, bytes) else json.dumps(merged(CHILD, changes)).encode()
    with pytest.raises(RequestRefused) as refused:
        parse_envelope(raw)
    assert refused.value.problem.status in {400, 422}
    return refused.value.problem.code.name


@pytest.mark.invariant("INV-097")
@pytest.mark.parametrize("name", ["tenant_id", "surface_id", "policy_profile_id"])
@pytest.mark.parametrize("value", [ABSENT, None, "", " \t", 7, True, ["public"], {"a": 1}, "a\nb", "x" * 254])
def test_a_domain_that_is_not_named_is_never_inferred(name: str, value: Any) -> None:
    """Whatever else the request says."""
    assert refusal({name: value}) == "NO_DOMAIN"


@pytest.mark.invariant("INV-098")
def test_an_envelope_carries_domain_kind_and_lineage() -> None:
    envelope = envelope_from(
        CHILD, {"target": "docs", "artifact_bytes": 12, "causality": {"recursion_budget_remaining": 3}}
    )
    assert (envelope.tenant_id, envelope.surface_id, envelope.policy_profile_id) == ("team-a", "public", "front-desk")
    assert (envelope.payload_kind, envelope.payload) == ("plan_request", {"text": "read"})
    assert (envelope.target, envelope.artifact_bytes) == ("docs", 12)
    causality = envelope.causality
    assert causality.as_sent == merged(CHILD["causality"], {"recursion_budget_remaining": 3})
    assert (causality.root_task_id, causality.parent_task_id) == ("root-1", "parent-1")
    assert (causality.caused_by_receipt_id, causality.spawn_depth) == (CAUSE, 3)
    assert (causality.recursion_budget_remaining, causality.task_id) == (3, NOT_SENT)


@pytest.mark.invariant("INV-112")
@pytest.mark.parametrize(
    "payload",
    [
        b'{"b": 1,  "a":[1.0, 1e2, -0]}',
        b'"\\u00e9\\ud83d\\ude00"',
        "[\"é😀\", 'x']".replace("'", '"').encode(),
        b"null",
        b"[ ]",
        b"0.10",
        b'{"payload": {"payload": "}"}}',
        b'"a \\" quoted } , brace"',
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_a_payload_is_kept_byte_for_byte(payload: bytes, before: bool) -> None:
    """Whatever its spelling of numbers, text and white space, and wherever it stands in the body."""
    rest = json.dumps({name: value for name, value in ROOT.items() if name != "payload"}).encode()
    member = b'"p\\u0061yload" :\n\t' + payload
    raw = b"{ " + member + b" ,\r\n" + rest[1:] if before else b" " + rest[:-1] + b",\n" + member + b" } "
    envelope = parse_envelope(raw)
    assert envelope.payload_bytes == payload
    assert envelope.payload_sha256 == hashlib.sha256(payload).hexdigest()
    assert envelope.payload == json.loads(payload)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"7",
        b'{"payload": 1, "payload": 1}',
        b'{"payload": {"a": 1, "a": 2}}',
        b'{"payload": NaN}',
        b'{"payload": "\\ud800"}',
        b'{"payload": "\\u0000"}',
        b'{"payload": ' + b"[" * 33 + b"]" * 33 + b"}",
        b'{"payload": ' + b"[" * 100_000,
        b'\xef\xbb\xbf{"payload": 1}',
        b'{"payload": "\xff"}',
        b'{"payload": {' + b",".join(b'"%d":1' % number for number in range(1001)) + b"}}",
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_what_has_no_single_reading_is_refused(raw: bytes) -> None:
    assert refusal(raw) in {"MALFORMED_JSON", "JSON_TOO_DEEP", "JSON_TOO_MANY_KEYS", "INVALID_REQUEST"}


@pytest.mark.parametrize(
    "changes",
    [
        {"forward_to": "http://elsewhere"},
        {"causality": {"priority": 1}},
        {"causality": None},
        {"causality": []},
        {"payload_kind": None},
        {"payload_kind": 7},
        {"payload_kind": " plan"},
        {"payload_kind": "tool_call"},
        {"target": None},
        {"target": {"url": "http://elsewhere"}},
        {"artifact_bytes": -1},
        {"artifact_bytes": 1.0},
        {"artifact_bytes": True},
        {"artifact_bytes": 2**53},
        {"causality": {"root_task_id": None}},
        {"causality": {"root_task_id": 7}},
        {"causality": {"root_task_id": ""}},
        {"causality": {"root_task_id": "NA"}},
        {"causality": {"root_task_id": "x" * 201}},
        {"causality": {"parent_task_id": 7}},
        {"causality": {"parent_task_id": False}},
        {"causality": {"caused_by_receipt_id": CAUSE.lower()}},
        {"causality": {"caused_by_receipt_id": "8" + CAUSE[1:]}},
        {"causality": {"caused_by_receipt_id": 7}},
        {"causality": {"spawn_depth": "3"}},
        {"causality": {"spawn_depth": 3.0}},
        {"causality": {"spawn_depth": True}},
        {"causality": {"capability_id": None}},
        {"causality": {"capability_id": "é" * 101}},
        {"causality": {"recursion_budget_remaining": None}},
        {"causality": {"recursion_budget_remaining": "5"}},
        {"causality": {"recursion_budget_remaining": -(2**53)}},
        {"causality": {"task_id": None}},
        {"causality": {"task_id": "a\nb"}},
    ],
    ids=str,
)
def test_a_member_that_is_unknown_or_of_a_wrong_type_is_refused(changes: dict[str, Any]) -> None:
    """Nothing is dropped silently, and no receipt could hold some of these."""
    assert refusal(changes) == "INVALID_REQUEST"


def test_a_retry_has_the_same_digest_and_another_request_has_not() -> None:
    """The order of members and white space between them are no difference; the bytes of the payload are."""
    envelope = envelope_from(CHILD)
    reordered = json.dumps(dict(reversed(CHILD.items())), indent=1).encode()
    payload = json.dumps(CHILD["payload"]).encode()
    pretty = json.dumps(CHILD["payload"], indent=2).encode()
    assert parse_envelope(json.dumps(dict(reversed(CHILD.items()))).encode()).digest == envelope.digest
    assert parse_envelope(reordered).digest != envelope.digest
    assert parse_envelope(json.dumps(CHILD).encode().replace(payload, pretty)).digest != envelope.digest
    assert envelope_from(CHILD, {"target": "docs"}).digest != envelope.digest
    # The digest that stands for a payload is no payload, and a payload that is absent is not null.
    assert envelope_from(CHILD, {"payload": envelope.payload_sha256}).digest != envelope.digest
    assert len({envelope_from(CHILD, {"payload": value}).digest for value in (ABSENT, None, "", {})}) == 4


def test_null_is_a_payload() -> None:
    envelope = envelope_from(ROOT, {"payload": None})
    assert (envelope.payload, envelope.payload_bytes) == (None, b"null")
    absent = envelope_from(ROOT, {"payload": ABSENT})
    assert (absent.payload, absent.payload_bytes) == (NOT_SENT, b"")
    assert absent.payload_sha256 == hashlib.sha256(b"").hexdigest()
