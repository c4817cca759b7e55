"""One operator writes, another one waits: a Lease says who.

The Lease keeps replicas from fighting; it is the database's lock and epoch that make a second writer harmless (F28). So
an API server that does not answer is no reason to step down: nobody else can have taken the Lease meanwhile, and what
is declared stays served.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from metagate_operator.cluster.kubernetes_client import KubernetesClient, KubernetesError, KubernetesRefused

log = structlog.get_logger(__name__)

LEASE_NAME = "metagate-operator"


class LeadershipLost(Exception):  # noqa: N818 - it names what happened
    """Another replica holds the Lease."""


class LeaderElection:
    """A Lease of coordination.k8s.io in the operator's own namespace. Times in seconds; whether it has run out is
    judged by the local clock.
    """

    def __init__(
        self,
        kubernetes: KubernetesClient,
        namespace: str,
        identity: str,
        *,
        duration: float = 15.0,
        renew_every: float = 5.0,
        clock: Callable[[], float],
    ) -> None:
        self._kubernetes = kubernetes
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._identity = identity
        self._duration = duration
        self._renew_every = renew_every
        self._clock = clock
        self._seen: tuple[str, float] | None = None  # another's record as last seen, and when it was first seen so
        self.is_leader = False

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        waiting = False
        while not await self._try():
            if not waiting:
                log.info("leadership_awaited", lease=LEASE_NAME)
                waiting = True
            await asyncio.sleep(self._renew_every * random.uniform(0.4, 0.6))  # noqa: S311 - jitter
        log.info("leadership_acquired", lease=LEASE_NAME, identity=self._identity)
        self.is_leader = True

    async def keep(self) -> None:
        """Renew until cancelled.

        Raises:
            LeadershipLost: somebody else holds it.

        """
        while True:
            await asyncio.sleep(self._renew_every * random.uniform(0.9, 1.1))  # noqa: S311 - jitter
            try:
                if not await self._renew():
                    self.is_leader = False
                    raise LeadershipLost(f"another replica took the Lease {LEASE_NAME}")
            except KubernetesError as error:
                log.warning("lease_not_renewed", error=str(error))

    async def release(self) -> None:
        """Let the next one in at once."""
        if not self.is_leader:
            return
        self.is_leader = False
        try:
            lease = await self._kubernetes.get(f"{self._path}/{LEASE_NAME}")
            if lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"].update(holderIdentity="", leaseDurationSeconds=1)
                await self._kubernetes.call("PUT", f"{self._path}/{LEASE_NAME}", body=lease, within=2)
        except KubernetesError as error:
            log.info("lease_not_released", error=str(error))

    async def _try(self) -> bool:
        try:
            lease = await self._kubernetes.get(f"{self._path}/{LEASE_NAME}")
        except KubernetesRefused as error:
            if error.status != 404:
                log.warning("lease_unreadable", error=str(error))
                return False
            return await self._write("POST", self._path, {"metadata": {"name": LEASE_NAME}, "spec": self._record({})})
        except KubernetesError as error:
            log.warning("lease_unreadable", error=str(error))
            return False
        holder = lease.get("spec") or {}
        if holder.get("holderIdentity") not in {None, "", self._identity} and not self._run_out(lease, holder):
            return False
        lease["spec"] = self._record(holder)
        return await self._write("PUT", f"{self._path}/{LEASE_NAME}", lease)

    async def _renew(self) -> bool:
        lease = await self._kubernetes.get(f"{self._path}/{LEASE_NAME}")
        holder = lease.get("spec") or {}
        if holder.get("holderIdentity") not in {None, "", self._identity}:
            return False
        lease["spec"] = self._record(holder)
        return await self._write("PUT", f"{self._path}/{LEASE_NAME}", lease) or await self._renew()

    def _run_out(self, lease: dict[str, Any], holder: dict[str, Any]) -> bool:
        """Clocks differ between machines, so what counts is how long we have seen the same record ourselves."""
        version = lease["metadata"]["resourceVersion"]
        now = self._clock()
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
        return now - self._seen[1] > float(holder.get("leaseDurationSeconds") or self._duration)

    def _record(self, holder: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = holder.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._duration),
            "acquireTime": holder.get("acquireTime", now) if ours else now,
            "renewTime": now,
            "leaseTransitions": int(holder.get("leaseTransitions") or 0) + (0 if ours else 1),
        }

    async def _write(self, method: str, path: str, lease: dict[str, Any]) -> bool:
        """False when somebody else wrote first."""
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease}
        return await self._kubernetes.write(method, path, body)
