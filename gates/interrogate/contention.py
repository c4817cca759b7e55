"""What processes contend for: roots, rates and leases on which decisions lately had to be made again.

A decision that holds no lock while it is made is cheaper and waits for nobody, as long as nobody changes what it rests
on. Where that happens, it would happen again and again: for some seconds such requests are decided under locks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from typing import Final
from uuid import UUID

from interrogate.envelope import Envelope, value_or_none
from interrogate.observation import LeasePlacement, ObservationRequest, Requester

SECONDS: Final = 5.0
MOST: Final = 10_000


class Contention:
    """Of one process. Bounded: beyond `most` names the oldest is forgotten, and then decided without locks at first."""

    def __init__(
        self, *, seconds: float = SECONDS, most: int = MOST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._until: dict[Hashable, float] = {}

    def note(self, question: ObservationRequest) -> None:
        """A decision on it moved before it was recorded."""
        until = self._clock() + self._seconds
        for name in _names(question.tenant, question.root_task_id, question.lease_id):
            self._remember(name, until)
        if question.rate_keys:
            self._remember(_rates(question.tenant, question.profile, question.principal_key), until)

    def expected(
        self, tenant: UUID, envelope: Envelope, requester: Requester, leased: LeasePlacement | None = None
    ) -> bool:
        """Whether to decide it under locks. `leased`: where its lease places it."""
        if not self._until:
            return False
        root = value_or_none(envelope.causality.root_task_id) if leased is None else leased.root_task_id
        if root is None and value_or_none(envelope.causality.parent_task_id) is not None:
            # Its root is only known when the parent has been looked up, and locks have one order.
            return False
        now = self._clock()
        rates = _rates(tenant, envelope.policy_profile_id, requester.principal_key)
        return any(self._until.get(name, 0.0) > now for name in (*_names(tenant, root, requester.lease_id), rates))

    def _remember(self, name: Hashable, until: float) -> None:
        self._until.pop(name, None)  # the newest is the last
        self._until[name] = until
        if len(self._until) > self._most:
            del self._until[next(iter(self._until))]


def _names(tenant: UUID, root_task_id: str | None, lease_id: str | None) -> Iterator[Hashable]:
    if root_task_id is not None:
        yield tenant, "root", root_task_id
    if lease_id is not None:
        yield tenant, "lease", lease_id


def _rates(tenant: UUID, profile: str, principal_key: str) -> Hashable:
    """All rates of a request belong to its principal, under a profile (IG-11)."""
    return tenant, "rates", profile, principal_key
