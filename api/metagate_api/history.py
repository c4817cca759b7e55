"""What admins ask about yesterday and tomorrow: why a packet is as it is, what changed, what a change would do."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

import structlog
from fastapi import Query, Request, Response

from legivellum.http import strict_json
from legivellum.http.problems import refuse
from legivellum.identity.tenancy import authorized_tenant, tenants_for
from metagate_api import cursors
from metagate_api.callers import Caller
from metagate_api.gate import Gate, exchange_of, gate_of
from metagate_api.problem_codes import Code
from metagate_api.rendering import shallow
from metagate_api.request_parameters import (
    Authentication,
    CurrentAdmin,
    KeyParameter,
    PageCursor,
    PageLimit,
    UuidParameter,
    require_admin,
)
from metagate_api.responses import json_response
from metagate_api.schemas import HISTORY_OBJECT
from metagate_crds import kinds
from metagate_crds.compile.world import World
from metagate_crds.objects import CompileSettings, DeclaredObject, Namespace, ObjectKey
from metagate_crds.plan.explanation import Explanation, NotReproducibleError, explain_packet
from metagate_crds.plan.planner import make_plan
from metagate_crds.plan.proposal import propose_world
from metagate_crds.plan.serialization import leaves_to_list, plan_to_dict
from metagate_crds.rules.patterns import is_object_name
from metagate_store.history import Boot, ChangeEvent, Declaration

_log = structlog.get_logger("metagate.explain")

What = Annotated[
    str | None,
    Query(
        alias="object",
        max_length=280,
        pattern=HISTORY_OBJECT,
    ),
]
Revision = Annotated[int | None, Query(ge=1, le=2**53 - 1)]

PLANNED_OBJECTS: Final = 2_000
"""Larger worlds are planned by the command line, which has more time than one request."""
_PAGE: Final = 500
_NOUNS: Final = {kind.noun: kind.name for kind in kinds.KINDS.values()}
_LAYERS: Final = {"Profile": "profile", "Manifest": "manifest", "PrincipalBinding": "binding"}


async def explain_principal(
    request: Request, caller: CurrentAdmin, key: KeyParameter, tenant: UuidParameter | None = None
) -> Response:
    tenant_id = authorized_tenant(caller, tenant)
    # PostgreSQL has no NUL in its texts: the driver would raise, and a name with one cannot exist.
    boot = None if "\0" in key else await gate_of(request).reader.history.current_boot(tenant_id, key)
    if boot is None:
        raise refuse(Code.NOT_FOUND, "There is no such principal with an active binding.")
    return json_response(await explained_boot(gate_of(request), tenant_id, boot))


async def explain_startup(
    request: Request, caller: CurrentAdmin, startup_id: UuidParameter, tenant: UuidParameter | None = None
) -> Response:
    tenant_id = authorized_tenant(caller, tenant)
    boot = await gate_of(request).reader.history.boot_of(tenant_id, startup_id)
    if boot is None:
        raise refuse(Code.SESSION_NOT_FOUND, "There is no such session.")
    return json_response(await explained_boot(gate_of(request), tenant_id, boot))


async def explained_boot(gate: Gate, tenant: UUID, boot: Boot) -> dict[str, Any]:
    """The packet of a boot, leaf by leaf, made again from what was declared.

    Raises Refused: BINDING_INCOMPLETE, NOT_REBUILT.
    """
    if boot.digest is None:
        raise refuse(Code.BINDING_INCOMPLETE, "The binding refers to something missing or invalid: there is no packet.")
    layers = await gate.reader.history.layers(tenant, boot.principal_key, boot.revision)
    rebuilt = _rebuilt(boot, layers)
    return {
        "tenant": tenant,
        "principal_key": boot.principal_key,
        "component_key": boot.component_key,
        "startup_id": boot.startup_id,
        "opened_at": boot.opened_at,
        "revision": boot.revision,
        "compiled_at": boot.compiled_at,
        "digest": rebuilt.digest,
        "objects": [
            {"layer": _LAYERS[layer.kind], **{name: value for name, value in shallow(layer).items() if name in _OBJECT}}
            for layer in layers
        ],
        "leaves": leaves_to_list(rebuilt),
    }


_OBJECT: Final = frozenset({"kind", "namespace", "name", "uid", "generation", "manager", "revision", "changed_at"})


def _rebuilt(boot: Boot, layers: Sequence[Declaration]) -> Explanation:
    """Made again, and the same to the byte; anything else is a failure, and said loudly."""
    by_kind = {layer.kind: _declared(layer) for layer in layers}
    missing = sorted(_LAYERS.keys() - by_kind.keys())
    if missing:
        raise _failed(boot, f"what was declared then is not remembered: {', '.join(missing)}")
    try:
        rebuilt = explain_packet(
            by_kind["PrincipalBinding"], by_kind["Profile"], by_kind["Manifest"], CompileSettings()
        )
    except NotReproducibleError as failure:
        raise _failed(boot, str(failure)) from failure
    if rebuilt.digest != boot.digest or rebuilt.body != boot.body:
        raise _failed(boot, "made again from what was declared, the packet is another than the one that was served")
    return rebuilt


def _failed(boot: Boot, reason: str) -> Exception:
    _log.error("not_rebuilt", revision=boot.revision, digest=boot.digest, reason=reason)
    return refuse(Code.NOT_REBUILT, f"{reason}.")


async def history(  # noqa: PLR0917  # the framework fills them in by name
    request: Request,
    caller: CurrentAdmin,
    wanted: What = None,
    tenant: UuidParameter | None = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
) -> Response:
    noun, _, name = (wanted or "").partition("/")
    # one object is of one tenant: names repeat in others
    tenant_id = authorized_tenant(caller, tenant) if wanted else tenants_for(caller, tenant)
    before = cursors.read(cursors.HISTORY, cursor)
    page = await gate_of(request).reader.history.change_events(
        tenant_id,
        kind=_NOUNS[noun] if wanted else None,
        name=name or None,
        before=None if before is None else (int(before[0]), int(before[1])),
        limit=limit,
    )
    following = None if page.next is None else (str(page.next[0]), str(page.next[1]))
    next_cursor = cursors.written(cursors.HISTORY, following)
    return json_response({"items": [_happened(event) for event in page.items], "next_cursor": next_cursor})


def _happened(event: ChangeEvent) -> dict[str, Any]:
    how = "removed" if event.after_digest is None else "added" if event.before_digest is None else "changed"
    return {**{name: value for name, value in shallow(event).items() if name != "seq"}, "how": how}


async def objects(  # noqa: PLR0917  # the framework fills them in by name
    request: Request,
    caller: CurrentAdmin,
    revision: Revision = None,
    tenant: UuidParameter | None = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
    key_digests: bool = False,  # the framework gives it by name
) -> Response:
    tenant_id = authorized_tenant(caller, tenant)
    reader = gate_of(request).reader
    newest = (await reader.state()).revision
    if revision is not None and revision > newest:
        raise refuse(Code.NOT_FOUND, "There is no such revision yet.")
    wanted = revision or newest
    after = cursors.read(cursors.OBJECTS, cursor)
    position = None if after is None else (after[0], after[1])
    page = await reader.history.declared_at(tenant_id, wanted, after=position, limit=limit)
    return json_response(
        {
            "revision": wanted,
            "newest": newest,
            "items": [_declaration_shown(declaration, key_digests=key_digests) for declaration in page.items],
            "next_cursor": cursors.written(cursors.OBJECTS, page.next),
        }
    )


def _declaration_shown(declaration: Declaration, *, key_digests: bool) -> dict[str, Any]:
    """EXT-10: a list shows no material of API keys, not even what is declared of them, unless it is asked for by name:
    a Principal without its digests cannot be applied again.
    """
    shown = {name: value for name, value in shallow(declaration).items() if name != "packet_digest"}
    if not key_digests:
        shown["spec"] = spec_without_key_digests(declaration.kind, declaration.spec)
    return shown


def spec_without_key_digests(kind: str, spec: Any) -> Any:
    """A Principal's spec without the digests of its API keys (EXT-10); any other as it is."""
    if kind != kinds.PRINCIPAL.name or not isinstance(spec, Mapping):
        return spec
    keys = [{name: value for name, value in key.items() if name != "sha256"} for key in spec.get("apiKeys", ())]
    return {**spec, **({"apiKeys": keys} if keys else {})}


