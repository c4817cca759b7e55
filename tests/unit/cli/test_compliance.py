"""The rules of `legivellum comply`: silent about a plan as gates leave it, and each code where one receipt is different."""

import hashlib
import json
import re
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from tests.threaded_server import threaded_server

from legivellum.base.canonical_json import canonical
from legivellum.receipts.chain import ChainFollower, chain_seed, link
from metagate_cli.api_client import ApiClient
from metagate_cli.compliance.causes import altered_body
from metagate_cli.compliance.findings import INVARIANTS, ComplianceFinding, FindingCode
from metagate_cli.compliance.receipt_facts import PolicyLimits, RootReceipts, TenantFacts, receipt_facts
from metagate_cli.compliance.root_checks import root_findings
from metagate_cli.compliance.views import artifact_view, call_view, custody_view, lease_view, task_view
from metagate_cli.compliance_probes import PROBES, ProbeRun
from metagate_cli.compliance_reading import ComplianceReport
from metagate_cli.comply import ReportFormat, junit, show_report
from metagate_cli.gate_addresses import TITLES
from metagate_cli.terminal import UNABLE, Stop

NOW = datetime(2027, 1, 31, 12, tzinfo=UTC)
TENANT = "00000000-0000-0000-0000-000000000001"
AUTHORITY = {
    "writeBeyondReceipts": True, "sinks": ["depotgate/output"], "exposeTools": ["docs/*"], "maxDepth": 2, "spawn": {"max": 1},
    "cognition": {"models": ["small"], "calls": 2, "tokens": 100, "seconds": 60},
}  # fmt: skip
TERMS = {"max_lifetime_seconds": 7_200}
TYPES = {"alice": "principal", "bob": "principal", "delegate": "delegate", "worker": "worker", "eye": "observer"}
Receipts = list[dict[str, Any]]


def receipt(name: str, emitter: str, what: str, task: str, cause: str | None = None, **members: Any) -> dict[str, Any]:
    kind, _, phase = what.partition("/")
    return {
        "receipt_id": name, "tenant_id": TENANT, "emitter": emitter, "kind": kind, "phase": phase, "task_id": task,
        "obligation_id": task, "principal_ai": "alice", "recipient_ai": emitter, "status": "NA", "metadata": {},
        "body": {}, "caused_by_receipt_id": cause, **members,
    }  # fmt: skip


def admission(name: str, task: str, cause: str | None, depth: int, **members: Any) -> dict[str, Any]:
    body = {
        "derived": {"depth": depth}, "policy_profile_id": "front", "policy_hash": "h", "lease": None,
        **members.pop("body", {}),
    }  # fmt: skip
    return receipt(name, "svc:interrogate", "admission/accepted", task, cause, body=body, **members)


