"""What `legivellum comply` reads: receipts by root, whole and in the order of their chains, and what gates show.

A root whose first receipt is in the stream is checked from what was streamed; of any other, the whole root is read. So
memory holds at most `MOST_HELD` receipts and one root more, whatever the size of the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from legivellum.receipts.chain import ChainFollower
from metagate_cli.api_client import ApiClient, ApiError, segment
from metagate_cli.compliance.causes import altered_body, chain_broken
from metagate_cli.compliance.findings import ComplianceFinding
from metagate_cli.compliance.receipt_facts import (
    PolicyLimits,
    ReceiptFacts,
    RootReceipts,
    TenantFacts,
    mapping,
    receipt_facts,
)
from metagate_cli.compliance.root_checks import root_findings
from metagate_cli.compliance.views import artifact_view, call_view, custody_view, lease_view, task_view
from metagate_cli.compliance_probes import PROBED_GATES, ProbeRun
from metagate_cli.gate_addresses import TenantGates

MOST_HELD: Final = 20_000
"""A receipt of the demo takes 1 KiB as the rules read it."""
_LOOKUP: Final = 256
_MOST_ASKED_SINGLY: Final = 200
"""A root with more tasks is looked for in the listings of the whole tenant."""
_PATIENCE: Final = 120.0
"""Seconds for which a gate may say that this is too much at once (429)."""


class PatientClient(ApiClient):
    """Waits where a gate says 429: a check reads much, and has time."""

    __slots__ = ()

    def _request(self, method: str, path: str, query: Mapping[str, object], body: bytes | None) -> Any:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                return super()._request(method, path, query, body)
            except ApiError as error:
                if error.status != 429 or time.monotonic() > end:
                    raise
                time.sleep(0.25)


def patient(client: ApiClient, tenant: str | None) -> PatientClient:
    return PatientClient(client.url, client.headers, tenant, client.ca_file, gate=client.gate)


@dataclass(slots=True)
class _RootReading:
    """A root of which receipts are being read."""

    root_task_id: str
    facts: list[ReceiptFacts] = field(default_factory=list)
    follower: ChainFollower = field(default_factory=ChainFollower)
    broken: list[ComplianceFinding] = field(default_factory=list)

    def add(self, receipt: Mapping[str, Any]) -> None:
        place, body = self.follower.defect(receipt), altered_body(receipt)
        if (reason := place or body) is not None:
            self.broken.append(chain_broken(receipt, reason))
        self.facts.append(receipt_facts(receipt))

    @property
    def receipts(self) -> RootReceipts:
        return RootReceipts(self.root_task_id, self.facts)


class LedgerReading:
    """The receipts of a tenant. Methods raise ApiError, Stop."""

    def __init__(self, ledger: PatientClient, *, most_held: int = MOST_HELD) -> None:
        self.ledger = ledger
        self._most_held = most_held
        self._names: dict[str, tuple[str, str]] = {}
        self.receipts = 0
        self.roots = 0

    def root(self, task_id: str) -> _RootReading:
        """The root in which a task hangs; without receipts where nobody has heard of it."""
        reading = _RootReading(task_id)
        for receipt in self.ledger.items(f"/receipts/root/{segment(task_id)}"):
            reading.root_task_id = receipt["root_task_id"]
            self._remember(receipt)
            reading.add(receipt)
        return self._counted(reading)

    def since(self, begin: str | None) -> Iterator[_RootReading]:
        """Every root with a receipt since then, each whole."""
        streamed: dict[str, _RootReading] = {}
        later: dict[str, None] = {}
        held = 0
        for receipt in self.ledger.items("/v1/receipts", since=begin):
            self._remember(receipt)
            name = receipt["root_task_id"]
            if name in later:
                continue
            reading = streamed.get(name) or _RootReading(name)
            if held >= self._most_held or not reading.follower.follows(receipt):
                later[name] = None
                held -= len(reading.facts)
                streamed.pop(name, None)
                continue
            streamed[name] = reading
            reading.add(receipt)
            held += 1
        while streamed:
            yield self._counted(streamed.popitem()[1])
        for name in later:
            yield self.root(name)

    def exists(self, receipt_id: str) -> bool:
        return self.name_of(receipt_id) is not None

    def name_of(self, receipt_id: str) -> str | None:
        """`kind/phase task_id` of a receipt of the ledger."""
        name = self._names.get(receipt_id)
        if name is None:
            try:
                receipt = self.ledger.get(f"/receipts/{segment(receipt_id)}")
            except ApiError as error:
                if error.code != "NOT_FOUND":
                    raise
                return None
            name = self._remember(receipt)
        return " ".join(name)

    def custody(self, obligation_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """What the ledger shows of each."""
        shown: dict[str, Mapping[str, Any]] = {}
        for start in range(0, len(obligation_ids), _LOOKUP):
            body = {"obligation_ids": obligation_ids[start : start + _LOOKUP]}
            items = self.ledger.post("/v1/obligations/lookup", body)["items"]
            shown |= {item["obligation_id"]: item for item in items}
        return shown

    def leases(self, task_id: str) -> frozenset[int]:
        """The numbers of the leases that receipts of a task name."""
        receipts = self.ledger.items(f"/receipts/task/{segment(task_id)}")
        return frozenset(receipt["attempt"] for receipt in receipts if receipt["phase"] == "lease_issued")

    def _remember(self, receipt: Mapping[str, Any]) -> tuple[str, str]:
        facts = (f"{receipt['kind']}/{receipt['phase']}", str(receipt["task_id"]))
        if len(self._names) < self._most_held:
            self._names[receipt["receipt_id"]] = facts
        return facts

    def _counted(self, reading: _RootReading) -> _RootReading:
        self.receipts += len(reading.facts)
        self.roots += bool(reading.facts)
        return reading


@dataclass(slots=True)
class ComplianceReport:
    """What was found, in how much, and which gates nothing is known of."""

    findings: list[ComplianceFinding] = field(default_factory=list)
    receipts: int = 0
    roots: int = 0
    not_asked: list[str] = field(default_factory=list)
    probes: int = 0
    """How many requests that must be refused were tried."""

    def document(self) -> dict[str, Any]:
        return {
            "receipts": self.receipts,
            "roots": self.roots,
            "not_asked": self.not_asked,
            "probes": self.probes,
            "findings": [finding.document() for finding in self.findings],
        }


class ComplianceCheck:
    """One run. `metagate`: for the types of principals and the limits of policies; None: those rules are silent."""

    def __init__(
        self, gates: TenantGates, metagate: ApiClient | None, tenant: str | None, unattended: timedelta
    ) -> None:
        self._gates, self._tenant = gates, tenant
        self._metagate = None if metagate is None else patient(metagate, tenant)
        self.reading = LedgerReading(patient(gates.client("memorygate"), tenant))
        self.report = ComplianceReport()
        types = {} if self._metagate is None else principal_types(self._metagate)
        self._policies: dict[str, PolicyLimits] = {}
        self._asked: set[str] = set()
        self._lease: ReceiptFacts | None = None
        self._facts = TenantFacts(datetime.now(UTC), types, self._policies, unattended)
        if self._metagate is None:
            self.report.not_asked.append("metagate")

    def check_root(self, task_id: str) -> ComplianceReport:
        reading = self.reading.root(task_id)
        self._check(reading)
        if reading.facts:
            self._check_views(reading.facts[0].stored_at, frozenset(reading.receipts.by_task))
        return self._finished()

    def check_since(self, begin: datetime | None) -> ComplianceReport:
        for reading in self.reading.since(None if begin is None else wire_time(begin)):
            self._check(reading)
        self._check_views(begin, None)
        return self._finished()

    def run_probes(self) -> None:
        """Try what must be refused, at every gate that has an address. Raises Stop."""
        clients = {gate: self._gates.client_or_none(gate) for gate in PROBED_GATES}
        known = {gate: patient(client, None) for gate, client in clients.items() if client is not None}
        run = ProbeRun(known, self._lease_of_another())
        self.report.findings += run.findings()
        self.report.probes = run.tried

    def _lease_of_another(self) -> str | None:
        """The last lease that was read, unless it may be the person's own: a probe would end that."""
        if self._lease is None:
            return None
        try:
            self.reading.ledger.get("/inbox", principal=self._lease.recipient_ai, limit=1)
        except ApiError as error:
            if error.code != "ROLE_REQUIRED":
                raise
            return str(self._lease.body["lease_id"])
        return None

    def _check(self, reading: _RootReading) -> None:
        root = reading.receipts
        leases = [item for item in root.receipts if item.phase == "lease_issued" and "lease_id" in item.body]
        self._lease = leases[-1] if leases else self._lease
        self._read_policies(root)
        self.report.findings += reading.broken
        self.report.findings += root_findings(root, self._facts, self.reading.exists)
        self.report.findings += self._custody_findings(root)

    def _custody_findings(self, root: RootReceipts) -> list[ComplianceFinding]:
        findings = list(custody_view(root, self.reading.custody(list(root.custody))))
        if findings:
            # The root may have gone on between the two answers: what is still so a second time is so.
            again = LedgerReading(self.reading.ledger).root(root.root_task_id).receipts
            findings = list(custody_view(again, self.reading.custody(list(again.custody))))
        return findings

    def _read_policies(self, root: RootReceipts) -> None:
        if self._metagate is None:
            return
        names = {str(item.body.get("policy_profile_id")) for item in root.receipts if item.kind == "admission"}
        for name in names - self._asked - {"None"}:
            self._asked.add(name)
            limits = policy_limits(self._metagate, name)
            if limits is not None:
                self._policies[name] = limits

    def _check_views(self, begin: datetime | None, tasks: frozenset[str] | None) -> None:
        """`tasks`: only what is shown of these; None: of all."""
        for gate, check in (
            ("asyncgate", self._task_findings),
            ("depotgate", self._artifact_findings),
            ("interrogate", self._call_findings),
        ):
            client = self._gates.client_or_none(gate)
            if client is None:
                self.report.not_asked.append(gate)
            else:
                self.report.findings += check(patient(client, self._tenant), begin, tasks)

    def _task_findings(
        self, asyncgate: PatientClient, begin: datetime | None, tasks: frozenset[str] | None
    ) -> Iterator[ComplianceFinding]:
        for task in _shown_tasks(asyncgate, tasks):
            if begin is not None and datetime.fromisoformat(task["accepted_at"]) < begin:
                continue
            yield from task_view(task, self.reading.name_of)
            if task.get("lease") is not None:
                yield from lease_view(task, self.reading.leases(task["task_id"]))

    def _artifact_findings(
        self, depotgate: PatientClient, begin: datetime | None, tasks: frozenset[str] | None
    ) -> Iterator[ComplianceFinding]:
        for manifest in _shown_artifacts(depotgate, tasks, begin):
            yield from artifact_view(manifest, self.reading.name_of)

    def _call_findings(
        self, interrogate: PatientClient, begin: datetime | None, tasks: frozenset[str] | None
    ) -> Iterator[ComplianceFinding]:
        for call in interrogate.items("/v1/calls", since=None if begin is None else wire_time(begin)):
            if tasks is None or call["task_id"] in tasks:
                yield from call_view(call, self.reading.name_of)

    def _finished(self) -> ComplianceReport:
        self.report.receipts, self.report.roots = self.reading.receipts, self.reading.roots
        return self.report


