"""What any principal of a tenant may read of it: rulesets and topology (D-49)."""

from fastapi import Request, Response

from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from legivellum.identity.tenancy import authorized_tenant
from metagate_api.gate import gate_of
from metagate_api.request_parameters import CurrentCaller, KeyParameter, UuidParameter
from metagate_api.responses import json_response


async def policy_profile(
    request: Request, caller: CurrentCaller, key: KeyParameter, tenant: UuidParameter | None = None
) -> Response:
    asked = authorized_tenant(caller, tenant)
    found = None if "\0" in key else await gate_of(request).reader.policy_profile(asked, key)
    if found is None:
        raise refuse(Code.NOT_FOUND, "There is no such PolicyProfile.")
    return json_response(
        {
            "key": found.name,
            "policy_hash": found.policy_hash,
            "revision": found.revision,
            "generation": found.generation,
            "ruleset": found.body,
        }
    )


async def topology(request: Request, caller: CurrentCaller, tenant: UuidParameter | None = None) -> Response:
    asked = authorized_tenant(caller, tenant)
    found = await gate_of(request).reader.topology(asked)
    return json_response(
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