async def plan_changes(
    request: Request, authentication: Authentication, tenant: UuidParameter | None = None
) -> Response:
    exchange_of(request).require_json()
    body = strict_json.parse_object(await request.body())
    caller = await require_admin(gate_of(request), authentication)
    tenant_id = authorized_tenant(caller, tenant)
    resources, prune = body.get("resources"), body.get("prune", False)
    if not isinstance(resources, list) or not isinstance(prune, bool):
        raise refuse(Code.INVALID_REQUEST, "Send {resources: […], prune: false}.")
    current, namespace = await _world(gate_of(request), caller, tenant_id)
    specs = dict(_proposed(resource, namespace) for resource in resources)
    changes = await asyncio.to_thread(
        lambda: plan_to_dict(make_plan(current, propose_world(current, specs, prune=prune)))
    )
    return json_response(changes)


async def _world(gate: Gate, caller: Caller, tenant: UUID) -> tuple[World, str]:
    """What is declared and valid in a tenant now."""
    newest = (await gate.reader.state()).revision
    declarations: list[Declaration] = []
    after: tuple[str, str] | None = None
    while True:
        page = await gate.reader.history.declared_at(tenant, newest, after=after, limit=_PAGE)
        declarations.extend(page.items)
        after = page.next
        if len(declarations) > PLANNED_OBJECTS:
            raise refuse(
                Code.INVALID_REQUEST,
                f"More than {PLANNED_OBJECTS} objects are declared: use `metagate plan --url`, which takes its time.",
            )
        if after is None:
            break
    if declarations:
        namespace = declarations[0].namespace
    else:
        namespace = caller.namespace if tenant == caller.tenant else "default"
    settings = CompileSettings(default_sla_seconds=gate.settings.default_startup_sla_seconds)
    born = min((declaration.created_at for declaration in declarations), default=datetime.now(UTC))
    objects = [_declared(declaration) for declaration in declarations]
    return World(settings, [Namespace(namespace, str(tenant), born)], objects), namespace


