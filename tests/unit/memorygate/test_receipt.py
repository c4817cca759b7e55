"""The field table and the phase rules: what passes, what is refused, and that every bad field is named at once."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from legivellum.base.canonical_json import Uncanonical, canonical, digest
from legivellum.receipts import schema_v1
from legivellum.receipts.receipt import OPTIONAL_IN_A_REQUEST, Draft, Receipt, examine, form_of
from legivellum.receipts.rights import MATRIX, PHASES, ROLES, Kind, Right, right_to_emit, role_of
from legivellum.receipts.templates import placeholders, template_of

DOCS = Path(__file__).parents[3] / "docs" / "memorygate"
ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
TENANT = "00000000-0000-4000-8000-000000000001"
ACCEPTED = {"receipt_id": ULID, "task_id": "t", "phase": "accepted", "principal_ai": "alice"}
COMPLETE = {
    **ACCEPTED,
    "phase": "complete",
    "status": "success",
    "outcome_kind": "none",
    "completed_at": "2027-01-01T00:00:00Z",
}
ESCALATE = {
    **ACCEPTED,
    "phase": "escalate",
    "escalation_class": "policy",
    "escalation_reason": "not mine",
    "escalation_to": "bob",
}


def look(body: dict[str, Any]) -> Receipt | set[str]:
    """The receipt, or the names of its bad fields."""
    examined = examine(body, tenant=TENANT, emitter="alice")
    return examined if isinstance(examined, Receipt) else {finding.path for finding in examined}


@pytest.mark.parametrize("body", [ACCEPTED, COMPLETE, ESCALATE])
def test_the_smallest_receipt_of_each_phase_passes(body: dict[str, Any]):
    """With what its phase asks for and nothing else."""
    assert isinstance(look(body), Receipt)


@pytest.mark.invariant("INV-043")
@pytest.mark.parametrize("name", ["receipt_id", "task_id", "phase", "principal_ai"])
@pytest.mark.parametrize("value", [..., "", "  ", None, 7])
def test_a_mandatory_field_that_is_missing_or_blank_is_named(name: str, value: object):
    """Dropped, empty, blank, null or of another type."""
    body = {key: item for key, item in ACCEPTED.items() if key != name}
    if value is not ...:
        body[name] = value
    assert look(body) == {name}


@pytest.mark.invariant("INV-043", "INV-046")
def test_tenant_and_emitter_come_from_the_credential_when_omitted():
    """D-36: omitted they are filled in; blank or NA they are refused."""
    receipt = look(ACCEPTED)
    assert isinstance(receipt, Receipt)
    assert (receipt.fields["tenant_id"], receipt.fields["emitter"]) == (TENANT, "alice")
    assert look({**ACCEPTED, "tenant_id": "NA", "emitter": ""}) == {"tenant_id", "emitter"}


@pytest.mark.invariant("EXT-16")
@pytest.mark.parametrize("word", ["NA", "na", "N/A", "TBD", "tbd", "", " ", "\t", " x", "a\nb", "a\x00b"])
@pytest.mark.parametrize("name", ["receipt_id", "task_id", "emitter", "principal_ai", "recipient_ai", "obligation_id"])
def test_placeholders_are_not_names(name: str, word: str):
    """Who and what must be real."""
    assert look({**ACCEPTED, name: word}) == {name}


@pytest.mark.invariant("INV-043")
@pytest.mark.parametrize(
    "value", ["01ARZ3NDEKTSV4RRFFQ69G5FA", ULID + "A", "8" + ULID[1:], ULID.lower(), "U" * 26, "I" + ULID[1:]]
)
def test_what_is_not_a_canonical_ulid_is_refused(value: str):
    """Too short, too long, beyond 128 bits, lower case, letters that Crockford left out."""
    assert look({**ACCEPTED, "receipt_id": value}) == {"receipt_id"}


@pytest.mark.invariant("INV-044")
@pytest.mark.parametrize("kind", list(Kind))
def test_each_kind_has_its_own_phases(kind: Kind):
    """Every phase of another kind, and every invented one, is refused by name."""
    known = {phase for phases in PHASES.values() for phase in phases}
    for phase in known - set(PHASES[kind]) | {"cancel", "ACCEPTED", "progress"}:
        assert look({**ACCEPTED, "kind": kind.value, "phase": phase}) == {"phase"}, phase


@pytest.mark.invariant("EXT-15")
def test_an_escalation_goes_to_whom_it_names():
    """recipient_ai is escalation_to, said or implied."""
    receipt = look(ESCALATE)
    assert isinstance(receipt, Receipt)
    assert receipt.fields["recipient_ai"] == "bob"
    assert look({**ESCALATE, "recipient_ai": "carol"}) == {"recipient_ai"}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({**ACCEPTED, "status": "success"}, {"status"}),
        ({**ACCEPTED, "outcome_kind": "none"}, {"outcome_kind"}),
        ({**ACCEPTED, "outcome_text": "done"}, {"outcome_text"}),
        ({**ACCEPTED, "artifact_pointer": "depot:1"}, {"artifact_pointer"}),
        ({**ACCEPTED, "completed_at": "2027-01-01T00:00:00Z"}, {"completed_at"}),
        ({**ACCEPTED, "escalation_to": "bob", "escalation_class": "owner"}, {"escalation_to", "escalation_class"}),
        ({**ACCEPTED, "phase": "complete"}, {"status", "outcome_kind", "completed_at"}),
        ({**COMPLETE, "outcome_kind": "response_text"}, {"outcome_text"}),
        (
            {**COMPLETE, "outcome_kind": "mixed"},
            {"outcome_text", "artifact_pointer", "artifact_location", "artifact_mime"},
        ),
        ({**COMPLETE, "outcome_text": "x", "artifact_mime": "a/b"}, {"outcome_text", "artifact_mime"}),
        ({**COMPLETE, "escalation_reason": "why"}, {"escalation_reason"}),
        ({**ACCEPTED, "phase": "escalate"}, {"escalation_class", "escalation_reason", "escalation_to"}),
        ({**ESCALATE, "status": "failure"}, {"status"}),
    ],
)
def test_a_phase_names_every_field_that_breaks_it(body: dict[str, Any], named: set[str]):
    """The phase rules of docs/memorygate/receipts.md."""
    assert look(body) == named


def test_every_bad_field_is_named_at_once():
    """Types, sizes, unknown fields and phase rules in one refusal."""
    body = {
        "receipt_id": "x", "phase": "complete", "attempt": "1", "principal_ai": "TBD", "surprise": 1, "inputs": "x" * 70_000,
        "created_at": "yesterday", "metadata": [], "retry_requested": "no",
    }  # fmt: skip
    assert look(body) == {
        "receipt_id", "task_id", "attempt", "principal_ai", "surprise", "inputs", "created_at", "metadata",
        "retry_requested", "status", "outcome_kind", "completed_at",
    }  # fmt: skip


@pytest.mark.invariant("EXT-17", "INV-054")
@pytest.mark.parametrize("name", ["stored_at", "archived_at", "read_at"])
def test_the_ledgers_own_clock_cannot_be_sent(name: str):
    """A client's stored_at, archived_at or read_at is refused and named."""
    assert look({**ACCEPTED, name: "2027-01-01T00:00:00Z"}) == {name}