def plan() -> Receipts:
    """An admitted plan of one step that a worker did, and its close; as the gates write it."""
    usage = {
        "model": "small-1",
        "alias": "small",
        "calls": 2,
        "prompt_tokens": 60,
        "completion_tokens": 40,
        "seconds": 61,
        "tools": {"docs/get": 1},
    }
    made = [
        admission("adm", "P", None, 0),
        receipt("acc", "delegate", "obligation/accepted", "P", "adm", task_type="plan.run"),
        receipt("pln", "delegate", "obligation/accepted", "P", "acc", obligation_id="P:planning", task_type="plan"),
        receipt("art", "svc:depotgate", "artifact/stored", "P", "pln", body={"role": "plan", "lease_number": None}),
        receipt(
            "end", "delegate", "obligation/complete", "P", "art", obligation_id="P:planning", task_type="plan", status="success",
            body={"steps": ["read", "close"]},
        ),
    ]  # fmt: skip
    for step, capability in (("read", "document.read"), ("close", "plan.close")):
        task = f"P.{step}"
        made += [
            admission(f"{step}-adm", task, "end", 1, parent_task_id="P"),
            receipt(
                f"{step}-acc", "delegate", "obligation/accepted", task, f"{step}-adm", recipient_ai="svc:asyncgate",
                parent_task_id="P",
            ),
            receipt(
                f"{step}-ack", "svc:asyncgate", "obligation/accepted", task, f"{step}-acc", recipient_ai="svc:asyncgate",
                body={"capability": capability, "authority": AUTHORITY if step == "read" else None}, parent_task_id="P",
            ),
            receipt(
                f"{step}-que", "svc:asyncgate", "lifecycle/queued", task, f"{step}-ack",
                body={"minter": "delegate", "depth": 0, "terms": TERMS, "waits_for": [] if step == "read" else ["P.read"]},
            ),
        ]  # fmt: skip
    return [
        *made,
        receipt("l1", "svc:asyncgate", "lifecycle/lease_issued", "P.read", "read-que", recipient_ai="worker", attempt=1),
        receipt("out", "svc:depotgate", "artifact/stored", "P.read", "l1", body={"role": "output", "lease_number": 1}),
        receipt(
            "read-end", "svc:asyncgate", "obligation/complete", "P.read", "l1", status="success",
            body={"claimed_by": "worker", "lease_number": 1}, metadata={"usage": usage},
        ),
        receipt("l2", "svc:asyncgate", "lifecycle/lease_issued", "P.close", "close-que", recipient_ai="worker", attempt=1),
        receipt("done", "delegate", "obligation/complete", "P", "read-end", status="success", task_type="plan.run"),
        receipt(
            "close-end", "svc:asyncgate", "obligation/complete", "P.close", "l2", status="success",
            body={"claimed_by": "worker", "lease_number": 1},
        ),
    ]  # fmt: skip


def chained(receipts: Receipts, *, seconds: int = 1, before: timedelta = timedelta(hours=1)) -> Receipts:
    """As the ledger answers them: one chain, a receipt every so many seconds, the first so long before NOW."""
    chain = chain_seed(TENANT, "P")
    answered = []
    for position, sent in enumerate(receipts, 1):
        at = NOW - before + timedelta(seconds=position * seconds)
        digest = hashlib.sha256(canonical(sent)).digest()
        chain = link(chain, digest, sent["receipt_id"], position, at)
        added = {"stored_at": at.isoformat(), "sha256": digest.hex(), "root_task_id": "P", "position": position}
        answered.append({**sent, **added, "chain_sha256": chain.hex()})
    return answered


def root_of(receipts: Receipts, **when: Any) -> RootReceipts:
    return RootReceipts("P", [receipt_facts(item) for item in chained(receipts, **when)])


def checked(receipts: Receipts, policy: PolicyLimits | None = None, **when: Any) -> list[tuple[FindingCode, str]]:
    tenant = TenantFacts(NOW, TYPES, {} if policy is None else {"front": policy})
    return [(item.code, item.task_id) for item in root_findings(root_of(receipts, **when), tenant, lambda _: False)]


def test_a_plan_as_gates_leave_it() -> None:
    assert checked(plan(), PolicyLimits("h", 1, 2)) == []


def changed(name: str, **members: Any) -> Callable[[Receipts], Receipts]:
    """The receipt of that name with other members; those of its body and usage one by one."""

    def change(receipts: Receipts) -> Receipts:
        [item] = [item for item in receipts if item["receipt_id"] == name]
        for member, value in members.items():
            if member == "usage":
                item["metadata"] = {"usage": {**item["metadata"]["usage"], **value}}
            else:
                item[member] = {**item["body"], **value} if member == "body" else value
        return receipts

    return change


def without(*names: str) -> Callable[[Receipts], Receipts]:
    return lambda receipts: [item for item in receipts if item["receipt_id"] not in names]


def inserted(before: str, *items: dict[str, Any]) -> Callable[[Receipts], Receipts]:
    def change(receipts: Receipts) -> Receipts:
        place = [item["receipt_id"] for item in receipts].index(before) if before else len(receipts)
        return [*receipts[:place], *items, *receipts[place:]]

    return change


