"""All rules that look at the receipts of one root."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from metagate_cli.compliance import authority, causes, edges, lease_times, obligations, plans, recursion
from metagate_cli.compliance.findings import ComplianceFinding
from metagate_cli.compliance.receipt_facts import RootReceipts, TenantFacts

RootRule = Callable[[RootReceipts, TenantFacts], Iterator[ComplianceFinding]]

RULES: Final[tuple[RootRule, ...]] = (
    obligations.ended_twice,
    obligations.not_accepted,
    obligations.opened_by_others,
    authority.usage_beyond_authority,
    authority.calls_beyond_authority,
    authority.deposits_beyond_authority,
    authority.grown_authority,
    lease_times.lease_over,
    edges.edge_not_permitted,
    authority.spawned_beyond_authority,
    recursion.beyond_policy,
    recursion.depth_not_derived,
    plans.plan_not_closed,
    obligations.unattended,
)


def root_findings(
    root: RootReceipts, tenant: TenantFacts, exists: Callable[[str], bool]
) -> Iterator[ComplianceFinding]:
    """`exists`: whether the ledger has a receipt of that id, for causes of another root."""
    for rule in RULES:
        yield from rule(root, tenant)
    yield from causes.cause_unknown(root, exists)
