"""What the later requests of a batch see of the earlier ones (IG-01).

A batch is observed in one statement, so all of it saw the same moment. Its requests are decided one after the other,
in the order of their arrival, as if each had been stored before the next was observed: what a decision will change is
added to what was observed for those behind it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from uuid import UUID

from interrogate.decision import AdmissionOutcome, Decision
from interrogate.observation import ObservationRequest, Observed


class DecidedBatch:
    """The decisions of one batch so far, none of which is stored yet."""

    def __init__(self) -> None:
        self._versions: Counter[tuple[UUID, str]] = Counter()
        self._descendants: Counter[tuple[UUID, str]] = Counter()
        self._repeats: Counter[tuple[UUID, str, str]] = Counter()
        self._spawned: Counter[tuple[UUID, str]] = Counter()
        self._tats: dict[tuple[UUID, str], int] = {}
        self._tasks: set[tuple[UUID, str]] = set()
        """What was admitted."""
        self._named: set[tuple[UUID, str]] = set()
        """What was asked for, admitted or not."""
        self._keys: set[tuple[UUID, str, str]] = set()

    def adjusted(self, request: ObservationRequest, observed: Observed) -> Observed | None:
        """What would be observed now, were the batch stored. None: only the database can say, ask again.

        That is so where its parent is a task of this batch, because nobody asked who has custody of it; and where
        another request of this batch names the same task or idempotency key: what is stored for it may answer both.
        """
        tenant = request.tenant
        if (
            (request.parent_task_id is not None and (tenant, request.parent_task_id) in self._tasks)
            or (request.task_id is not None and (tenant, request.task_id) in self._named)
            or (
                request.idempotency_key is not None
                and (tenant, request.principal_key, request.idempotency_key) in self._keys
            )
        ):
            return None
        tats = tuple(
            max(self._tats.get((tenant, key), 0), tat)
            for key, tat in zip(request.rate_keys, observed.rate_tats, strict=True)
        )
        root, capability_id, lease = _root_of(request, observed), request.capability_id, observed.lease
        if lease is not None:
            lease = replace(lease, spawned=lease.spawned + self._spawned[tenant, lease.lease_id])
        if root is None:
            return replace(observed, rate_tats=tats, lease=lease)
        repeats = self._repeats[tenant, root, capability_id] if capability_id is not None else 0
        return replace(
            observed,
            version=observed.version + self._versions[tenant, root],
            descendants=observed.descendants + self._descendants[tenant, root],
            repeats=observed.repeats + repeats,
            rate_tats=tats,
            lease=lease,
        )

    def add(self, request: ObservationRequest, observed: Observed, decision: Decision, *, begins: bool) -> None:
        """Remember what storing this decision will change. `observed`: what it was decided by."""
        tenant, root = request.tenant, decision.root_task_id
        if request.task_id is not None:
            self._named.add((tenant, request.task_id))
        if request.idempotency_key is not None:
            self._keys.add((tenant, request.principal_key, request.idempotency_key))
        for key, tat in zip(request.rate_keys, decision.rate_tats or (), strict=False):
            self._tats[tenant, key] = tat
        if decision.outcome is AdmissionOutcome.DENY:
            return
        if decision.spawns_under_lease and observed.lease is not None:
            self._spawned[tenant, observed.lease.lease_id] += 1
        if root is None:
            return
        self._versions[tenant, root] += 1
        if request.capability_id is not None:
            self._repeats[tenant, root, request.capability_id] += 1
        if begins:
            self._tasks.add((tenant, decision.task_id or request.receipt_id))
            if decision.depth:
                self._descendants[tenant, root] += 1


def _root_of(request: ObservationRequest, observed: Observed) -> str | None:
    """The root whose counts were observed."""
    if request.root_task_id is not None:
        return request.root_task_id
    return observed.parent.root_task_id if observed.parent is not None else None