def _shown_tasks(asyncgate: PatientClient, tasks: frozenset[str] | None) -> Iterator[Mapping[str, Any]]:
    if tasks is None or len(tasks) > _MOST_ASKED_SINGLY:
        yield from (task for task in asyncgate.items("/tasks") if tasks is None or task["task_id"] in tasks)
        return
    for task_id in sorted(tasks):
        try:
            yield asyncgate.get(f"/tasks/{segment(task_id)}")
        except ApiError as error:
            if error.code != "NOT_FOUND":
                raise


def _shown_artifacts(
    depotgate: PatientClient, tasks: frozenset[str] | None, begin: datetime | None
) -> Iterable[Mapping[str, Any]]:
    if tasks is None or len(tasks) > _MOST_ASKED_SINGLY:
        for manifest in depotgate.items("/artifacts"):
            # They come newest first.
            if begin is not None and datetime.fromisoformat(manifest["stored_at"]) < begin:
                return
            if tasks is None or manifest["task_id"] in tasks:
                yield manifest
        return
    for task_id in sorted(tasks):
        yield from depotgate.items("/artifacts", task_id=task_id)


def principal_types(metagate: PatientClient) -> Mapping[str, str]:
    """The type of every principal of the tenant, by its name."""
    types: dict[str, str] = {}
    cursor = None
    while True:
        page = metagate.get("/v1/topology", cursor=cursor)
        types |= {principal["principal_key"]: principal["type"] for principal in page["principals"]}
        cursor = page.get("next_cursor")
        if cursor is None:
            return types


def policy_limits(metagate: PatientClient, name: str) -> PolicyLimits | None:
    """None where the tenant has no such PolicyProfile any more."""
    try:
        profile = metagate.get(f"/v1/policy-profiles/{segment(name)}")
    except ApiError as error:
        if error.code != "NOT_FOUND":
            raise
        return None
    limits = mapping(mapping(profile["ruleset"]).get("limits"))
    return PolicyLimits(profile["policy_hash"], limits.get("maxSpawnDepth"), limits.get("maxTotalDescendants"))


def wire_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
