"""The policies of all tenants, followed from MetaGate's database and held in memory (D-60).

A poll asks for the revision first and for policies only when it moved; a body travels once, because bodies are named by
their digest. What was read last is believed for `stale_seconds` and no longer: a boundary that may have missed a
restriction must not go on admitting (INV-107, INV-116).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar, Final, NamedTuple
from uuid import UUID

import structlog

from interrogate import metrics
from interrogate.ruleset import Ruleset
from legivellum.gate.snapshot_poller import SnapshotPoller, close_quietly, polling
from legivellum.postgres.errors import Unavailable
from legivellum.postgres.pool import PooledDatabase

_FIRST_LOOK_SECONDS: Final = 3.0

_log = structlog.get_logger("interrogate.policies")


class PoliciesUnknown(Unavailable):
    """By which rules to decide is not known, or not known well enough."""


class PublishedPolicy(NamedTuple):
    """A row of `metagate.policies`; `body` is None where the digest was known already."""

    tenant: UUID
    namespace: str
    name: str
    revision: int
    policy_hash: str
    body: str | None


class PolicyDatabase(PooledDatabase):
    """MetaGate's database as the role `metagate_identity`."""

    application_name: ClassVar[str] = "interrogate policies"

    async def revision(self) -> int:
        return int(await self._pool.fetchval("SELECT revision FROM metagate.state()") or 0)

    async def policies(self, known: Sequence[str]) -> list[PublishedPolicy]:
        """Every policy of every tenant; those in `known` without their bodies."""
        rows = await self._pool.fetch(
            "SELECT tenant, namespace, name, revision, policy_hash, body FROM metagate.policies($1)", list(known)
        )
        return [PublishedPolicy(*row) for row in rows]


class PolicyReplica:
    """What was published, by tenant and name. `look` is what a poller repeats."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[PolicyDatabase]],
        *,
        stale_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._stale_seconds = stale_seconds
        self._clock = clock
        self._database: PolicyDatabase | None = None
        self._confirmed_at: float | None = None
        self._revision = -1
        self._rulesets: Mapping[tuple[UUID, str], Ruleset | None] = {}
        self._bodies: dict[str, Ruleset | None] = {}
        self._looking = asyncio.Lock()

    @property
    def age(self) -> float | None:
        """Seconds since the database last confirmed it; None before the first time."""
        return None if self._confirmed_at is None else self._clock() - self._confirmed_at

    @property
    def revision(self) -> int:
        """Of the listing that was read last: that a profile is missing is known as of it."""
        return self._revision

    def find(self, tenant: UUID, name: str) -> Ruleset | None:
        """The rules of the profile of this name, None where the tenant has none.

        Raises PoliciesUnknown when policies are unknown or too old, or when this release cannot read this one.
        """
        self.require_current()
        key = (tenant, name)
        ruleset = self._rulesets.get(key)
        if ruleset is None and key in self._rulesets:
            raise PoliciesUnknown("The policy cannot be read by this release.")
        return ruleset

    def require_current(self) -> None:
        """Raises PoliciesUnknown before the first read, and when the last one is too long ago: then it fails closed."""
        age = self.age
        if age is None or age > self._stale_seconds:
            raise PoliciesUnknown("The policies are not known.")

    async def look(self) -> Mapping[str, object]:
        async with self._looking:
            if self._database is None:
                self._database = await self._connect()
            revision = await self._database.revision()
            if revision != self._revision:
                self._take_over(await self._database.policies(list(self._bodies)))
                self._revision = revision
            self._confirmed_at = self._clock()
        return {"revision": revision, "policies": len(self._rulesets)}

    def _take_over(self, published: Sequence[PublishedPolicy]) -> None:
        for row in published:
            if row.body is not None:
                self._bodies[row.policy_hash] = _read_body(row)
        hashes = {(row.tenant, row.name): row.policy_hash for row in published}
        self._bodies = {name: self._bodies.get(name) for name in hashes.values()}
        self._rulesets = {(row.tenant, row.name): self._named(row, hashes) for row in published}

    def _named(self, row: PublishedPolicy, hashes: Mapping[tuple[UUID, str], str]) -> Ruleset | None:
        """The body's rules under the name and revision of this row, with its shadow's. Bodies are shared by tenants."""
        ruleset = self._bodies[row.policy_hash]
        if ruleset is None:
            return None
        shadow: Ruleset | None = None
        if (name := ruleset.shadow_profile) is not None and (shadow_hash := hashes.get((row.tenant, name))):
            shadow = self._bodies[shadow_hash]
            # A body that two tenants share was read under the name that it has in one of them.
            shadow = None if shadow is None else replace(shadow, profile=name)
        return replace(ruleset, profile=row.name, revision=row.revision, shadow=shadow)

    async def close(self) -> None:
        await close_quietly(self._database)

    @asynccontextmanager
    async def following(self, *, seconds: float, on_look: Callable[[bool], None]) -> AsyncIterator[None]:
        """Poll while the block runs. `on_look` is told whether each look succeeded."""

        async def look() -> Mapping[str, object]:
            facts = await self.look()
            report(reached=True)
            return facts

        def report(*, reached: bool) -> None:
            metrics.POLICY_AGE.set(-1 if self.age is None else self.age)
            on_look(reached)

        poller = SnapshotPoller(
            "policies",
            look,
            logger="interrogate.policies",
            seconds=seconds,
            on_lost=lambda _error: report(reached=False),
        )
        try:
            async with polling(poller, first_look_seconds=_FIRST_LOOK_SECONDS):
                yield
        finally:
            await self.close()


def _read_body(row: PublishedPolicy) -> Ruleset | None:
    """A newer MetaGate may publish what this release cannot judge by: such a policy admits nobody, others go on."""
    try:
        body: Any = json.loads(row.body or "")
        return Ruleset.from_policy(body, profile=row.name, policy_hash=row.policy_hash, revision=row.revision)
    except Exception as error:  # noqa: BLE001 - one policy that cannot be read must not hide all others
        _log.error("policy_unreadable", policy_hash=row.policy_hash, error=type(error).__qualname__, exc_info=error)
        return None