@pytest.mark.invariant("INV-048")
@pytest.mark.parametrize(
    ("name", "most"), [("task_body", 100), ("inputs", 64), ("outcome_text", 64), ("metadata", 16), ("body", 64)]
)
def test_sizes_are_bytes_and_bound(name: str, most: int):
    """One byte more than the limit is refused, counted in UTF-8 of the canonical form."""

    def sized(size: int) -> object:
        return {"k": "x" * (size - 8)} if name == "metadata" else "x" * size

    base = {**COMPLETE, "outcome_kind": "response_text", "outcome_text": "x"}
    assert isinstance(look({**base, name: sized(most * 1024)}), Receipt)
    assert look({**base, name: sized(most * 1024 + 1)}) == {name}
    assert look(
        {**base, name: "ü" * (most * 512 + 1)} if name != "metadata" else {**base, name: {"k": "ü" * most * 512}}
    ) == {name}


@pytest.mark.invariant("INV-048")
@pytest.mark.parametrize("name", ["artifact_pointer", "artifact_location"])
def test_a_data_uri_is_an_artifact_and_not_a_pointer(name: str):
    """Embedding is refused however it is spelt."""
    body = {**COMPLETE, "outcome_kind": "artifact_pointer", "artifact_pointer": "depot:1", "artifact_location": "depot",
            "artifact_mime": "text/plain"}  # fmt: skip
    assert isinstance(look(body), Receipt)
    assert look({**body, name: "DATA:text/plain;base64,AAAA"}) == {name}


