"""What any principal of a tenant may read of it: rulesets and topology (D-49)."""

from typing import Annotated

from fastapi import Depends, Request, Response

from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from legivellum.identity.tenancy import authorized_tenant
from metagate_api.callers import Caller
from metagate_api.gate import Id, Key, caller_of, gate_of, said

Who = Annotated[Caller, Depends(caller_of)]


async def policy_profile(request: Request, caller: Who, key: Key, tenant: Id | None = None) -> Response:
    asked = authorized_tenant(caller, tenant)
    found = None if "\0" in key else await gate_of(request).reader.policy_profile(asked, key)
    if found is None:
        raise refuse(Code.NOT_FOUND, "There is no such PolicyProfile.")
    return said(
        {
            "key": found.name,
            "policy_hash": found.policy_hash,
            "revision": found.revision,
            "generation": found.generation,
            "ruleset": found.body,
        }
    )


async def topology(request: Request, caller: Who, tenant: Id | None = None) -> Response:
    asked = authorized_tenant(caller, tenant)
    found = await gate_of(request).reader.topology(asked)
    return said(
        {
            "tenant": asked,
            "namespace": caller.namespace if asked == caller.tenant else None,
            "revision": found.revision,
            "principals": [
                {
                    "principal_key": one.principal_key,
                    "type": one.type,
                    "suspended": one.suspended,
                    "components": {"permitted": one.components, "seen": one.seen},
                    "profile": one.profile,
                    "manifest": one.manifest,
                    "services": one.services,
                }
                for one in found.principals
            ],
            "services": [
                {"name": one.name, "type": one.type, "endpoint": one.endpoint, "used_by": one.used_by}
                for one in found.services
            ],
        }
    )