def chained_changes(*changes: Callable[[Receipts], Receipts]) -> Callable[[Receipts], Receipts]:
    return lambda receipts: reduce(lambda so_far, change: change(so_far), changes, receipts)


def authorized(**members: Any) -> Callable[[Receipts], Receipts]:
    return changed("read-ack", body={"authority": {**AUTHORITY, **members}})


def call(tool: str) -> dict[str, Any]:
    lease = {"lease_id": "L", "task_id": "P.read", "number": 1, "authority": AUTHORITY}
    return admission("call", "P.read", "l1", 1, body={"lease": lease, "tool": {"exposed_name": tool}})


def spawned(name: str, depth: int = 2, **members: Any) -> dict[str, Any]:
    lease = {"lease_id": "L", "task_id": "P.read", "number": 1, "authority": AUTHORITY}
    return admission(name, f"P.{name}", "l1", depth, body={"lease": lease}, parent_task_id="P.read", **members)


def acknowledged(task: str, authority: dict[str, Any], depth: int = 1) -> Receipts:
    return [
        receipt(f"{task}-acc", "delegate", "obligation/accepted", task, "l1", recipient_ai="svc:asyncgate", parent_task_id="P.read"),
        receipt(
            f"{task}-ack", "svc:asyncgate", "obligation/accepted", task, f"{task}-acc", recipient_ai="svc:asyncgate",
            parent_task_id="P.read", body={"authority": authority},
        ),
        receipt(
            f"{task}-que", "svc:asyncgate", "lifecycle/queued", task, f"{task}-ack",
            body={"minter": "delegate", "depth": depth, "terms": TERMS, "waits_for": []},
        ),
    ]  # fmt: skip


