"""The task and its lease as this process knows them: what every handler sees of them, and what gates are asked with."""

from __future__ import annotations

import itertools
import threading
import time

from legivellum_worker.dependencies import RETRY_SECONDS, Evidence
from legivellum_worker.gate_client import LEASE_HEADER
from legivellum_worker.plan_step import NO_STEP
from legivellum_worker.results import Release
from metagate_client.errors import MisconfiguredError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from legivellum_worker.artifacts import DepotGateClient
    from legivellum_worker.plan_step import LeasedStep, StepJob
    from legivellum_worker.settings import GateAccess, WorkerSettings


class LeaseLostError(Exception):
    """The lease has ended: expired, revoked, or another worker's by now. What the handler still does is not counted."""


def boot_clock() -> float:
    """Seconds of a clock that goes on while the machine sleeps, where there is one: a lease ends also then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class WorkerLease:
    """A lease as this process knows it: the answer of the gate, and when it ends by the local clock.

    The time that the gate gives is counted from a moment before its answer was read. So a process that was stopped
    meanwhile does not believe in a lease that has ended, and no clocks of two machines are compared.
    """

    __slots__ = ("_clock", "_ends_at", "content", "lease_id", "lost", "renewals_left", "ttl_seconds")

    def __init__(
        self, content: Mapping[str, Any], counted_from: float, *, clock: Callable[[], float] = boot_clock
    ) -> None:
        self.content = content
        self.lease_id = str(content["lease_id"])
        self.lost = threading.Event()
        self.ttl_seconds = content["expires_in_ms"] / 1000
        self.renewals_left: int = content.get("renewals_left", 0)
        self._clock = clock
        self._ends_at: float = counted_from + self.ttl_seconds

    def extend(self, answer: Mapping[str, Any], requested_at: float) -> None:
        """Note the answer of a renewal."""
        self._ends_at = requested_at + answer["expires_in_ms"] / 1000
        self.renewals_left = answer.get("renewals_left", 0)

    def seconds_left(self) -> float:
        """Until the lease ends; 0 when it has ended or was lost."""
        return 0.0 if self.lost.is_set() else max(0.0, self._ends_at - self._clock())


class LeasedWork:
    """A leased task. Attributes are the fields of the task and of the lease as AsyncGate gave them."""

    __slots__ = ("_evidence", "_gates", "_lease", "_spawned", "_step", "cancelled")

    def __init__(self, lease: WorkerLease, gates: WorkerSettings) -> None:
        self._lease, self._gates = lease, gates
        self._step: LeasedStep | None = NO_STEP
        self._spawned = itertools.count(1)
        self.cancelled = threading.Event()
        """Set when the lease was lost or the worker stops: a handler that is not async looks at it now and then."""
        self._evidence = Evidence(self.evidence, gates.memorygate, self.cancelled)

    def __repr__(self) -> str:
        return f"<Work on {self.task_id}, lease {self.number}>"

    @property
    def lease(self) -> Mapping[str, Any]:
        """The lease as it came, with the task in it."""
        return self._lease.content

    @property
    def task(self) -> Mapping[str, Any]:
        task: Mapping[str, Any] = self._lease.content["task"]
        return task

    @property
    def task_id(self) -> str:
        return str(self.task["task_id"])

    @property
    def obligation_id(self) -> str:
        return str(self.task.get("obligation_id") or self.task_id)

    @property
    def principal_ai(self) -> str:
        """Whose work it is."""
        return str(self.task["principal_ai"])

    @property
    def capability(self) -> str:
        return str(self.task.get("capability") or "default")

    @property
    def payload_pointer(self) -> str:
        """Where the payload is. AsyncGate holds no payloads, and this library fetches none."""
        return str(self.task["payload_pointer"])

    @property
    def authority(self) -> Mapping[str, Any]:
        """What the work may do; what is absent is denied. Gates judge it, not this library."""
        authority: Mapping[str, Any] = self.task.get("authority") or {}
        return authority

    @property
    def number(self) -> int:
        """Counts the leases of the task: a fence for outside systems, which refuse a lower number than they saw."""
        return int(self._lease.content["number"])

    @property
    def lease_id(self) -> str:
        return self._lease.lease_id

    @property
    def issued_at_ms(self) -> int:
        """When the lease was issued, by AsyncGate's clock: milliseconds since 1970."""
        from datetime import datetime

        return int(datetime.fromisoformat(str(self._lease.content["issued_at"])).timestamp() * 1000)

    @property
    def depth(self) -> int:
        return int(self._lease.content.get("depth") or 0)

    @property
    def root_task_id(self) -> str:
        return str(self._lease.content.get("root_task_id") or self.task_id)

    @property
    def evidence(self) -> Sequence[str]:
        """The receipts that met the task's needs."""
        evidence: Sequence[str] = self._lease.content.get("evidence") or ()
        return evidence

    @property
    def job(self) -> StepJob:
        """What the step of the plan asks for; empty where the task is no step of a plan.

        Raises Release where the plan could not be read, because the worker knows no DepotGate.
        """
        if self._step is None:
            raise Release(RETRY_SECONDS, "the worker knows no DepotGate, and cannot read the plan")
        return self._step.job

    @property
    def headers(self) -> dict[str, str]:
        """The credential for InterroGate and the lease, for an MCP client at its `/mcp`; AsyncGate's credential where
        the worker knows no InterroGate. Read anew, as tokens are renewed.
        """
        return self.headers_for("interrogate" if self._gates.interrogate is not None else "asyncgate")

    def headers_for(self, gate: str) -> dict[str, str]:
        """The credential and the lease, for calls of the handler to this gate. Raises MisconfiguredError."""
        access: GateAccess | None = getattr(self._gates, gate, None)
        if access is None:
            raise MisconfiguredError(f"{gate} is not known to this worker: set METAGATE_{gate.upper()}_URL")
        name, value = access.credential()
        return {name: value, LEASE_HEADER: self.lease_id}

    @property
    def artifacts(self) -> DepotGateClient:
        """DepotGate, where deposits are made under this lease. Its methods block: an `async def` handler calls them
        with `asyncio.to_thread`.
        """
        return self.depot()

    @property
    def knows_depot(self) -> bool:
        return self._gates.depotgate is not None

    def depot(self, *, patience_seconds: float | None = None) -> DepotGateClient:
        """`artifacts`, which tries for as long as it is told. Raises MisconfiguredError."""
        from legivellum_worker.artifacts import DepotGateClient

        if self._gates.depotgate is None:
            raise MisconfiguredError(
                "DepotGate is not known to this worker: set METAGATE_DEPOTGATE_URL, and a credential for it"
            )
        options = {} if patience_seconds is None else {"patience_seconds": patience_seconds}
        return DepotGateClient(self._gates.depotgate, lease_id=self.lease_id, cancelled=self.cancelled, **options)

    def seconds_left(self) -> float:
        """Until the lease ends, if it were not renewed any more."""
        return self._lease.seconds_left()

    def check(self) -> None:
        """Raises LeaseLostError when the lease was lost: call it between steps of long work."""
        if self.seconds_left() == 0:
            raise LeaseLostError(f"the lease {self.number} of {self.task_id} has ended")
