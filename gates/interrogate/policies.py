"""The policies of all tenants, followed from MetaGate's database and held in memory (D-60)."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

import structlog

from interrogate.ruleset import Ruleset
from legivellum.gate.published_replica import PublishedDatabase, PublishedReplica
from legivellum.postgres.errors import Unavailable

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


class PolicyDatabase(PublishedDatabase):
    application_name: ClassVar[str] = "interrogate policies"

    async def policies(self, known: Sequence[str]) -> list[PublishedPolicy]:
        """Every policy of every tenant; those in `known` without their bodies."""
        rows = await self._pool.fetch(
            "SELECT tenant, namespace, name, revision, policy_hash, body FROM metagate.policies($1)", list(known)
        )
        return [PublishedPolicy(*row) for row in rows]


class PolicyReplica(PublishedReplica[PolicyDatabase]):
    """What was published, by tenant and name."""

    unknown = PoliciesUnknown
    gate = "interrogate"
    subject = "policies"

    def __init__(
        self,
        connect: Callable[[], Awaitable[PolicyDatabase]],
        *,
        stale_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(connect, stale_seconds=stale_seconds, clock=clock)
        self._rulesets: Mapping[tuple[UUID, str], Ruleset | None] = {}
        self._bodies: dict[str, Ruleset | None] = {}

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

    async def _read(self, database: PolicyDatabase) -> None:
        self._take_over(await database.policies(list(self._bodies)))

    def _size(self) -> int:
        return len(self._rulesets)

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


def _read_body(row: PublishedPolicy) -> Ruleset | None:
    """A newer MetaGate may publish what this release cannot judge by: such a policy admits nobody, others go on."""
    try:
        body: Any = json.loads(row.body or "")
        return Ruleset.from_policy(body, profile=row.name, policy_hash=row.policy_hash, revision=row.revision)
    except Exception as error:  # noqa: BLE001 - one policy that cannot be read must not hide all others
        _log.error("policy_unreadable", policy_hash=row.policy_hash, error=type(error).__qualname__, exc_info=error)
        return None
