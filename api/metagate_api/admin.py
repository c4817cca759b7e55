"""The admin views: what the database serves, with its revision; standalone also writing (D-12, D-53)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from fastapi import Request, Response

from legivellum.http import strict_json
from legivellum.http.problems import refuse
from legivellum.identity.caller import CLUSTER
from legivellum.identity.tenancy import authorized_tenant, tenants_for
from metagate_api import cursors
from metagate_api.callers import Caller
from metagate_api.declared_files import DeclaredFiles, FileWritten, ResourceFinding
from metagate_api.gate import exchange_of, gate_of
from metagate_api.problem_codes import Code
from metagate_api.request_parameters import (
    Authentication,
    CurrentAdmin,
    KeyParameter,
    PageCursor,
    PageLimit,
    UuidParameter,
    require_admin,
)
from metagate_api.responses import empty_response, json_response
from metagate_crds import kinds
from metagate_crds.rules.patterns import is_object_name
from metagate_store.rows import Item

Readable = Literal[
    "principals", "profiles", "manifests", "bindings", "secret-refs", "policy-profiles", "problematas", "plan-templates"
]
Writable = Literal[
    "principals",
    "profiles",
    "manifests",
    "bindings",
    "secret-refs",
    "policy-profiles",
    "problematas",
    "plan-templates",
    "token-issuers",
]

DECLARED_AS: Final[Mapping[str, kinds.ResourceKind]] = {
    "principals": kinds.PRINCIPAL,
    "profiles": kinds.PROFILE,
    "manifests": kinds.MANIFEST,
    "bindings": kinds.PRINCIPAL_BINDING,
    "secret-refs": kinds.PROFILE,
    "policy-profiles": kinds.POLICY_PROFILE,
    "problematas": kinds.PROBLEMATA,
    "plan-templates": kinds.PLAN_TEMPLATE,
    "token-issuers": kinds.TOKEN_ISSUER,
}
"""The resource that declares what each view shows; a secret ref is a line of its Profile."""

_WIDER = ("scope", "rights")


def shown(item: Item) -> dict[str, Any]:
    return {
        "key": item.name,
        "tenant": item.tenant,
        "namespace": item.namespace,
        "revision": item.revision,
        **item.body,
    }


async def listing(  # noqa: PLR0917  # the framework fills them in by name
    request: Request,
    caller: CurrentAdmin,
    kind: Readable,
    tenant: UuidParameter | None = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
) -> Response:
    page = await gate_of(request).reader.listing(
        kind, tenants_for(caller, tenant), after=cursors.read(kind, cursor), limit=limit
    )
    return json_response(
        {"items": [shown(item) for item in page.items], "next_cursor": cursors.written(kind, page.next)}
    )


async def item(
    request: Request,
    caller: CurrentAdmin,
    kind: Readable,
    key: KeyParameter,
    tenant: UuidParameter | None = None,
) -> Response:
    served = None
    if "\0" not in key:
        served = await gate_of(request).reader.item(kind, authorized_tenant(caller, tenant), key)
    if served is None:
        raise refuse(Code.NOT_FOUND, "There is no such object.")
    return json_response(shown(served))


@dataclass(frozen=True, slots=True)
class _Target:
    files: DeclaredFiles
    kind: kinds.ResourceKind


async def write(request: Request, authentication: Authentication, kind: Writable) -> Response:
    exchange = exchange_of(request)
    exchange.require_json()
    body = strict_json.parse_object(await request.body())
    caller = await require_admin(gate_of(request), authentication)
    target = _target(request, caller, kind)
    resource = _resource(body, target.kind)
    metadata = resource["metadata"]
    namespace = _namespace(caller, target.kind, metadata)
    if any(name in resource["spec"] for name in _WIDER) and target.kind is kinds.PRINCIPAL:
        raise refuse(Code.ROLE_REQUIRED, "spec.scope and spec.rights cannot be given through this endpoint.")
    name = metadata["name"]
    outcome = await target.files.write(kind=target.kind.name, namespace=namespace, name=name, resource=resource)
    if isinstance(outcome, FileWritten):
        return json_response(
            {"kind": target.kind.name, "namespace": namespace, "name": name, "created": outcome.created},
            status=201 if outcome.created else 200,
        )
    raise _invalid(list(outcome))


async def remove(request: Request, caller: CurrentAdmin, kind: Writable, key: KeyParameter) -> Response:
    target = _target(request, caller, kind)
    namespace = caller.namespace if target.kind.namespaced else ""
    if not is_object_name(key) or not await target.files.remove(kind=target.kind.name, namespace=namespace, name=key):
        raise refuse(Code.NOT_FOUND, "No declared file of this namespace has that object.")
    return empty_response(204)


def _target(request: Request, caller: Caller, view: str) -> _Target:
    """Where to write. In a cluster nowhere: 405 naming the resource; a secret ref has no file of its own either."""
    kind = DECLARED_AS[view]
    files = gate_of(request).declared
    resource = f"{kind.plural}.{kinds.GROUP}"
    if files is None or view == "secret-refs":
        how = "in spec.secretRefs of " if view == "secret-refs" else ""
        raise refuse(
            Code.DECLARED_BY_RESOURCE,
            f"Declared {how}a {kind.name} resource: kubectl apply or delete {resource}.",
            headers=((b"allow", b"GET, HEAD, OPTIONS"),),
        )
    if not kind.namespaced and caller.scope != CLUSTER:
        raise refuse(Code.ROLE_REQUIRED, f"A {kind.name} is cluster-wide; so must be who writes it.")
    return _Target(files, kind)


def _resource(body: dict[str, Any], kind: kinds.ResourceKind) -> dict[str, Any]:
    metadata, spec = body.get("metadata"), body.get("spec")
    if body.get("apiVersion") != kinds.API_VERSION or body.get("kind") != kind.name:
        raise refuse(Code.INVALID_RESOURCE, f"Send a resource of {kinds.API_VERSION}, kind {kind.name}.")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not isinstance(spec, dict):
        raise refuse(Code.INVALID_RESOURCE, "metadata.name and spec are required.")
    if not is_object_name(metadata["name"]):
        raise refuse(Code.INVALID_RESOURCE, "metadata.name: a DNS subdomain name, as Kubernetes has it.")
    return body


def _namespace(caller: Caller, kind: kinds.ResourceKind, metadata: Mapping[str, Any]) -> str:
    """D-53: the caller writes its own namespace only, whatever the body says."""
    if not kind.namespaced:
        return ""
    if metadata.get("namespace", caller.namespace) != caller.namespace:
        raise refuse(Code.TENANT_MISMATCH, "metadata.namespace: only your own.")
    return caller.namespace


def _invalid(complaints: list[ResourceFinding]) -> Exception:
    forbidden = any(complaint.reason == "ForbiddenKey" for complaint in complaints)
    said_ = "; ".join(f"{complaint.path}: {complaint.message}" for complaint in complaints[:5])
    return refuse(Code.FORBIDDEN_KEYS if forbidden else Code.INVALID_RESOURCE, said_ or "The resource is invalid.")
