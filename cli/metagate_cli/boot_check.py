"""`metagate doctor --boot`: a component that is declared for this check alone boots, as a pod would, and reports READY.

It takes a namespace that the operator watches, and an issuer for the cluster's tokens. What was declared is deleted
again; the startup and its receipt stay for as long as any.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from metagate_cli.observations import Observation
from metagate_cli.output import safe_text
from metagate_client import Client, ClientError, Packet, RefusedError, Settings
from metagate_crds.kinds import API_VERSION, KINDS
from metagate_operator.cluster.kubernetes_client import KubernetesClient, KubernetesError, collection_path, object_path

PATIENCE_SECONDS: Final = 20.0
"""How long the operator and the API have to serve what was declared; a second or two is usual."""
_TOKEN_SECONDS: Final = 600  # the shortest that a TokenRequest allows
_COMPONENT_KEY: Final = "metagate-doctor"


@dataclass(frozen=True, slots=True)
class BootTarget:
    """The API to boot at, and the audience of its tokens."""

    url: str
    audience: str
    ca_file: Path | None


async def check_boot(kubernetes: KubernetesClient, namespace: str, *, target: BootTarget) -> list[Observation]:
    started = time.monotonic()
    name = f"metagate-doctor-{secrets.token_hex(4)}"
    try:
        async with _declared(kubernetes, namespace, name):
            await _wait_until_served(kubernetes, namespace, name)
            packet = await _booted(await _token(kubernetes, namespace, name, target.audience), target)
    except (_NotServedError, ClientError) as error:
        advice = "the operator's log, and: is there a TokenIssuer with source Cluster and this audience?"
        return [Observation("wrong", "boot", safe_text(f"{name} in {namespace}: {error}"), advice)]
    seconds = time.monotonic() - started
    revision = packet["snapshot"]["revision"]
    says = f"{name} booted from revision {revision} and is READY, {seconds:.1f} s after it was declared"
    return [Observation("ok", "boot", f"{safe_text(says)}; it is deleted again")]


class _NotServedError(Exception):
    """The verdict on the binding, when it is not Ready in time."""


def _objects(namespace: str, name: str) -> list[tuple[str, dict[str, Any]]]:
    """What is declared: the path of its collection, and the object."""
    specs: dict[str, dict[str, Any]] = {
        "Principal": {"type": "component", "subjects": [{"serviceAccount": {"name": name}}]},
        "Profile": {"capabilities": {"boot": True}, "startup": {"slaSeconds": 60}},
        "Manifest": {"deploymentKey": name, "version": 1},
        "PrincipalBinding": {
            "principalRef": {"name": name},
            "profileRef": {"name": name},
            "manifestRef": {"name": name},
            "components": [_COMPONENT_KEY],
        },
    }
    metadata = {"name": name, "namespace": namespace}
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata,
        "automountServiceAccountToken": False,
    }
    declared = [
        (
            collection_path(KINDS[kind], namespace),
            {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec},
        )
        for kind, spec in specs.items()
    ]
    return [(f"/api/v1/namespaces/{namespace}/serviceaccounts", account), *declared]


@asynccontextmanager
async def _declared(kubernetes: KubernetesClient, namespace: str, name: str) -> AsyncIterator[None]:
    created: list[str] = []
    try:
        for path, body in _objects(namespace, name):
            await kubernetes.call("POST", path, body=body)
            created.append(f"{path}/{name}")
        yield
    finally:
        for path in reversed(created):
            with suppress(KubernetesError):  # the check's own result is what people have to see
                await kubernetes.call("DELETE", path)


async def _wait_until_served(kubernetes: KubernetesClient, namespace: str, name: str) -> None:
    ends = time.monotonic() + PATIENCE_SECONDS
    verdict = "nobody has looked at its binding: does the operator run, and watch this namespace?"
    while time.monotonic() < ends:
        binding = await kubernetes.get(object_path("PrincipalBinding", namespace, name))
        for condition in (binding.get("status") or {}).get("conditions") or []:
            if condition["type"] == "Ready":
                if condition["status"] == "True":
                    return
                verdict = f"its binding is not Ready: {condition.get('reason')}: {condition.get('message')}"
        await asyncio.sleep(0.2)
    raise _NotServedError(verdict)


async def _token(kubernetes: KubernetesClient, namespace: str, name: str, audience: str) -> str:
    spec = {"audiences": [audience], "expirationSeconds": _TOKEN_SECONDS}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    return str((await kubernetes.call("POST", path, body=body))["status"]["token"])


async def _booted(token: str, target: BootTarget) -> Packet:
    """The packet, READY reported. Refusals are tried again: an API pod may not have seen the revision yet."""
    with tempfile.NamedTemporaryFile("w", prefix="metagate-doctor-") as file:  # readable by its owner only
        file.write(token)
        file.flush()
        settings = Settings(
            url=target.url,
            component_key=_COMPONENT_KEY,
            token_file=file.name,
            ca_file=None if target.ca_file is None else str(target.ca_file),
            environ={},
        )
        client = Client(settings)
        ends = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                packet = await asyncio.to_thread(client.bootstrap)
                break
            except RefusedError:
                if time.monotonic() > ends:
                    raise
                await asyncio.sleep(1)
        await asyncio.to_thread(client.ready, packet["startup"]["startup_id"], "metagate doctor")
        return packet