END = {"status": "success", "body": {"lease_number": 1}}
VIOLATIONS: Sequence[tuple[FindingCode, str, Callable[[Receipts], Receipts]]] = (
    (FindingCode.ENDED_TWICE, "P", inserted("", receipt("x", "delegate", "obligation/complete", "P", "l2", status="failure"))),
    (FindingCode.TASK_NOT_ACCEPTED, "P.read", without("read-ack")),
    (FindingCode.TASK_NOT_ACCEPTED, "P.read", without("read-que")),
    (FindingCode.TASK_NOT_ACCEPTED, "P.x", inserted("", receipt("x", "alice", "obligation/complete", "P.x", "l2"))),
    (FindingCode.TASK_NOT_ACCEPTED, "P.read", changed("read-acc", caused_by_receipt_id="end")),
    (FindingCode.OPENED_BY_OTHERS, "P.x", inserted("", receipt("x", "worker", "obligation/accepted", "P.x", "l2"))),
    (FindingCode.OPENED_BY_OTHERS, "P.x", inserted("", receipt("x", "bob", "obligation/accepted", "P.x", "l2"))),
    (FindingCode.OPENED_BY_OTHERS, "P.read", without("read-acc")),
    (FindingCode.MODEL_NOT_GRANTED, "P.read", changed("read-end", usage={"alias": "large"})),
    (FindingCode.MODEL_NOT_GRANTED, "P.read", authorized(cognition={"models": ["large"], "calls": 9, "tokens": 999, "seconds": 99})),
    (FindingCode.MODEL_NOT_GRANTED, "P.read", chained_changes(authorized(cognition=None), changed("read-end", usage={"alias": None}))),
    (FindingCode.TOOL_NOT_GRANTED, "P.read", changed("read-end", usage={"tools": {"mail/send": 1}})),
    (FindingCode.TOOL_NOT_GRANTED, "P.read", inserted("read-end", call("mail.send"))),
    (FindingCode.SINK_NOT_GRANTED, "P.read", authorized(sinks=["depotgate/supporting"])),
    (FindingCode.SINK_NOT_GRANTED, "P.read", authorized(writeBeyondReceipts=False)),
    (FindingCode.SINK_NOT_GRANTED, "P.read", changed("out", body={"lease_number": None})),
    (FindingCode.USAGE_EXCEEDED, "P.read", changed("read-end", usage={"calls": 3})),
    (FindingCode.USAGE_EXCEEDED, "P.read", changed("read-end", usage={"prompt_tokens": 61})),
    (FindingCode.USAGE_EXCEEDED, "P.read", changed("read-end", usage={"seconds": 71})),
    (FindingCode.AUTHORITY_GREW, "P.s", inserted("read-end", spawned("s"), *acknowledged("P.s", {"sinks": ["other"]}))),
    (FindingCode.LEASE_OVER, "P.read", inserted("out", receipt("x", "svc:asyncgate", "lifecycle/expired", "P.read", "l1"))),
    (FindingCode.LEASE_OVER, "P.read", inserted("read-end", receipt("x", "svc:asyncgate", "lifecycle/revoked", "P.read", "l1"))),
    (
        FindingCode.LEASE_OVER, "P.read",
        inserted("read-end", receipt("x", "svc:asyncgate", "lifecycle/lease_issued", "P.read", "l1", recipient_ai="worker", attempt=2)),
    ),
    (FindingCode.LEASE_OVER, "P.read", changed("read-que", body={"terms": {"max_lifetime_seconds": 1}})),
    (FindingCode.EDGE_NOT_PERMITTED, "P", changed("art", emitter="svc:asyncgate")),
    (FindingCode.EDGE_NOT_PERMITTED, "P", changed("art", emitter="alice")),
    (FindingCode.EDGE_NOT_PERMITTED, "P.read", changed("l1", recipient_ai="alice")),
    (FindingCode.EDGE_NOT_PERMITTED, "P.read", changed("read-que", body={"minter": "worker"})),
    (FindingCode.EDGE_NOT_PERMITTED, "P", changed("done", emitter="eye")),
    (FindingCode.EDGE_NOT_PERMITTED, "P", changed("read-end", emitter="svc:cognigate", task_id="P", obligation_id="P")),
    (FindingCode.DEPTH_EXCEEDED, "P.s", inserted("read-end", spawned("s", depth=3))),
    (FindingCode.DEPTH_EXCEEDED, "P.read", changed("read-adm", body={"derived": {"depth": 0}})),
    (FindingCode.DEPTH_EXCEEDED, "P.s", inserted("read-end", spawned("s"), *acknowledged("P.s", {}, depth=0))),
    (FindingCode.DESCENDANTS_EXCEEDED, "P.read", inserted("read-end", spawned("s"), spawned("t"))),
    (FindingCode.PLAN_NOT_CLOSED, "P", without("done")),
    (FindingCode.CAUSE_UNKNOWN, "P.read", changed("out", caused_by_receipt_id="elsewhere")),
    (FindingCode.CAUSE_UNKNOWN, "P.read", changed("out", caused_by_receipt_id="read-end")),
)  # fmt: skip


@pytest.mark.parametrize(
    ("code", "task", "fault"), VIOLATIONS, ids=[f"{code}-{number}" for number, (code, _, _) in enumerate(VIOLATIONS)]
)
def test_one_fault(code: FindingCode, task: str, fault: Callable[[Receipts], Receipts]) -> None:
    assert (code, task) in checked(fault(plan()))


def test_limits_of_the_policy() -> None:
    """Against the policy that decided, and no other: of one that has changed since nothing is known."""
    assert checked(plan(), PolicyLimits("h", 0, None)) == [
        (FindingCode.DEPTH_EXCEEDED, "P.read"),
        (FindingCode.DEPTH_EXCEEDED, "P.close"),
    ]
    assert checked(plan(), PolicyLimits("h", None, 1)) == [(FindingCode.DESCENDANTS_EXCEEDED, "P.close")]
    assert checked(plan(), PolicyLimits("another", 0, 0)) == []


WAITING = ("l1", "out", "read-end", "l2", "done", "close-end")


