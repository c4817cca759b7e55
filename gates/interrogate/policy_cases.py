"""`interrogate test`: what a policy decides about requests that somebody wrote down, without a database.

    policy: {limits: {maxSpawnDepth: 3}, surfaces: [...]}      # the spec of a PolicyProfile
    cases:
    - name: a reviewer may read
      envelope: {surface_id: public, payload_kind: plan_request, payload: {}, causality: {...}}
      caller: {principal_key: reviewer, type: principal}
      observed: {descendants: 3}
      expect: {outcome: ALLOW}

Members of `observed` have the names that receipts give them, so that a decision can be copied from the ledger into a
case. What a case does not say is in order: its parent is admitted and in the caller's custody, no rate is spent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import yaml

from interrogate.decide import decide
from interrogate.decision import AdmissionOutcome, Decision, ReasonCode
from interrogate.envelope import Envelope, value_or_none
from interrogate.envelope_parser import parse_envelope
from interrogate.observation import Observed, ObservedLease, ParentTask, Requester
from interrogate.ruleset import Ruleset
from legivellum.http.problems import RequestRefused
from metagate_crds.models.policy import PolicyProfileSpec
from metagate_crds.validation import parse_spec

POLICY_KIND: Final = "PolicyProfile"
TENANT: Final = "test"
PROFILE: Final = "policy"
MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "caller": ("principal_key", "type", "own_tenant", "lease_id"),
    "observed": ("at", "descendants", "repeats", "parent", "cause", "task_known", "rate_tat", "spawned", "lease"),
    "observed.parent": ("root_task_id", "depth", "budget", "recent", "admitted_by", "custodian", "open"),
    "observed.task_known": ("root_task_id", "admitted"),
    "observed.lease": ("lease_id", "task_id", "number", "authority", "principal_ai"),
}
"""What a case may say beside its envelope, all of it optional (docs/interrogate/cases.md)."""
NO_RECEIPT: Final = "0" * 26
DEFAULT_TIME: Final = 1_800_000_000_000_000
"""The moment of a decision where a case names none: 2027-01-15T08:00:00Z, in microseconds."""


class CasesUnreadable(ValueError):  # noqa: N818 - what the file is
    """The file is no policy with cases; says where and why."""


@dataclass(frozen=True, slots=True)
class PolicyCase:
    name: str
    envelope: Envelope
    requester: Requester
    observed: Observed
    outcome: AdmissionOutcome
    reason_code: ReasonCode | None
    """None: any, where a denial is expected."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    file: str
    name: str
    problem: str | None
    """What was decided instead; None: as expected."""


def run_files(paths: Iterable[Path]) -> list[CaseResult]:
    """Every case of these files, in their order. Raises CasesUnreadable and OSError."""
    results = []
    for path in paths:
        ruleset, cases = read_cases(path.read_text(encoding="utf-8"), str(path))
        results += [CaseResult(str(path), case.name, _problem(ruleset, case)) for case in cases]
    return results


def read_cases(text: str, file: str) -> tuple[Ruleset, list[PolicyCase]]:
    """The policy and the cases of one file. Raises CasesUnreadable."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CasesUnreadable(f"{file}: is not YAML: {_yaml_problem(error)}") from error
    members = _members(document, file, required=("policy", "cases"))
    ruleset = read_policy(members["policy"], file)
    if not isinstance(members["cases"], list) or not members["cases"]:
        raise CasesUnreadable(f"{file}: cases must be a list with at least one case")
    return ruleset, [_case(case, ruleset, f"{file}: cases[{place}]") for place, case in enumerate(members["cases"])]


def _yaml_problem(error: yaml.YAMLError) -> str:
    """Where, and what; not the excerpt that PyYAML draws over several lines."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def junit(results: Sequence[CaseResult]) -> str:
    """The results as JUnit's XML, one suite for each file."""
    root = ET.Element("testsuites", name="interrogate test")
    for file in dict.fromkeys(result.file for result in results):
        of_file = [result for result in results if result.file == file]
        failures = sum(result.problem is not None for result in of_file)
        suite = ET.SubElement(root, "testsuite", name=file, tests=str(len(of_file)), failures=str(failures))
        for result in of_file:
            case = ET.SubElement(suite, "testcase", classname=file, name=result.name)
            if result.problem is not None:
                ET.SubElement(case, "failure", message=result.problem)
    return ET.tostring(root, encoding="unicode", xml_declaration=True)