def _proposed(given: Any, namespace: str) -> tuple[ObjectKey, Any]:
    if not isinstance(given, Mapping) or given.get("apiVersion") != kinds.API_VERSION:
        raise refuse(Code.INVALID_RESOURCE, f"Each of resources is an object of {kinds.API_VERSION}.")
    kind, metadata = given.get("kind"), given.get("metadata")
    known = kinds.KINDS.get(kind) if isinstance(kind, str) else None
    if known is None or not known.namespaced:
        raise refuse(Code.INVALID_RESOURCE, "kind: one of the namespaced kinds; others are not one tenant's to plan.")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(metadata, Mapping) or not is_object_name(name):
        raise refuse(Code.INVALID_RESOURCE, "metadata.name: a DNS subdomain name, as Kubernetes has it.")
    if metadata.get("namespace", namespace) != namespace:
        raise refuse(Code.TENANT_MISMATCH, "metadata.namespace: only that of the tenant.")
    return ObjectKey(known.name, namespace, name), given.get("spec")


def _declared(declaration: Declaration) -> DeclaredObject:
    return DeclaredObject(
        ObjectKey(declaration.kind, declaration.namespace, declaration.name),
        str(declaration.uid),
        declaration.generation,
        declaration.created_at,
        declaration.spec,
        declaration.manager,
    )
