"""The topology: which principals use which service, how well each Manifest's principals are, and filters for both."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from legivellum.console.page import Page
from legivellum.console.request_parsing import PageQuery
from legivellum.identity.tenancy import tenants_for
from metagate_console.page import PageRequest
from metagate_console.topology_diagram import (
    manifest_groups,
    service_users,
    severity_order,
    topology_diagram,
    trouble_order,
)
from metagate_store.principal_health import STATES, PrincipalHealth
from metagate_store.reader import TOPOLOGY_PRINCIPALS
from metagate_store.rows import Topology, TopologyPrincipal

ROWS: Final = 50
"""Lines of a table, and cards: those in trouble come first, and the list of principals has the others."""
NAMES: Final = 300
"""Names that a filter's field offers."""


@dataclass(frozen=True, slots=True)
class TopologyFilter:
    """A Manifest and a service by their whole names, or by some letters when nothing has the whole name; a state."""

    manifest: str | None
    service: str | None
    state: str | None

    @property
    def active(self) -> bool:
        return self != TopologyFilter(None, None, None)

    def applied(self, topology: Topology, health: Mapping[str, PrincipalHealth]) -> Topology:
        """What is left: principals that fit, and the services that these use."""
        manifests = _meant(self.manifest, {item.manifest for item in topology.principals if item.manifest is not None})
        services = _meant(self.service, {item.name for item in topology.services})

        def fits(principal: TopologyPrincipal) -> bool:
            return (
                (manifests is None or principal.manifest in manifests)
                and (services is None or not services.isdisjoint(principal.services))
                and (self.state is None or health[principal.principal_key].state == self.state)
            )

        principals = tuple(item for item in topology.principals if item.principal_key in health and fits(item))
        kept = {item.principal_key for item in principals}
        used = tuple(
            replace(item, used_by=users)
            for item in topology.services
            if (services is None or item.name in services)
            and (users := tuple(key for key in item.used_by if key in kept))
        )
        return replace(topology, principals=principals, services=used)


def _meant(wanted: str | None, names: Iterable[str]) -> frozenset[str] | None:
    """The names that a filter means; None without one."""
    if wanted is None:
        return None
    every = frozenset(names)
    letters = wanted.casefold()
    return frozenset({wanted}) if wanted in every else frozenset(name for name in every if letters in name.casefold())


def topology_filter(query: PageQuery) -> TopologyFilter:
    return TopologyFilter(query.text("manifest"), query.text("service"), query.one_of("state", *STATES))


async def topology(request: PageRequest) -> Page:
    tenant = tenants_for(request.viewer, request.tenant)
    if tenant is None:
        return Page("tenants.html", "Topology: of whom?", {"tenants": await request.reader.overviews.tenants()})
    chosen = topology_filter(request.query)
    whole = await request.reader.topology(tenant)
    page = await request.reader.principals.page(tenant, limit=TOPOLOGY_PRINCIPALS, scan=TOPOLOGY_PRINCIPALS)
    health = {item.principal_key: item for item in page.items}
    shown, any_state = chosen.applied(whole, health), replace(chosen, state=None).applied(whole, health)
    groups = manifest_groups(shown.principals, health)
    principals = sorted(shown.principals, key=lambda item: severity_order(health[item.principal_key]))
    counts = Counter(health[item.principal_key].state for item in any_state.principals)
    values = {
        "whole": whole, "shown": shown, "groups": groups, "diagram": topology_diagram(groups, shown),
        "cards": sorted(groups, key=trouble_order), "users_of": lambda service: service_users(groups, service),
        "principals": principals, "health": health, "chosen": chosen, "counts": counts, "limit": ROWS,
        "states": STATES, "now": page.at,
        "unbound": sum(item.manifest is None for item in shown.principals),
        "manifest_names": _names(item.manifest for item in whole.principals),
        "service_names": _names(item.name for item in whole.services),
    }  # fmt: skip
    return Page("topology.html", "Topology", values, live=True)


def _names(names: Iterable[str | None]) -> list[str]:
    return sorted({name for name in names if name is not None})[:NAMES]
