"""What `legivellum comply --probe` tries: requests that every gate must refuse, whoever sends them.

They are sent with the person's own credential, under ids that nobody has. What a gate refuses leaves nothing; what it
takes by mistake stays in the ledger, so this is for a machine of one's own or a tenant made for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from metagate_cli.api_client import ApiClient, ApiError
from metagate_cli.compliance.findings import ComplianceFinding, FindingCode
from metagate_cli.terminal import UNABLE, Stop

_ROLE: Final = re.compile(r"phase: a (\w+) may not emit")
_NOBODY: Final = "nobody-of-this-tenant"
_ALL_AUTHORITY: Final = {
    "spawn": {"max": 200}, "invokeCognigate": True, "exposeTools": ["*"], "writeBeyondReceipts": True, "maxDepth": 1024,
    "cognition": {"models": ["any"], "calls": 1000, "tokens": 10_000_000, "seconds": 7200},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ComplianceProbe:
    """`refused`: the codes with which the gate may refuse. In `path` and `body` {id} is new and {lease} another's."""

    name: str
    gate: str
    path: str
    body: Mapping[str, Any]
    refused: frozenset[str]
    query: Mapping[str, str] = field(default_factory=dict)
    permitted_to: frozenset[str] = frozenset()
    """Types of principals that may do this: for them it is not tried."""


def _receipt(**members: Any) -> Mapping[str, Any]:
    return {"receipt_id": "{id}", "phase": "accepted", "task_id": "{id}", "principal_ai": _NOBODY, **members}


_END: Final = {"status": "success", "outcome_kind": "none", "completed_at": "2027-01-01T00:00:00Z"}
_LEASE_REFUSED: Final = frozenset({"LEASE_LOST", "ROLE_REQUIRED"})
_TASK_REFUSED: Final = frozenset({
    "OBLIGATION_NOT_ACCEPTED", "EMITTER_MISMATCH", "ROLE_REQUIRED", "ADMISSION_REQUIRED", "RECIPIENT_UNKNOWN",
})  # fmt: skip

PROBES: Final[Sequence[ComplianceProbe]] = (
    ComplianceProbe(
        "an admission that InterroGate did not make", "memorygate", "/receipts", _receipt(kind="admission"),
        frozenset({"MAY_NOT_EMIT"}),
    ),
    ComplianceProbe(
        "a receipt in the name of a gate", "memorygate", "/receipts", _receipt(emitter="svc:asyncgate"),
        frozenset({"EMITTER_MISMATCH"}),
    ),
    ComplianceProbe(
        "an obligation on behalf of somebody else", "memorygate", "/receipts", _receipt(),
        frozenset({"EMITTER_MISMATCH", "MAY_NOT_EMIT"}), permitted_to=frozenset({"delegate"}),
    ),
    ComplianceProbe(
        "a plan of nobody who plans", "memorygate", "/receipts", _receipt(task_type="plan"),
        frozenset({"MAY_NOT_EMIT"}), permitted_to=frozenset({"delegate"}),
    ),
    ComplianceProbe(
        "the end of what nobody accepted", "memorygate", "/receipts", _receipt(**{**_END, "phase": "complete"}),
        frozenset({"OBLIGATION_NOT_ACCEPTED", "MAY_NOT_EMIT"}),
    ),
    ComplianceProbe(
        "a task that nobody accepted", "asyncgate", "/tasks",
        {"task_id": "{id}", "principal_ai": _NOBODY, "payload_pointer": "probe:nothing", "capability": "probe"},
        _TASK_REFUSED,
    ),
    ComplianceProbe(
        "a task with all authority", "asyncgate", "/tasks",
        {
            "task_id": "{id}", "principal_ai": _NOBODY, "payload_pointer": "probe:nothing", "capability": "probe",
            "authority": _ALL_AUTHORITY,
        },
        _TASK_REFUSED | {"AUTHORITY_EXCEEDED"},
    ),
    ComplianceProbe(
        "the end of a task under the lease of another", "asyncgate", "/complete",
        {"lease_id": "{lease}", "status": "success", "outcome_kind": "none"},
        _LEASE_REFUSED,
    ),
    ComplianceProbe(
        "the renewal of the lease of another", "asyncgate", "/lease/renew", {"lease_id": "{lease}"}, _LEASE_REFUSED
    ),
    ComplianceProbe(
        "an output without a lease", "depotgate", "/artifacts", {"probe": True},
        frozenset({"ROLE_NOT_PERMITTED", "LEASE_REQUIRED"}), {"role": "output", "task_id": "{id}"},
    ),
    ComplianceProbe(
        "a plan in the store by nobody who plans", "depotgate", "/artifacts", {"probe": True},
        frozenset({"ROLE_NOT_PERMITTED"}), {"role": "plan", "task_id": "{id}"}, frozenset({"delegate"}),
    ),
)  # fmt: skip


PROBED_GATES: Final = ("memorygate", "asyncgate", "depotgate", "delegate", "interrogate")


class ProbeRun:
    """One run of all probes at the gates that there are. `lease`: one that somebody else had, as receipts name it."""

    def __init__(self, gates: Mapping[str, ApiClient], lease: str | None) -> None:
        self._gates, self._lease = gates, lease
        self._role: str | None = None
        self.tried = 0

    def findings(self) -> Iterator[ComplianceFinding]:
        """What was not refused. Raises Stop where a gate answers neither."""
        for probe in PROBES:
            client = self._gates.get(probe.gate)
            if client is None or self._role in probe.permitted_to:
                continue
            self.tried += 1
            if self._is_taken(client, probe):
                yield ComplianceFinding(FindingCode.PROBE_NOT_REFUSED, "-", f"{probe.gate} took {probe.name}")
        for gate, client in self._gates.items():
            self.tried += 1
            if self._lets_anybody_in(client):
                yield ComplianceFinding(FindingCode.PROBE_NOT_REFUSED, "-", f"{gate} answers without a credential")

    def _is_taken(self, client: ApiClient, probe: ComplianceProbe) -> bool:
        values = {"{id}": _new_id(), "{lease}": self._lease or _new_id()}
        query = {name: values.get(value, value) for name, value in probe.query.items()}
        body = {
            name: values.get(value, value) if isinstance(value, str) else value for name, value in probe.body.items()
        }
        try:
            client.post(probe.path, body, **query)
        except ApiError as error:
            if error.code not in probe.refused:
                raise Stop(f"{probe.gate} answers {error} to {probe.name}", code=UNABLE) from error
            # The first refusal says which type of principal this is.
            role = _ROLE.match(str(error.problem.get("detail")))
            self._role = self._role or (role[1] if role else None)
            return False
        return True

    def _lets_anybody_in(self, client: ApiClient) -> bool:
        try:
            replace(client, headers={}).get("/v1/interview")
        except ApiError as error:
            if error.status != 401:
                raise Stop(f"{client.gate} answers {error} without a credential", code=UNABLE) from error
            return False
        return True


def _new_id() -> str:
    from legivellum_worker.ulids import new_ulid

    return new_ulid()
