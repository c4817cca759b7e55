"""Principals: the list with each one's health, and the page of one."""

from typing import Any, Final
from uuid import UUID

from legivellum.console.page import Page
from legivellum.console.request_parsing import link
from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from legivellum.identity.tenancy import authorized_tenant, tenants_for
from metagate_console.explained import explained_packet
from metagate_console.page import PageRequest
from metagate_store.principal_health import STATES

PAGE: Final = 50
LAST: Final = 15
LOOKED: Final = 20_000
"""Sessions among which a principal's page looks for its last ones; the list of startups looks further back."""


async def principals(request: PageRequest) -> Page:
    tenant, query = tenants_for(request.viewer, request.tenant), request.query
    state, letters = query.one_of("state", *STATES), query.text("name")
    manifest = query.text("manifest")
    after, after_tenant = query.text("after", 512), query.id("after_tenant")
    position = None if after is None else (str(after_tenant or tenant or UUID(int=0)), after)
    page = await request.reader.principals.page(
        tenant, state=state, letters=letters, manifest=manifest, after=position, limit=PAGE
    )
    given = {"tenant": request.tenant, "state": state, "name": letters, "manifest": manifest}
    following = None
    if page.next is not None:
        following = link("principals", **given, after=page.next[1], after_tenant=page.next[0])
    return Page(
        "principals.html",
        "Principals",
        {
            "page": page,
            "given": given,
            "following": following,
            "first": after is None,
            "now": page.at,
            "states": STATES,
        },
        live=after is None,
    )


async def principal(request: PageRequest) -> Page:
    tenant, reader, key = authorized_tenant(request.viewer, request.tenant), request.reader, request.name
    served = None if "\0" in key or len(key) > 512 else await reader.item("principals", tenant, key)
    if served is None:
        raise refuse(Code.NOT_FOUND, "There is no such principal.")
    bound = served.body.get("binding")
    binding = None if bound is None else await reader.item("bindings", tenant, bound)
    last = await reader.startups(tenant, principal_key=key, limit=LAST, span=LOOKED)
    health, state = await reader.principals.health(tenant, key), await reader.state()
    values: dict[str, Any] = {
        "served": served, "binding": binding, "health": health, "last": last, "now": state.now, "details": None,
    }  # fmt: skip
    if request.viewer.admin:
        boot = await reader.history.current_boot(tenant, key)
        history = await reader.history.change_events(tenant, kind="Principal", name=key, limit=LAST)
        values["details"] = {"history": history.items, **await explained_packet(request, tenant, boot)}
    return Page("principal.html", f"Principal {key}", values, live=True)
