"""What `metagate doctor --cluster` looks at: before an install (`--pre`) whether it can succeed, then what is wrong."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from metagate_cli.boot_check import BootTarget, check_boot
from metagate_cli.installation_checks import check_account_rights, check_pods, check_webhook
from metagate_cli.observations import Observation
from metagate_cli.output import safe_text
from metagate_crds.kinds import KINDS
from metagate_operator.cluster.kubernetes_client import (
    KubernetesClient,
    KubernetesError,
    KubernetesRefused,
    collection_items,
    collection_path,
)
from metagate_operator.cluster.preflight import AccessReview, NotReady, check_kinds, is_allowed

OLDEST_KUBERNETES: Final = (1, 30)
_CLUSTER_RESOURCES: Final = (
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
)
_NAMESPACE_RESOURCES: Final = (
    ("apps", "deployments"),
    ("", "services"),
    ("", "serviceaccounts"),
    ("", "secrets"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
)
Check = Callable[[KubernetesClient, str], Awaitable[list[Observation]]]


def check_before_install(kubeconfig: Path | None, namespace: str) -> list[Observation]:
    """Whether this user can install the chart into this cluster. Nothing is changed."""
    return asyncio.run(_with_cluster(kubeconfig, namespace, (_check_version, _check_user_rights, _check_definitions)))


def check_cluster(kubeconfig: Path | None, namespace: str, boot: BootTarget | None = None) -> list[Observation]:
    """Whether what was installed works: kinds, webhook, rights, images, database, declared objects; and a boot."""
    checks: tuple[Check, ...] = (_check_kinds, check_webhook, check_account_rights, check_pods, _check_objects)
    if boot is not None:
        checks += (partial(check_boot, target=boot),)
    return asyncio.run(_with_cluster(kubeconfig, namespace, checks))


async def _with_cluster(kubeconfig: Path | None, namespace: str, checks: tuple[Check, ...]) -> list[Observation]:
    try:
        kubernetes = await KubernetesClient.connect(None if kubeconfig is None else str(kubeconfig))
    except KubernetesError as error:
        return [Observation("wrong", "cluster", safe_text(error), "is there a kubeconfig?")]
    observations: list[Observation] = []
    try:
        for check in checks:
            try:
                observations += await check(kubernetes, namespace)
            except NotReady as error:
                observations.append(Observation("wrong", "cluster", safe_text(error)))
            except KubernetesRefused as error:
                # What this user may not see is no fault of the installation.
                observations.append(Observation("note", "cluster", safe_text(error), "may this user look at it?"))
    except KubernetesError as error:
        observations.append(Observation("wrong", "cluster", safe_text(error), "does the API server answer?"))
    finally:
        await kubernetes.close()
    return observations


async def _check_version(kubernetes: KubernetesClient, _namespace: str) -> list[Observation]:
    version = await kubernetes.get("/version")
    text = f"{version['major']}.{version['minor']}"
    numbers = tuple(int(re.sub(r"\D.*", "", part) or 0) for part in (version["major"], version["minor"]))
    if numbers < OLDEST_KUBERNETES:
        oldest = ".".join(map(str, OLDEST_KUBERNETES))
        return [Observation("wrong", "Kubernetes", f"is {safe_text(text)}, the chart needs {oldest}", "upgrade it")]
    return [Observation("ok", "Kubernetes", f"is {safe_text(text)}")]


async def _check_user_rights(kubernetes: KubernetesClient, namespace: str) -> list[Observation]:
    reviews = [AccessReview("create", group, name, "", "", url=False) for group, name in _CLUSTER_RESOURCES]
    reviews += [AccessReview("create", group, name, "", namespace, url=False) for group, name in _NAMESPACE_RESOURCES]
    if not await _namespace_exists(kubernetes, namespace):
        reviews.append(AccessReview("create", "", "namespaces", "", "", url=False))
    missing = [str(review) for review in reviews if not await is_allowed(kubernetes, review)]
    if missing:
        advice = "install as a user who may, or let somebody else install CRDs and cluster roles (docs/install.md)"
        return [Observation("wrong", "rights", f"this user may not {'; '.join(missing)}", advice)]
    return [Observation("ok", "rights", f"this user may install into {safe_text(namespace)}")]


async def _namespace_exists(kubernetes: KubernetesClient, namespace: str) -> bool:
    try:
        await kubernetes.get(f"/api/v1/namespaces/{namespace}")
    except KubernetesRefused as error:
        return error.status != 404
    return True


async def _check_definitions(kubernetes: KubernetesClient, _namespace: str) -> list[Observation]:
    try:
        await check_kinds(kubernetes)
    except NotReady:
        return [Observation("ok", "CRDs", "are not there yet: the chart installs them")]
    return [Observation("note", "CRDs", "are there already", "helm upgrade, or another installation?")]


async def _check_kinds(kubernetes: KubernetesClient, _namespace: str) -> list[Observation]:
    await check_kinds(kubernetes)
    return [Observation("ok", "cluster", "answers, and serves every kind")]


async def _check_objects(kubernetes: KubernetesClient, _namespace: str) -> list[Observation]:
    observations: list[Observation] = []
    for kind in KINDS.values():
        async for item in collection_items(kubernetes, collection_path(kind, None)):
            observations += check_conditions(kind.name, item)
    return observations


def check_conditions(kind: str, item: Mapping[str, Any]) -> Iterator[Observation]:
    """What the status of one declared object says is wrong with it."""
    namespace = item["metadata"].get("namespace")
    name = safe_text(f"{kind} {f'{namespace}/' if namespace else ''}{item['metadata']['name']}")
    conditions = (item.get("status") or {}).get("conditions") or []
    ready = next((condition for condition in conditions if condition.get("type") == "Ready"), None)
    if ready is None:
        yield Observation("wrong", name, "nobody has looked at it", "does the operator run, and watch here?")
    elif ready.get("status") != "True":
        yield Observation("wrong", name, safe_text(f"{ready.get('reason')}: {ready.get('message')}"))