@pytest.mark.parametrize(
    "value",
    ["2027-01-01", "2027-01-01T00:00:00", "2027-02-30T00:00:00Z", "2027-01-01T25:00:00Z", "2027-01-01 00:00:00Z", 1],
)
def test_a_time_has_its_offset_and_exists(value: object):
    """RFC 3339, nothing looser."""
    assert look({**ACCEPTED, "created_at": value}) == {"created_at"}


@pytest.mark.parametrize("value", [2**53, -(2**53), 1e400, float("nan"), "\ud800"])
def test_what_has_no_canonical_form_is_refused(value: object):
    """Numbers that a double does not hold, and text that is not Unicode, by the name of their field."""
    assert look({**ACCEPTED, "body": {"deep": [value]}}) == {"body"}


def test_a_refusal_never_repeats_what_was_sent():
    """Findings name fields, not values."""
    secret = "hunter2-hunter2"
    fields = dict.fromkeys(Draft.model_fields, secret) | {"receipt_id": secret}
    refusal = examine(fields, tenant=TENANT, emitter="alice")
    assert not isinstance(refusal, Receipt)
    assert secret not in " ".join(map(str, refusal))


def test_absent_and_null_are_one_form():
    """A receipt that spells out its defaults is the same receipt."""
    short = look(ACCEPTED)
    assert isinstance(short, Receipt)
    spelt = look({**short.fields, "task_summary": None})
    assert isinstance(spelt, Receipt)
    assert spelt.form == short.form
    assert json.loads(short.form) == {name: value for name, value in short.fields.items() if value is not None}
    assert form_of(short.fields, without={"receipt_id"}) != short.form


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON)
def test_the_quick_encoder_writes_rfc_8785(value: Any):
    """For every JSON value the canonical form is that of the reference implementation, or cannot be read back as it was."""
    try:
        form = canonical(value, round_trip=True)
    except Uncanonical:
        with pytest.raises(rfc8785.CanonicalizationError):
            rfc8785.dumps(json.loads(rfc8785.dumps(value)))
    else:
        assert form == rfc8785.dumps(value)


KNOWN = [*Draft.model_fields, *schema_v1.RENAMED, *schema_v1.KEPT_IN_BODY, *schema_v1.SERVER_TIMES, "x"]


@given(
    body=st.dictionaries(st.sampled_from(KNOWN), JSON),
    base=st.sampled_from([ACCEPTED, COMPLETE, ESCALATE, {}]),
)
def test_whatever_is_sent_is_a_receipt_or_findings(body: dict[str, Any], base: dict[str, Any]):
    """No body raises; a receipt that passes has a form that hashes to itself when read back."""
    examined = examine({**base, **body}, tenant=TENANT, emitter="alice")
    if isinstance(examined, Receipt):
        assert digest(canonical(json.loads(examined.form))) == digest(examined.form)
        again = examine(json.loads(examined.form), tenant=TENANT, emitter="alice")
        assert isinstance(again, Receipt)
        assert again.form == examined.form
    else:
        assert examined
        assert {finding.path.partition(".")[0] for finding in examined} <= set(KNOWN)


@pytest.mark.parametrize("number", [9007199254740992.0, -9007199254740992.0, 1e20])
def test_a_number_that_would_be_read_back_as_another_is_a_finding(number: float):
    """A double that is written as an integer beyond 2^53 has no form that can be verified; from 10^21 on it has."""
    examined = examine({**ACCEPTED, "metadata": {"n": [number]}}, tenant=TENANT, emitter="alice")
    assert not isinstance(examined, Receipt)
    assert isinstance(examine({**ACCEPTED, "metadata": {"n": [1e21]}}, tenant=TENANT, emitter="alice"), Receipt)


@pytest.mark.invariant("INV-040", "INV-045")
def test_the_witness_emits_startups_and_published_and_nothing_else():
    """The right replaces the type, whatever that is (D-34)."""
    may = {
        (kind, phase)
        for kind in Kind
        for phase in PHASES[kind]
        if right_to_emit("witness", kind, phase) is not Right.NONE
    }
    assert may == {(Kind.STARTUP, phase) for phase in PHASES[Kind.STARTUP]} | {(Kind.LIFECYCLE, "published")}
    assert {role_of(kind, ["witness"]) for kind in ("principal", "admin", "delegate")} == {"witness"}
    for role in set(ROLES) - {"witness"}:
        assert all(right_to_emit(role, Kind.STARTUP, phase) is Right.NONE for phase in PHASES[Kind.STARTUP])
        assert right_to_emit(role, Kind.LIFECYCLE, "published") is Right.NONE


