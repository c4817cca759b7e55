"""A scripted Kubernetes API server, for what a real one will not do on demand.

It speaks list with pages, watch with bookmarks and 410, status by server-side apply, Leases, events and access reviews:
as much as kopf and the operator ask for. What it stores is what `put` and `delete` say; what goes wrong is what the
test says.
"""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from metagate_crds.kinds import API_VERSION, GROUP, KINDS, VERSION

NAMESPACES = "namespaces"
KIND_OF = {kind.plural: kind.name for kind in KINDS.values()} | {NAMESPACES: "Namespace"}
Key = tuple[str, str, str]  # plural, namespace, name


@dataclass
class FakeApiServer:
    """Faults are attributes: set one and the next request meets it."""

    version: int = 1000
    objects: dict[Key, dict[str, Any]] = field(default_factory=dict)
    leases: dict[str, dict[str, Any]] = field(default_factory=dict)
    occurrences: list[dict[str, Any]] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    vanished: set[str] = field(default_factory=set)
    fail_page: dict[str, int] = field(default_factory=dict)  # plural → the page (1, 2, …) that answers 500 instead
    down: bool = False
    silent: bool = False  # watches stay open and say nothing
    withheld: int = 0  # events that a silent watch did not send
    dropped: int = 0  # requests that came while it was down
    refused: set[str] = field(default_factory=set)  # verbs like "patch principals/status" that are forbidden
    bookmarks: bool = True
    url: str = ""
    _log: list[tuple[int, str, str, dict[str, Any]]] = field(default_factory=list)  # version, plural, type, object
    _oldest: int = 0
    _watches: set[asyncio.Queue[dict[str, Any] | None]] = field(default_factory=set)
    _watched: dict[int, tuple[str, str]] = field(default_factory=dict)
    _snapshots: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    # ── what the test says ──────────────────────────────────────────────────────────────────────────────────────────

    def namespace(self, name: str) -> dict[str, Any]:
        return self.put("Namespace", "", name, None)

    def put(self, kind: str, namespace: str, name: str, spec: Any, *, quietly: bool = False) -> dict[str, Any]:
        """Create it, or replace its spec; `quietly` loses the event."""
        key = (self._plural(kind), namespace, name)
        known = self.objects.get(key)
        self.version += 1
        result: dict[str, Any] = copy.deepcopy(known) if known else self._new(kind, namespace, name)
        if known and known.get("spec") != spec:
            result["metadata"]["generation"] += 1
        result["spec"] = spec
        result["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = result
        self._happened(key[0], "MODIFIED" if known else "ADDED", result, quietly=quietly)
        return result

    def delete(self, kind: str, namespace: str, name: str, *, quietly: bool = False) -> dict[str, Any]:
        key = (self._plural(kind), namespace, name)
        obj = copy.deepcopy(self.objects.pop(key))
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._happened(key[0], "DELETED", obj, quietly=quietly)
        return obj

    def replay(self, kind: str, body: dict[str, Any], event: str = "MODIFIED") -> None:
        """Tell again what was, as an old event."""
        self._send(self._plural(kind), {"type": event, "object": copy.deepcopy(body)}, body)

    def expire_watches(self) -> None:
        """410 in the middle of every watch, and for whoever asks to go on from before."""
        self._oldest = self.version
        for queue in self._watches:
            queue.put_nowait({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}})

    def hang_up(self) -> None:
        for queue in self._watches:
            queue.put_nowait(None)

    @property
    def watching(self) -> int:
        return len(self._watches)

    def status(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        result: dict[str, Any] = self.objects[(self._plural(kind), namespace, name)].get("status", {})
        return result

    def kubeconfig(self, directory: Path) -> str:
        path = directory / "fake.kubeconfig"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
                    "users": [{"name": "fake", "user": {"token": "fake"}}],
                    "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
                    "current-context": "fake",
                }
            )
        )
        return str(path)

    # ── what it answers ─────────────────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeApiServer]:
        application = web.Application(middlewares=[self._faults], client_max_size=16 << 20)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            self.hang_up()
            await runner.cleanup()

    @web.middleware
    async def _faults(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.down:
            self.dropped += 1
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=503)
        return await handler(request)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.strip("/").split("/")
        match path:
            case ["version"]:
                return web.json_response({"major": "1", "minor": "36"})
            case [".well-known", "openid-configuration"]:
                return web.json_response({"issuer": "https://kubernetes.default.svc.cluster.local"})
            case ["api"]:
                return web.json_response({"versions": ["v1"]})
            case ["api", "v1"]:
                return web.json_response({"resources": [_resource(NAMESPACES, "Namespace", namespaced=False)]})
            case ["apis"]:
                version = {"groupVersion": API_VERSION, "version": VERSION}
                return web.json_response(
                    {"groups": [{"name": GROUP, "versions": [version], "preferredVersion": version}]}
                )
            case ["apis", group, version] if group == GROUP and version == VERSION:
                there = [kind for kind in KINDS.values() if kind.plural not in self.vanished]
                result = [_resource(kind.plural, kind.name, namespaced=kind.namespaced) for kind in there]
                result += [_resource(f"{kind.plural}/status", kind.name, namespaced=kind.namespaced) for kind in there]
                return web.json_response({"resources": result}) if there else self._no(404, "NotFound")
            case ["apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"]:
                return web.json_response({"status": {"allowed": True}})
            case ["apis", "events.k8s.io", "v1", "namespaces", _, "events"]:
                self.occurrences.append(await request.json())
                return web.json_response({}, status=201)
            case ["apis", "coordination.k8s.io", "v1", "namespaces", _, "leases", *name]:
                return await self._lease(request, name[0] if name else "")
            case ["api", "v1", "namespaces", *rest]:
                return await self._resource(request, NAMESPACES, "", rest)
            case ["apis", group, _, "namespaces", namespace, plural, *rest] if group == GROUP:
                return await self._resource(request, plural, namespace, rest)
            case ["apis", group, _, plural, *rest] if group == GROUP:
                return await self._resource(request, plural, "", rest)
        return self._no(404, "NotFound")

    async def _resource(self, request: web.Request, plural: str, namespace: str, rest: list[str]) -> web.StreamResponse:
        verb = request.method.lower() if rest else "watch" if "watch" in request.query else "list"
        what = "/".join((plural, *rest[1:]))
        self.requests[f"{verb} {what}"] += 1
        if plural in self.vanished:
            return self._no(404, "NotFound")
        if f"{verb} {what}" in self.refused:
            return self._no(403, "Forbidden")
        if verb == "watch":
            return await self._watch(request, plural, namespace)
        if verb == "list":
            return self._list(request, plural, namespace)
        result = self.objects.get((plural, namespace, rest[0]))
        if result is None:
            return self._no(404, "NotFound")
        if verb == "patch" and rest[1:] == ["status"]:
            return await self._patch_status(request, plural, result)
        return web.json_response(result)

    def _list(self, request: web.Request, plural: str, namespace: str) -> web.Response:
        limit = int(request.query.get("limit", "0")) or 1_000_000
        token = request.query.get("continue", "")
        snapshot, _, offset = token.partition(":")
        if not token:
            snapshot, offset = uuid.uuid4().hex, "0"
            self._snapshots[snapshot] = [
                item
                for key, item in sorted(self.objects.items())
                if key[0] == plural and (not namespace or key[1] == namespace)
            ]
        if selector := request.query.get("fieldSelector"):
            name = selector.removeprefix("metadata.name=")
            self._snapshots[snapshot] = [item for item in self._snapshots[snapshot] if item["metadata"]["name"] == name]
        first = int(offset)
        if self.fail_page.get(plural) == first // limit + 1:
            return self._no(500, "InternalError")
        result = self._snapshots[snapshot]
        more = first + limit < len(result)
        metadata = {
            "resourceVersion": str(self.version),
            **({"continue": f"{snapshot}:{first + limit}"} if more else {}),
        }
        return web.json_response(
            {"kind": f"{KIND_OF[plural]}List", "metadata": metadata, "items": result[first : first + limit]}
        )

    async def _watch(self, request: web.Request, plural: str, namespace: str) -> web.StreamResponse:
        since = int(request.query.get("resourceVersion") or self.version)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if since < self._oldest:
            expired = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
            await response.write(json.dumps(expired).encode() + b"\n")
            return response
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        for version, of, event, body in self._log:
            if of == plural and version > since and (not namespace or body["metadata"].get("namespace") == namespace):
                queue.put_nowait({"type": event, "object": body})
        self._watches.add(queue)
        self._watched[id(queue)] = (plural, namespace)
        try:
            while (event_ := await queue.get()) is not None:
                if self.silent:
                    self.withheld += 1
                else:
                    await response.write(json.dumps(event_).encode() + b"\n")
                if event_["type"] == "ERROR":
                    break
        except (ConnectionResetError, asyncio.CancelledError):
            pass
        finally:
            self._watches.discard(queue)
            self._watched.pop(id(queue), None)
        return response

    async def _patch_status(self, request: web.Request, plural: str, obj: dict[str, Any]) -> web.Response:
        sent = json.loads(await request.text())
        version = sent["metadata"].get("resourceVersion")
        if version is not None and version != obj["metadata"]["resourceVersion"]:
            return self._no(409, "Conflict")
        self.version += 1
        obj = copy.deepcopy(obj)
        obj["status"] = sent["status"]
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.objects[(plural, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])] = obj
        self._happened(plural, "MODIFIED", obj)
        return web.json_response(obj)

    async def _lease(self, request: web.Request, name: str) -> web.Response:
        self.requests[f"{request.method.lower()} leases"] += 1
        if request.method == "GET":
            return web.json_response(self.leases[name]) if name in self.leases else self._no(404, "NotFound")
        sent = await request.json()
        name = name or sent["metadata"]["name"]
        known = self.leases.get(name)
        if (request.method == "POST") == (known is not None):
            return self._no(409, "AlreadyExists")
        if known is not None and sent["metadata"].get("resourceVersion") != known["metadata"]["resourceVersion"]:
            return self._no(409, "Conflict")
        self.version += 1
        sent["metadata"]["resourceVersion"] = str(self.version)
        self.leases[name] = sent
        return web.json_response(sent)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _new(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        metadata = {
            "name": name,
            "uid": str(uuid.uuid4()),
            "generation": 1,
            "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if namespace:
            metadata["namespace"] = namespace
        return {"apiVersion": "v1" if kind == "Namespace" else API_VERSION, "kind": kind, "metadata": metadata}

    def _happened(self, plural: str, event: str, body: dict[str, Any], *, quietly: bool = False) -> None:
        if quietly:
            return
        self._log.append((self.version, plural, event, body))
        self._send(plural, {"type": event, "object": body}, body)

    def _send(self, plural: str, event: dict[str, Any], body: dict[str, Any]) -> None:
        for queue in self._watches:
            of, namespace = self._watched[id(queue)]
            if of == plural and (not namespace or body["metadata"].get("namespace") == namespace):
                queue.put_nowait(event)

    @staticmethod
    def _plural(kind: str) -> str:
        return NAMESPACES if kind == "Namespace" else KINDS[kind].plural

    @staticmethod
    def _no(status: int, reason: str) -> web.Response:
        return web.json_response(
            {"kind": "Status", "status": "Failure", "code": status, "reason": reason, "message": reason}, status=status
        )


def _resource(name: str, kind: str, *, namespaced: bool) -> dict[str, Any]:
    verbs = ["get", "list", "watch", "patch"]
    return {"name": name, "kind": kind, "singularName": kind.lower(), "namespaced": namespaced, "verbs": verbs}
