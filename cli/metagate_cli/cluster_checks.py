"""What `metagate doctor --cluster` looks at: before an install (`--pre`) whether it can succeed, then what is wrong."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from metagate_cli.observations import Observation
from metagate_cli.output import safe_text
from metagate_crds.kinds import GROUP, KINDS
from metagate_operator.cluster.kubernetes_client import (
    KubernetesClient,
    KubernetesError,
    KubernetesRefused,
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
_WAITING_FOR_IMAGE: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})

Check = Callable[[KubernetesClient, str], Awaitable[list[Observation]]]


def check_before_install(kubeconfig: Path | None, namespace: str) -> list[Observation]:
    """Whether this user can install the chart into this cluster. Nothing is changed."""
    return asyncio.run(_with_cluster(kubeconfig, namespace, (_check_version, _check_user_rights, _check_definitions)))


def check_cluster(kubeconfig: Path | None, namespace: str) -> list[Observation]:
    """Whether what was installed works: the kinds, the webhook, the pods, and every declared object."""
    return asyncio.run(
        _with_cluster(kubeconfig, namespace, (_check_kinds, _check_webhook, _check_pods, _check_objects))
    )


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


async def _check_webhook(kubernetes: KubernetesClient, _namespace: str) -> list[Observation]:
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    ours = [
        (item["metadata"]["name"], webhook)
        async for item in _items(kubernetes, path)
        for webhook in item.get("webhooks") or []
        if any(GROUP in (rule.get("apiGroups") or []) for rule in webhook.get("rules") or [])
    ]
    if not ours:
        says = "there is none: what is invalid is refused by the operator only, after it was applied"
        return [Observation("note", "webhook", says, "metagate admission configuration | kubectl apply -f -")]
    without = sorted({name for name, webhook in ours if not webhook["clientConfig"].get("caBundle")})
    if without:
        advice = "does `metagate admission` run? It writes its own certificate authority there"
        return [Observation("wrong", "webhook", f"{', '.join(without)} has no caBundle: every apply fails", advice)]
    return [Observation("ok", "webhook", f"{', '.join(sorted({name for name, _ in ours}))} is called")]


async def _check_pods(kubernetes: KubernetesClient, namespace: str) -> list[Observation]:
    observations: list[Observation] = []
    pods = 0
    async for pod in _items(kubernetes, f"/api/v1/namespaces/{namespace}/pods"):
        if pod["status"].get("phase") != "Succeeded":
            pods += 1
            observations += _check_pod(pod)
    if not pods:
        says = f"there is none in {namespace}"
        return [Observation("note", "pods", says, "is it installed elsewhere? --system-namespace names it")]
    return observations or [Observation("ok", "pods", f"{pods} in {namespace}, all ready")]


def _check_pod(pod: Mapping[str, Any]) -> Iterator[Observation]:
    name = f"pod {safe_text(pod['metadata']['name'])}"
    statuses = pod["status"].get("containerStatuses") or []
    for status in statuses:
        waiting = (status.get("state") or {}).get("waiting")
        if waiting is None:
            continue
        reason = safe_text(waiting.get("reason"))
        if reason in _WAITING_FOR_IMAGE:
            advice = "build or push it, and set image.repository and image.tag"
            yield Observation(
                "wrong", name, f"the image {safe_text(status['image'])} cannot be pulled ({reason})", advice
            )
        else:
            advice = f"kubectl logs --previous {pod['metadata']['name']} -n {pod['metadata']['namespace']}"
            yield Observation("wrong", name, f"waits: {reason}", safe_text(advice))
        return
    ready = next((each for each in pod["status"].get("conditions") or [] if each["type"] == "Ready"), None)
    if ready is None or ready["status"] != "True":
        advice = f"kubectl describe pod {pod['metadata']['name']} -n {pod['metadata']['namespace']}"
        yield Observation("wrong", name, "is not ready", safe_text(advice))


async def _check_objects(kubernetes: KubernetesClient, _namespace: str) -> list[Observation]:
    observations: list[Observation] = []
    for kind in KINDS.values():
        async for item in _items(kubernetes, collection_path(kind, None)):
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


async def _items(kubernetes: KubernetesClient, path: str) -> Any:
    """Every item of a collection, page by page."""
    query: dict[str, Any] = {"limit": 500}
    while True:
        page = await kubernetes.get(path, **query)
        for item in page["items"]:
            yield item
        query["continue"] = page["metadata"].get("continue")
        if not query["continue"]:
            return