def test_an_observer_and_an_unknown_role_emit_nothing():
    """Looking on is no right to speak."""
    for role in ("observer", "emperor"):
        assert all(right_to_emit(role, kind, phase) is Right.NONE for kind in Kind for phase in PHASES[kind])


@pytest.mark.invariant("INV-045")
def test_the_documented_matrix_is_the_matrix():
    """docs/memorygate/rights.md says what the code does, cell by cell."""
    text = (DOCS / "rights.md").read_text(encoding="utf-8")
    heads, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    documented = {
        (role, Kind(line[0].split("/")[0]), line[0].split("/")[1]): cell
        for line in lines[1:]
        for role, cell in zip(heads[1:], line[1:], strict=True)
    }
    assert documented == {key: right.value for key, right in MATRIX.items()}


def test_the_documented_fields_are_the_fields():
    """docs/memorygate/receipts.md lists every field with its default."""
    text = (DOCS / "receipts.md").read_text(encoding="utf-8").partition("## Phases")[0]
    documented = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]*?) \|", text, re.MULTILINE))
    expected = {}
    for name, field in Draft.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if name in OPTIONAL_IN_A_REQUEST:
            expected[name] = "from the credential"
        elif field.is_required():
            expected[name] = "required"
        else:
            expected[name] = {"obligation_id": "`task_id`", "for_principal": "`principal_ai`",
                              "recipient_ai": "`emitter`; escalate: `escalation_to`"}.get(name, f"`{json.dumps(default)}`")  # fmt: skip
    assert documented == expected


V1 = {
    "schema_version": "1.1", "tenant_id": TENANT, "receipt_id": ULID, "task_id": "t", "obligation_id": "o",
    "parent_task_id": "NA", "caused_by_receipt_id": "NA", "dedupe_key": "NA", "attempt": 0, "from_principal": "alice",
    "for_principal": "bob", "source_system": "alice", "recipient_ai": "bob", "trust_domain": "NA", "phase": "accepted",
    "status": "NA", "realtime": False, "task_type": "NA", "task_summary": "Draft it", "task_body": "NA", "inputs": {},
    "expected_outcome_kind": "artifact_pointer", "expected_artifact_mime": "application/json", "outcome_kind": "NA",
    "outcome_text": "NA", "artifact_location": "NA", "artifact_pointer": "NA", "artifact_checksum": "NA",
    "artifact_size_bytes": 0, "artifact_mime": "NA", "artifact_refs": ["depot:1"], "escalation_class": "NA",
    "escalation_reason": "NA", "escalation_to": "NA", "retry_requested": False, "body": {"note": "x"},
    "created_at": "2026-01-04T17:00:00Z", "stored_at": None, "started_at": None, "completed_at": None, "read_at": None,
    "archived_at": None, "metadata": {},
}  # fmt: skip


def test_a_receipt_of_schema_v1_is_taken_as_it_is():
    """All 43 fields (D-69): renamed, emptied or kept in the body; what is stored reads back as the same receipt."""
    assert len(V1) == 43
    receipt = look(V1)
    assert isinstance(receipt, Receipt), receipt
    assert json.loads(receipt.form) == {
        "attempt": 0, "created_at": "2026-01-04T17:00:00Z", "emitter": "alice", "escalation_class": "NA",
        "for_principal": "bob", "inputs": {}, "kind": "obligation", "metadata": {}, "obligation_id": "o",
        "outcome_kind": "NA", "phase": "accepted", "principal_ai": "alice", "receipt_id": ULID, "recipient_ai": "bob",
        "retry_requested": False, "status": "NA", "task_id": "t", "task_summary": "Draft it", "tenant_id": TENANT,
        "body": {
            "note": "x", "schema_version": "1.1", "realtime": False, "expected_outcome_kind": "artifact_pointer",
            "expected_artifact_mime": "application/json", "artifact_refs": ["depot:1"],
        },
    }  # fmt: skip
    again = look(json.loads(receipt.form))
    assert isinstance(again, Receipt)
    assert again.form == receipt.form


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"emitter": "bob"}, {"source_system"}),
        ({"principal_ai": "bob"}, {"from_principal"}),
        ({"body": {"realtime": True}}, {"realtime"}),
        ({"body": "text"}, {"body"}),
        ({"schema_version": "2.0"}, {"schema_version"}),
        ({"schema_version": 1}, {"schema_version"}),
        ({"stored_at": "2026-01-04T17:00:00Z"}, {"stored_at"}),
        ({"receipt_id": "NA"}, {"receipt_id"}),
        ({"recipient_ai": "NA"}, {"recipient_ai"}),
        ({"from_principal": "NA"}, {"principal_ai"}),
        ({"task_summary": "TBD"}, {"task_summary"}),
        ({"stored_at": {}, "realtime": []}, {"stored_at"}),
        ({"phase": "complete"}, {"status", "outcome_kind", "completed_at"}),
    ],
)
def test_what_contradicts_itself_in_schema_v1_is_named(changed: dict[str, Any], named: set[str]):
    """Nothing is decided for the emitter (D-07); the phase rules are those of every receipt."""
    assert look({**V1, **changed}) == named


