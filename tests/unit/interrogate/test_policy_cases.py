"""`interrogate test`: a policy, requests that somebody wrote down, and what is expected of them."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from tests.unit.interrogate.requests import (
    ABSENT,
    ALICE,
    CAUSE,
    CHILD,
    POLICY,
    ROOT,
    envelope_from,
    merged,
    observed_child,
    ruleset_of,
)
from tests.unit.interrogate.test_admission_receipt import TENANT

from interrogate.admission_receipt import admission_receipt
from interrogate.decide import decide
from interrogate.policy_cases import MEMBERS, CasesUnreadable, junit, read_cases, report, run_files

ALICE_CALLS = {"principal_key": "alice", "type": "principal"}


def case(expect: Any, envelope: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"name": "a case", "envelope": envelope, "caller": ALICE_CALLS, "expect": expect} | members


def written(folder: Path, *cases: dict[str, Any], policy: Any = POLICY, name: str = "cases.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump({"policy": policy, "cases": list(cases)}))
    return path


def problems(folder: Path, *cases: dict[str, Any]) -> list[str | None]:
    return [result.problem for result in run_files([written(folder, *cases)])]


ALLOW, DENY = {"outcome": "ALLOW"}, {"outcome": "DENY"}


def test_cases_that_are_as_expected(tmp_path: Path) -> None:
    deep = merged(CHILD, {"causality": {"spawn_depth": 6}})
    assert (
        problems(
            tmp_path,
            case(ALLOW, ROOT),
            case({"outcome": "ALLOW", "reason_code": None}, CHILD, observed={"parent": {"depth": 2}}),
            case({"outcome": "DENY", "reason_code": "DEPTH_EXCEEDED"}, deep, observed={"parent": {"depth": 5}}),
            case(DENY, deep, observed={"parent": {"depth": 5}}),
            case({"outcome": "DENY", "reason_code": "UNAUTHORIZED"}, ROOT, caller={"principal_key": "bob"}),
            case({"outcome": "DENY", "reason_code": "CAUSALITY_MISMATCH"}, CHILD, observed={"parent": None}),
            case(
                {"outcome": "DENY", "reason_code": "CAUSALITY_MISMATCH"},
                CHILD,
                observed={"parent": {"depth": 2, "custodian": None}},
            ),
            case({"outcome": "DENY", "reason_code": "RATE_LIMITED"}, ROOT, observed={"rate_tat": [4 * 10**15]}),
            case(
                {"outcome": "DENY", "reason_code": "LEASE_LOST"},
                ROOT,
                caller={"principal_key": "alice", "lease_id": "gone"},
            ),
            case(
                {"outcome": "DENY", "reason_code": "LEASE_AUTHORITY"},
                CHILD,
                observed={"parent": {"depth": 2}, "lease": {"lease_id": "l", "authority": {"spawn": {"max": 1}}}},
            ),
        )
        == [None] * 10
    )


def test_a_case_that_is_not_as_expected_says_what_was_decided(tmp_path: Path) -> None:
    unexpected, other = problems(
        tmp_path,
        case(ALLOW, merged(ROOT, {"artifact_bytes": 1001})),
        case({"outcome": "DENY", "reason_code": "BUDGET_EXHAUSTED"}, merged(ROOT, {"artifact_bytes": 1001})),
    )
    decided = "DENY INVARIANT_VIOLATION: the declared artifact has 1001 bytes, at most 1000"
    assert unexpected == f"expected ALLOW, decided {decided}"
    assert other == f"expected DENY BUDGET_EXHAUSTED, decided {decided}"


def test_a_case_names_neither_tenant_nor_profile(tmp_path: Path) -> None:
    """The file has one policy; nothing is left of a domain but the surface."""
    assert problems(tmp_path, case(ALLOW, merged(ROOT, {"tenant_id": ABSENT, "policy_profile_id": ABSENT}))) == [None]


def test_what_a_receipt_observed_can_be_copied_into_a_case(tmp_path: Path) -> None:
    observed = observed_child(descendants=100)
    envelope = envelope_from(CHILD)
    decision = decide(envelope, ALICE, ruleset_of(), observed)
    body = json.loads(
        admission_receipt(
            envelope, ALICE, decision, observed, ruleset_of(), tenant=TENANT, receipt_id=CAUSE, policy_revision=1
        )
    )["body"]
    expect = {name: body[name] for name in ("outcome", "reason_code")}
    assert problems(tmp_path, case(expect, CHILD, observed=body["observed"], caller=body["caller"])) == [None]
    assert expect == {"outcome": "DENY", "reason_code": "DESCENDANTS_EXCEEDED"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not YAML"),
        ("[]", "must be an object"),
        ("policy: {}", "cases is required"),
        ("{policy: {limits: {}}, cases: [{}]}", "policy is no spec of a PolicyProfile"),
        ("{policy: {limits: {maxSpawnDepth: 3}}, cases: []}", "at least one case"),
        ("{policy: {limits: {maxSpawnDepth: 3}}, cases: [7]}", "must be an object"),
        (
            "{policy: {limits: {maxSpawnDepth: 3}}, cases: [{name: a, expect: {outcome: ALLOW}}]}",
            "envelope is required",
        ),
        ("{policy: {limits: {maxSpawnDepth: 3}}, cases: [], more: 1}", "more is unknown"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(text: str, reason: str) -> None:
    with pytest.raises(CasesUnreadable, match=r"file\.yaml") as unreadable:
        read_cases(text, "file.yaml")
    assert reason in str(unreadable.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"expect": {"outcome": "PERHAPS"}}, "PERHAPS"),
        ({"expect": {"outcome": "DENY", "reason_code": "BECAUSE"}}, "BECAUSE"),
        ({"envelope": merged(ROOT, {"surface_id": ABSENT})}, "surface_id is required"),
        ({"envelope": merged(ROOT, {"more": 1})}, "unknown"),
        ({"envelope": merged(ROOT, {"payload_kind": "tool_call"})}, "MCP"),
        ({"envelope": merged(ROOT, {"payload": float("inf")})}, "JSON"),
        ({"observed": {"descendents": 1}}, "descendents is unknown"),
        ({"observed": {"descendants": "1"}}, "must be an integer"),
        ({"observed": {"descendants": True}}, "must be an integer"),
        ({"observed": {"rate_tat": []}}, "list of 1 integers"),
        ({"caller": {"principal_key": None}}, "must be text"),
        ({"name": ""}, "name must be text"),
    ],
    ids=str,
)
def test_a_case_that_cannot_be_read_says_where(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    """A misspelled member must not let a case pass for another reason than its author thinks."""
    with pytest.raises(CasesUnreadable, match=r"cases\[1\]") as unreadable:
        problems(tmp_path, case(ALLOW, ROOT), case(ALLOW, ROOT) | changes)
    assert reason in str(unreadable.value)


def test_the_results_are_junit(tmp_path: Path) -> None:
    first = written(tmp_path, case(ALLOW, ROOT), case(DENY, ROOT, name="<a> & b"), name="a.yaml")
    second = written(tmp_path, case(ALLOW, ROOT), name="b.yaml")
    results = run_files([first, second])
    suites = ET.fromstring(junit(results)).findall("testsuite")
    assert [(suite.get("name"), suite.get("tests"), suite.get("failures")) for suite in suites] == [
        (str(first), "2", "1"),
        (str(second), "1", "0"),
    ]
    [failure] = [item for item in suites[0].iter("testcase") if item.find("failure") is not None]
    assert failure.get("name") == "<a> & b"
    lines: list[str] = []
    assert report(results, lines.append) is False
    assert lines == [f"{first}: <a> & b: expected DENY, decided ALLOW", "2 of 3 cases as expected"]
    assert report(results[:1], lines.append) is True


PAGE = Path(__file__).parents[3] / "docs" / "interrogate" / "cases.md"


def test_the_page_has_every_member_of_a_case() -> None:
    documented = [
        line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith(("| `caller", "| `obs"))
    ]
    assert documented == [f"{where}.{name}" for where, names in MEMBERS.items() for name in names]


def test_the_example_of_the_page_is_as_expected(tmp_path: Path) -> None:
    example = PAGE.read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "cases.yaml").write_text(example)
    assert [result.problem for result in run_files([tmp_path / "cases.yaml"])] == [None]