def test_an_obligation_with_nobody() -> None:
    """After three days; what waits for another obligation waits for whoever has that."""
    old = timedelta(days=4)
    assert checked(without(*WAITING)(plan()), before=old) == [(FindingCode.OBLIGATION_UNATTENDED, "P.read")]
    assert checked(without(*WAITING)(plan()), before=timedelta(days=2)) == []
    orphaned = inserted(
        "", receipt("x", "alice", "obligation/accepted", "P", "l2", obligation_id="q", recipient_ai="gone")
    )
    assert checked(orphaned(plan()), before=old) == [(FindingCode.OBLIGATION_UNATTENDED, "P")]
    attended = inserted(
        "", receipt("x", "alice", "obligation/accepted", "P", "l2", obligation_id="q", recipient_ai="bob")
    )
    assert checked(attended(plan()), before=old) == []


def test_a_plan_whose_steps_are_over_is_closed_within_three_days() -> None:
    unclosed = without("l2", "done", "close-end")
    assert checked(unclosed(plan())) == []
    assert (FindingCode.PLAN_NOT_CLOSED, "P") in checked(unclosed(plan()), before=timedelta(days=4))


def test_the_longest_life_of_a_lease() -> None:
    """A lease is renewed without receipts, but not for longer than its task says."""
    assert checked(plan(), before=timedelta(hours=8), seconds=3_000) == []
    assert (FindingCode.LEASE_OVER, "P.read") in checked(plan(), before=timedelta(days=2), seconds=5_000)


def defects(receipts: Receipts) -> list[str | None]:
    follower = ChainFollower()
    return [follower.defect(item) or altered_body(item) for item in receipts]


def test_a_chain_holds_or_does_not() -> None:
    receipts = chained(plan())
    assert set(defects(receipts)) == {None}
    altered = [{**item, "status": "failure"} if item["receipt_id"] == "done" else item for item in receipts]
    assert [reason for reason in defects(altered) if reason] == ["has a body that was altered"]
    missing = [item for item in receipts if item["position"] != 3]
    assert [reason for reason in defects(missing) if reason] == ["is number 4 of its chain and follows number 2"]
    moved = [{**item, "stored_at": NOW.isoformat()} if item["position"] == 2 else item for item in receipts]
    assert [reason for reason in defects(moved) if reason] == ["does not follow the receipt before it"]


NAMES = {
    "ack": "obligation/accepted t",
    "end": "obligation/complete t",
    "art": "artifact/stored t",
    "adm": "admission/rejected t",
}


def codes(findings: Any) -> list[tuple[FindingCode, str]]:
    return [(finding.code, finding.task_id) for finding in findings]


def test_what_gates_show() -> None:
    """As receipts say it: nothing. Otherwise a finding for each that no receipt says."""
    of_t = [(FindingCode.VIEW_WITHOUT_RECEIPT, "t")]
    task: dict[str, Any] = {"task_id": "t", "accepted_receipt_id": "ack", "lease": {"number": 2}, "ended": None}
    assert codes(task_view(task, NAMES.get)) == []
    assert codes(task_view({**task, "ended": {"how": "returned", "receipt_id": "end"}}, NAMES.get)) == []
    assert codes(task_view({**task, "ended": {"how": "returned", "receipt_id": "none"}}, NAMES.get)) == of_t
    assert codes(task_view({**task, "ended": {"how": "escalated", "receipt_id": "end"}}, NAMES.get)) == of_t
    assert codes(task_view({**task, "accepted_receipt_id": "end"}, NAMES.get)) == of_t
    assert codes(lease_view(task, frozenset({1, 2}))) == []
    assert codes(lease_view(task, frozenset({1}))) == of_t
    artifact = {"receipt_id": "art", "task_id": "t", "pointer": "depot:1"}
    assert codes(artifact_view(artifact, NAMES.get)) == []
    assert codes(artifact_view({**artifact, "receipt_id": "none"}, NAMES.get)) == of_t
    called = {"task_id": "t", "tool": "docs.get", "admission_receipt_id": "adm", "outcome_receipt_id": None}
    assert codes(call_view(called, NAMES.get)) == []
    assert codes(call_view({**called, "outcome_receipt_id": "adm"}, NAMES.get)) == of_t