@pytest.mark.invariant("EXT-16")
@pytest.mark.parametrize("summary", ["TBD", "tbd", " TBD ", "N/A", "none", "", " ", "\t"])
def test_an_accepted_receipt_says_what_the_work_is(summary: str):
    """A placeholder in a summary is refused where an inbox would show it, and nowhere else."""
    assert look({**ACCEPTED, "task_summary": summary}) == {"task_summary"}
    if summary.isprintable():
        assert isinstance(look({**COMPLETE, "task_summary": summary}), Receipt)


@pytest.mark.parametrize("text", ["a\x1b[31mb", "a\r\nb", "a\nb", "a\tb", "a\x00b", "a\x7fb", "a\x9bb", "a\u2028b"])
@pytest.mark.parametrize("name", ["task_summary", "escalation_reason"])
def test_a_line_that_people_read_has_no_control_characters(name: str, text: str):
    """ESC would colour a terminal, CR LF forge a second line; letters of all scripts and emoji stay."""
    assert look({**ESCALATE, name: text}) == {name}
    assert isinstance(look({**ESCALATE, name: "Größe € 漢字 🙂"}), Receipt)


@pytest.mark.invariant("INV-094")
def test_an_artifact_receipt_names_what_is_kept():
    """`stored` has every artifact field, `retired` at least the pointer; neither has an outcome."""
    whole = {
        **ACCEPTED, "kind": "artifact", "artifact_pointer": "depot:1", "artifact_location": "http://d",
        "artifact_mime": "text/plain", "artifact_checksum": "sha256:0", "artifact_size_bytes": 0,
    }  # fmt: skip
    for name in whole:
        if name.startswith("artifact_"):
            assert look({**whole, "phase": "stored", name: None}) == {name}
    assert isinstance(look({**whole, "phase": "stored"}), Receipt)
    assert isinstance(
        look({**ACCEPTED, "kind": "artifact", "phase": "retired", "artifact_pointer": "depot:1"}), Receipt
    )
    assert look({**ACCEPTED, "kind": "artifact", "phase": "retired"}) == {"artifact_pointer"}
    assert look({**whole, "phase": "stored", "status": "success", "completed_at": "2027-01-01T00:00:00Z"}) == {
        "status", "completed_at",
    }  # fmt: skip


def test_nobody_emits_for_a_gate_over_http():
    """Admissions, artifacts and every lifecycle but MetaGate's `published` come from the gates' own transactions (D-59)."""
    for role in ROLES:
        for kind in (Kind.ADMISSION, Kind.ARTIFACT, Kind.LIFECYCLE):
            for phase in PHASES[kind]:
                published = (role, kind, phase) == ("witness", Kind.LIFECYCLE, "published")
                assert (right_to_emit(role, kind, phase) is Right.NONE) is not published


def test_a_template_is_examined_with_its_samples():
    """What is wrong with it is said; a placeholder stands for any value but not in the place of an absent one."""
    unknown = placeholders(T="task", R=ULID)
    sent = {**ACCEPTED, "receipt_id": unknown["R"], "task_id": unknown["T"]}
    template = template_of(sent, tenant=TENANT, emitter="svc:asyncgate")
    assert isinstance(template, str)
    assert template.count("\x1eT") == 2  # the task, and the obligation that is named like it
    filled = template.replace("\x1eT", '"task"').replace("\x1eR", f'"{ULID}"').encode()
    whole = examine({**ACCEPTED, "task_id": "task"}, tenant=TENANT, emitter="svc:asyncgate")
    assert isinstance(whole, Receipt)
    assert filled == whole.form
    findings = template_of({**sent, "phase": "complete"}, tenant=TENANT, emitter="svc:asyncgate")
    assert {str(finding.path) for finding in findings} == {"status", "completed_at", "outcome_kind"}
    with pytest.raises(ValueError, match="one letter"):
        placeholders(TT="x")