def _problem(ruleset: Ruleset, case: PolicyCase) -> str | None:
    decision = decide(case.envelope, case.requester, ruleset, case.observed)
    same_outcome = decision.outcome is case.outcome
    if same_outcome and case.reason_code in {None, decision.reason_code}:
        return None
    return f"expected {_outcome_text(case.outcome, case.reason_code)}, decided {_decision_text(decision)}"


def _outcome_text(outcome: AdmissionOutcome, reason_code: ReasonCode | None) -> str:
    return str(outcome) if reason_code is None else f"{outcome} {reason_code}"


def _decision_text(decision: Decision) -> str:
    text = _outcome_text(decision.outcome, decision.reason_code)
    return text if decision.detail is None else f"{text}: {decision.detail}"


def read_policy_file(path: Path) -> Ruleset:
    """The policy of a file, a PolicyProfile as it is declared. Raises CasesUnreadable, OSError.

    Its name says whose decisions it is compared with.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise CasesUnreadable(f"{path}: is not YAML: {_yaml_problem(error)}") from error
    try:
        name, spec = document["metadata"]["name"], document["spec"]
    except (KeyError, TypeError):
        raise CasesUnreadable(f"{path}: must be one PolicyProfile with metadata.name and spec") from None
    return replace(read_policy(spec, str(path)), profile=str(name))


def read_policy(spec: Any, file: str) -> Ruleset:
    model, findings = parse_spec(POLICY_KIND, spec)
    if not isinstance(model, PolicyProfileSpec):
        listed = "; ".join(f"{finding.path} {finding.message}" for finding in findings)
        raise CasesUnreadable(f"{file}: policy is no spec of a PolicyProfile: {listed}")
    return Ruleset.from_policy(model.declared(), profile=PROFILE, policy_hash="", revision=0)


def _case(case: Any, ruleset: Ruleset, where: str) -> PolicyCase:
    members = _members(case, where, required=("name", "envelope", "expect"), optional=("caller", "observed"))
    if not isinstance(members["name"], str) or not members["name"].strip():
        raise CasesUnreadable(f"{where}: name must be text")
    envelope = _envelope(members["envelope"], where)
    requester = _requester(members.get("caller", {}), f"{where}.caller", members.get("observed"))
    outcome, reason_code = _expectation(members["expect"], f"{where}.expect")
    return PolicyCase(
        name=members["name"],
        envelope=envelope,
        requester=requester,
        observed=_observed(members.get("observed", {}), f"{where}.observed", envelope, requester, ruleset),
        outcome=outcome,
        reason_code=reason_code,
    )


def _envelope(document: Any, where: str) -> Envelope:
    if not isinstance(document, dict):
        raise CasesUnreadable(f"{where}.envelope must be an object")
    try:
        # The file has one policy and no tenant, so a case need not name them.
        raw = json.dumps({"tenant_id": TENANT, "policy_profile_id": PROFILE, **document}, allow_nan=False).encode()
        return parse_envelope(raw)
    except RequestRefused as refused:
        raise CasesUnreadable(f"{where}.envelope is refused: {refused.problem.detail}") from refused
    except (TypeError, ValueError) as error:
        raise CasesUnreadable(f"{where}.envelope holds a value that JSON does not have: {error}") from error


def _requester(caller: Any, where: str, observed: Any) -> Requester:
    members = _members(caller, where, optional=MEMBERS["caller"])
    lease = observed.get("lease") if isinstance(observed, dict) else None
    shown = lease.get("lease_id") if isinstance(lease, dict) else None
    return Requester(
        principal_key=_of_type(members, "principal_key", str, "principal", where),
        type=_of_type(members, "type", str, "principal", where),
        is_tenants=_of_type(members, "own_tenant", bool, True, where),
        lease_id=_of_type(members, "lease_id", str, shown, where),
    )


def _expectation(expect: Any, where: str) -> tuple[AdmissionOutcome, ReasonCode | None]:
    members = _members(expect, where, required=("outcome",), optional=("reason_code",))
    try:
        outcome = AdmissionOutcome(members["outcome"])
        reason_code = members.get("reason_code")
        return outcome, None if reason_code is None else ReasonCode(reason_code)
    except ValueError as error:
        raise CasesUnreadable(f"{where}: {error}") from error


def _observed(document: Any, where: str, envelope: Envelope, requester: Requester, ruleset: Ruleset) -> Observed:
    members = _members(document, where, optional=MEMBERS["observed"])
    parent_id = value_or_none(envelope.causality.parent_task_id)
    keys = ruleset.rate_keys_of(envelope, requester.principal_key)
    tats = _of_type(members, "rate_tat", list, [0] * len(keys), where)
    if len(tats) != len(keys) or not all(type(tat) is int for tat in tats):
        raise CasesUnreadable(
            f"{where}: rate_tat must be a list of {len(keys)} integers, one for each rate that matches"
        )
    known = members.get("task_known") or {}
    known = _members(known, f"{where}.task_known", optional=MEMBERS["observed.task_known"])
    return Observed(
        at=_of_type(members, "at", int, DEFAULT_TIME, where),
        descendants=_of_type(members, "descendants", int, 0, where),
        repeats=_of_type(members, "repeats", int, 0, where),
        parent=None if parent_id is None else _parent(members, where, envelope, requester),
        cause_task_id=_of_type(members, "cause", str, parent_id, where, nullable=True),
        task_root_id=_of_type(known, "root_task_id", str, None, where),
        task_admitted=_of_type(known, "admitted", bool, False, where),
        rate_tats=tuple(tats),
        lease=_lease(members, where, requester, parent_id),
    )


def _parent(observed: Mapping[str, Any], where: str, envelope: Envelope, requester: Requester) -> ParentTask | None:
    document, where = observed.get("parent", {}), f"{where}.parent"
    if document is None:
        return None
    members = _members(document, where, optional=MEMBERS["observed.parent"])
    root = value_or_none(envelope.causality.root_task_id) or ""
    recent = _of_type(members, "recent", list, [], where)
    if not all(isinstance(name, str) for name in recent):
        raise CasesUnreadable(f"{where}: recent must be a list of capabilities")
    return ParentTask(
        root_task_id=_of_type(members, "root_task_id", str, root, where),
        depth=_of_type(members, "depth", int, 0, where),
        budget=_of_type(members, "budget", int, None, where),
        recent=tuple(recent),
        admitted_by=_of_type(members, "admitted_by", str, NO_RECEIPT, where),
        custodian=_of_type(members, "custodian", str, requester.principal_key, where, nullable=True),
        open=_of_type(members, "open", bool, True, where),
    )


def _lease(
    observed: Mapping[str, Any], where: str, requester: Requester, parent_id: str | None
) -> ObservedLease | None:
    document, where = observed.get("lease"), f"{where}.lease"
    if document is None:
        return None
    members = _members(document, where, optional=MEMBERS["observed.lease"])
    return ObservedLease(
        lease_id=_of_type(members, "lease_id", str, requester.lease_id or "", where),
        task_id=_of_type(members, "task_id", str, parent_id or "", where),
        principal_ai=_of_type(members, "principal_ai", str, requester.principal_key, where),
        number=_of_type(members, "number", int, 1, where),
        authority=_of_type(members, "authority", dict, {}, where),
        spawned=_of_type(observed, "spawned", int, 0, where),
    )


def _members(
    value: Any, where: str, *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()
) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise CasesUnreadable(f"{where} must be an object")
    if missing := [name for name in required if name not in value]:
        raise CasesUnreadable(f"{where}: {missing[0]} is required")
    if unknown := [str(name) for name in value if name not in {*required, *optional}]:
        raise CasesUnreadable(f"{where}: {unknown[0]} is unknown")
    return value


def _of_type(
    members: Mapping[str, Any], name: str, type_: type, default: Any, where: str, *, nullable: bool = False
) -> Any:
    """The member, or the default where it is absent; null where that is its default or means something."""
    value = members.get(name, default)
    if value is None and (default is None or nullable):
        return None
    if type(value) is not type_:
        raise CasesUnreadable(f"{where}: {name} must be {_TYPES[type_]}")
    return value


_TYPES: Final[Mapping[type, str]] = {
    str: "text",
    int: "an integer",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}

Report = Callable[[str], None]


def report(results: Sequence[CaseResult], write: Report) -> bool:
    """One line for each case that failed and one for all; whether every case is as expected."""
    failed = [result for result in results if result.problem is not None]
    for result in failed:
        write(f"{result.file}: {result.name}: {result.problem}")
    write(f"{len(results) - len(failed)} of {len(results)} cases as expected")
    return not failed