def test_custody_as_the_ledger_shows_it() -> None:
    root = root_of(without("close-end")(plan()))
    shown: dict[str, dict[str, Any]] = {
        name: {"state": record.state, "custodian": record.custodian} for name, record in root.custody.items()
    }
    assert codes(custody_view(root, shown)) == []
    shown["P.close"]["custodian"] = "alice"
    shown["P.read"]["state"] = "open"
    assert codes(custody_view(root, shown)) == [
        (FindingCode.VIEW_WITHOUT_RECEIPT, "P.read"),
        (FindingCode.VIEW_WITHOUT_RECEIPT, "P.close"),
    ]


def test_the_report_for_ci(capsys: pytest.CaptureFixture[str]) -> None:
    """A test case for each rule; what workers wrote is text and nothing else."""
    finding = ComplianceFinding(FindingCode.MODEL_NOT_GRANTED, "t<1>", "used the model \x1b[31m & \u202e", "r")
    report = ComplianceReport([finding, finding], 7, 2, ["metagate"])
    suite = ET.fromstring(junit(report))
    assert (suite.attrib["tests"], suite.attrib["failures"]) == (str(len(FindingCode)), "1")
    [failed] = [case for case in suite if len(case)]
    assert (failed.attrib["name"], len((failed[0].text or "").splitlines())) == ("MODEL_NOT_GRANTED", 2)
    assert failed[0].attrib["message"] == "t<1> used the model \\u001b[31m & \\u202e"
    show_report(report, ReportFormat.WIDE)
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == "2 findings in 7 receipts of 2 trees"
    assert "\x1b[31m" not in printed.out
    assert printed.err == "not asked: metagate, of which no address is known\n"


def test_probes_of_the_documentation() -> None:
    page = Path("docs/comply.md").read_text()
    rows = re.findall(r"^\| (an? .*|the .*) \| (\w+) \|$", page, re.MULTILINE)
    assert rows == [(probe.name, TITLES[probe.gate]) for probe in PROBES]


def answering(status: int, code: str) -> Callable[[socket.socket], None]:
    """A gate that answers every request the same."""
    body = json.dumps({"code": code, "detail": code}).encode()

    def handle(connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65_536)
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        rest = int(length[1]) - len(head.partition(b"\r\n\r\n")[2]) if length else 0
        while rest > 0:
            rest -= len(connection.recv(65_536))
        connection.sendall(
            b"HTTP/1.1 %d x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)
        )

    return handle


def test_a_gate_that_takes_everything_is_found() -> None:
    """Each probe by its name, and that nobody was asked who he is."""
    with threaded_server(answering(200, "")) as url:
        client = ApiClient(url, {"x-api-key": "k"})
        run = ProbeRun({"memorygate": client, "asyncgate": client, "depotgate": client}, None)
        findings = list(run.findings())
    assert {finding.code for finding in findings} == {FindingCode.PROBE_NOT_REFUSED}
    assert len(findings) == run.tried == len(PROBES) + 3


@pytest.mark.parametrize(
    ("status", "code"), [(503, "UNAVAILABLE"), (422, "INVALID_REQUEST"), (401, "NOT_AUTHENTICATED")]
)
def test_an_answer_that_neither_takes_nor_refuses_is_no_result(status: int, code: str) -> None:
    with threaded_server(answering(status, code)) as url, pytest.raises(Stop, match=code) as stopped:
        list(ProbeRun({"memorygate": ApiClient(url, {"x-api-key": "k"})}, None).findings())
    assert stopped.value.code == UNABLE


def test_codes_and_invariants_of_the_documentation() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (INV-\d+) \|", Path("docs/comply.md").read_text(), re.MULTILINE)
    assert rows == [(str(code), INVARIANTS[code]) for code in FindingCode]
