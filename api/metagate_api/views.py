"""What any principal of a tenant may read of it: rulesets and topology (D-49)."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import Query, Request, Response

from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from legivellum.identity.tenancy import authorized_tenant
from metagate_api import cursors
from metagate_api.gate import gate_of
from metagate_api.rendering import rendered
from metagate_api.request_parameters import CurrentCaller, KeyParameter, PageCursor, UuidParameter
from metagate_api.responses import json_response
from metagate_store.reader import TOPOLOGY_PRINCIPALS
from metagate_store.rows import Topology, TopologyPrincipal

TopologyLimit = Annotated[int | None, Query(ge=1, le=TOPOLOGY_PRINCIPALS)]


async def policy_profile(
    request: Request, caller: CurrentCaller, key: KeyParameter, tenant: UuidParameter | None = None
) -> Response:
    asked = authorized_tenant(caller, tenant)
    profile = None if "\0" in key else await gate_of(request).reader.policy_profile(asked, key)
    if profile is None:
        raise refuse(Code.NOT_FOUND, "There is no such PolicyProfile.")
    return json_response(
        {
            "key": profile.name,
            "policy_hash": profile.policy_hash,
            "revision": profile.revision,
            "generation": profile.generation,
            "ruleset": profile.body,
        }
    )


PAGE_BYTES: Final = 1_048_576
"""A page ends at this size of its principals, or at `limit` (D-66)."""


async def topology(
    request: Request,
    caller: CurrentCaller,
    tenant: UuidParameter | None = None,
    limit: TopologyLimit = None,
    cursor: PageCursor = None,
) -> Response:
    """One page of the tenant's principals; `services` and their `used_by` are those of these principals."""
    asked = authorized_tenant(caller, tenant)
    position = cursors.read(cursors.TOPOLOGY, cursor)
    cursors.require_tenant(position, asked)
    after = None if position is None else position[1]
    page = await gate_of(request).reader.topology(asked, after=after, limit=limit or TOPOLOGY_PRINCIPALS)
    principals = _fitting(page.principals)
    cut = len(principals) < len(page.principals)
    following = (str(asked), principals[-1]["principal_key"]) if page.more or cut else None
    return json_response(
        {
            "tenant": asked,
            "namespace": caller.namespace if asked == caller.tenant else None,
            "revision": page.revision,
            "principals": principals,
            "services": _services(page, principals if cut else None),
            "next_cursor": cursors.written(cursors.TOPOLOGY, following),
        }
    )


def _fitting(principals: Sequence[TopologyPrincipal]) -> list[dict[str, Any]]:
    """The principals as they are shown, until the page is full; the first one always."""
    shown: list[dict[str, Any]] = []
    size = 0
    for principal in principals:
        item = {
            "principal_key": principal.principal_key,
            "type": principal.type,
            "suspended": principal.suspended,
            "components": {"permitted": principal.components, "seen": principal.seen},
            "profile": principal.profile,
            "manifest": principal.manifest,
            "services": principal.services,
        }
        size += len(rendered(item))
        if shown and size > PAGE_BYTES:
            break
        shown.append(item)
    return shown


def _services(page: Topology, principals: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """The page's services; of a page that was cut only what `principals` use."""
    names = None if principals is None else {item["principal_key"] for item in principals}
    shown = []
    for service in page.services:
        used_by = [name for name in service.used_by if names is None or name in names]
        if used_by:
            shown.append({"name": service.name, "type": service.type, "endpoint": service.endpoint, "used_by": used_by})
    return shown
